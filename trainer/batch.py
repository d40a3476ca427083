"""A batch where the step computes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from csr_qdrant.trainer.data import Batch, Matches


class TorchBatch(NamedTuple):
    """A `data.Batch` on the device."""

    x: Tensor  # (B, d), scaled and adapted
    labels: Tensor | None = None
    matches: Matches | None = None
    documents: int | None = None  # the first rows, which are to be found; None: all of them


def on_device(batch: Batch, device: torch.device, prepared: Callable[[Any], Tensor]) -> TorchBatch:
    """Return `batch` on the device, its rows as `prepared` makes them of the numpy array."""

    def moved(array: Any) -> Tensor | None:
        return None if array is None else torch.from_numpy(array).to(device)

    matches = None if batch.matches is None else Matches(*map(moved, batch.matches))
    return TorchBatch(prepared(batch.x), moved(batch.labels), matches, batch.documents)
