"""Our trainer against the papers' objective written plainly, for the same time.

    python -m csr_qdrant.benchmarks.equal_time

Both learn from the verses alone, one after the other on all threads, and are measured on the test
topics. The plain one has what the papers say: h = 4 d latents, reconstruction from k and 4k, the
auxiliary and the contrastive term, three dense passes a step, one encoder for each k, each given
the whole time; its rate and schedule are ours, which suit it better than the papers' rate.
"""

import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from csr_qdrant.benchmarks.compare import Task
from csr_qdrant.benchmarks.csr_system import CsrSystem
from csr_qdrant.benchmarks.metrics import Floats, bootstrap_difference, ndcg, run_of
from csr_qdrant.benchmarks.nave import Nave
from csr_qdrant.benchmarks.nave_task import EMBEDDER, embed, nave_task
from csr_qdrant.benchmarks.plain import PlainAutoencoder, plain_loss
from csr_qdrant.benchmarks.record import RESULTS, report, write_record
from csr_qdrant.embedders import load_embedder
from csr_qdrant.encoder import Encoder
from csr_qdrant.trainer import TrainConfig, fit
from csr_qdrant.trainer.data import Array, Order, gather, typical_norm
from csr_qdrant.trainer.loop import learning_rate
from csr_qdrant.trainer.model import Autoencoder

KS = (8, 32)
GOAL = 0.25  # more nDCG@10 than the plain one's, at least
CONTRASTIVE = 0.1  # the papers' weight on images, and better than 1.0 here


def plain_encoder(vectors: Array, config: TrainConfig, minutes: float) -> Encoder:
    """Train the papers' objective as it is written; the encoder's `info` holds its steps."""
    d = vectors.shape[1]
    scale = typical_norm(vectors)
    start = Autoencoder(d, 4 * d, torch.Generator().manual_seed(config.seed))
    model = PlainAutoencoder(start.weight, start.latent_bias, start.pre_bias)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    order = Order(len(vectors), config.rows_a_step(pairs=False), (config.seed, 2))
    idle = torch.zeros(4 * d, dtype=torch.int64)
    started, step = time.perf_counter(), 0
    while (progress := (time.perf_counter() - started) / (60 * minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(config, config.peak_lr(d), progress)
        x = torch.from_numpy(gather(vectors, order.at(step))) / scale
        dead = (idle >= config.idle_limit(pairs=False)).nonzero().squeeze(1)
        loss = plain_loss(model, x, config, config.k[0], dead=dead)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimiser.step()
        with torch.no_grad():
            used = (model.codes(x, config.k[0]) > 0).any(0)
        idle = torch.where(used, 0, idle + 1)
        step += 1
    start.load_state_dict(model.state_dict())
    return start.to_encoder(scale, k=config.k[0], info={"steps": step})


def quality(encoder: Encoder, task: Task, k: int) -> Floats:
    """Return nDCG@10 of each query, (m,)."""
    system = CsrSystem(name=f"k={k}", encode=encoder.encode, k=k)
    with tempfile.TemporaryDirectory() as folder:
        system.build(task.vectors, Path(folder) / "shard")
        found = system.search(task.queries, 10)
        system.close()
    return ndcg(run_of(task.query_ids, task.doc_ids, found.rows, found.scores), task.qrels)


def compared(task: Task, minutes: float, seed: int) -> dict[str, Any]:
    """Train ours once and the plain one for each k, and compare them query by query."""
    ours = fit(task.vectors, TrainConfig(minutes=minutes, seed=seed), device="cpu")
    results: dict[str, Any] = {"steps": ours.info["steps"]}
    for k in KS:
        config = TrainConfig(
            k=(k,), seed=seed, distillation=0, supervised=0, contrastive=CONTRASTIVE
        )
        plain = plain_encoder(task.vectors, config, minutes)
        first, second = quality(ours, task, k), quality(plain, task, k)
        gain = bootstrap_difference(first, second)._asdict()
        results[str(k)] = {
            "plain_steps": plain.info["steps"],
            "ours": float(np.mean(first)),
            "plain": float(np.mean(second)),
            **gain,
            "gain": float(np.mean(first) / np.mean(second) - 1),
        }
    return results


def main(
    minutes: Annotated[float, typer.Option(help="Training time of each encoder.")] = 5.0,
    seed: Annotated[int, typer.Option(help="Seed of both.")] = 0,
    split: Annotated[str, typer.Option(help="Split to measure on.")] = "test",
    output: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Compare both trainers for the same time."""
    data = Nave()
    task = nave_task(data, embed(data, load_embedder(EMBEDDER), (split,)), split)
    results = compared(task, minutes, seed)
    params = {"minutes": minutes, "seed": seed, "split": split, "threads": torch.get_num_threads()}
    path = write_record("equal_time", params, {**results, "goal_at_least": GOAL}, output)
    report("equal_time", {f"k={k}": _line(results[str(k)]) for k in KS}, path)


def _line(found: dict[str, Any]) -> str:
    return (
        f"nDCG@10 {found['ours']:.4f}, plain {found['plain']:.4f} ({found['plain_steps']} steps): "
        f"{100 * found['gain']:+.0f} %, difference in [{found['low']:.4f}, {found['high']:.4f}] "
        f"(goal: at least {100 * GOAL:+.0f} %)"
    )


if __name__ == "__main__":
    typer.run(main)
