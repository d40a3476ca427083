"""One process of a group that shares each batch; not a test itself.

Takes its rank, the number of processes and a folder. Reads what to compute from `given.pt` there,
and writes what this process found to `found-RANK.pt`.
"""

import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed

from csr_qdrant.trainer import TrainConfig
from csr_qdrant.trainer.batch import TorchBatch
from csr_qdrant.trainer.data import Matches
from csr_qdrant.trainer.dense_ops import DenseOps
from csr_qdrant.trainer.group import Group, current_group, in_turn
from csr_qdrant.trainer.model import Autoencoder
from csr_qdrant.trainer.ops import Ops
from csr_qdrant.trainer.sparse_ops import SparseOps
from csr_qdrant.trainer.step import Step

WAYS: dict[str, tuple[Ops, torch.dtype]] = {
    "dense": (DenseOps(), torch.float64),
    "sparse": (SparseOps(2), torch.float32),
}


class Given(NamedTuple):
    """A step to compute."""

    name: str
    settings: dict[str, Any]  # of TrainConfig
    state: dict[str, Tensor]  # of the model
    x: Tensor  # (B, d)
    labels: Tensor | None
    matches: tuple[Tensor, ...] | None
    dead: Tensor


def compute(given: Given, way: str, group: Group | None = None) -> dict[str, Any]:
    """Return the loss, the terms, the latents in use and the gradients of a step."""
    ops, dtype = WAYS[way]
    h, d = given.state["weight"].shape
    model = Autoencoder(d, h).to(dtype)
    model.load_state_dict(given.state)
    matches = None if given.matches is None else Matches(*given.matches)
    batch = TorchBatch(given.x.to(dtype), given.labels, matches)
    step = Step(model, TrainConfig(**given.settings), ops, group)
    loss, terms, used = step(batch, given.dead, step=1, progress=0.0)
    gradients = [each.grad for each in model.parameters()]
    return {"loss": loss, "terms": terms, "used": used, "gradients": gradients}


def exchanges(group: Group, folder: Path) -> dict[str, Any]:
    """Return what the group's own functions do."""
    with in_turn(group):
        turn = len(list(folder.glob("turn-*")))
        time.sleep(0.1 * (1 - group.rank))  # the first is slower, and still the first
        (folder / f"turn-{group.rank}").touch()
    rank = float(group.rank)
    sums = (torch.tensor(rank + 1), torch.full((2, 3), rank), torch.tensor([rank]).double())
    group.sum(*sums)
    rows = torch.arange(10).view(5, 2)
    uneven = (rows[: 2 + 3 * group.rank], rows[: 3 * group.rank].float(), rows[:0])
    return {
        "place": (group.rank, group.size, turn),
        "first": group.first({"rank": group.rank, "x": torch.tensor([group.rank])}),
        "sums": sums,
        "shares": [(part.start, part.stop) for part in map(group.share, (0, 1, 7, 33))],
        "gathered": [group.gather(each) for each in uneven],
    }


def main(rank: int, size: int, folder: Path) -> None:
    """Compute every step that is given, in each way."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=size
    )
    group = current_group()
    given = [Given(*each) for each in torch.load(folder / "given.pt")]
    found: dict[str, Any] = {
        f"{each.name}-{way}": compute(each, way, group) for each in given for way in WAYS
    }
    torch.save(found | {"exchanges": exchanges(group, folder)}, folder / f"found-{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
