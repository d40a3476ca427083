"""A linear adapter learned from labels or pairs: it moves together what belongs together.

Linear, so that it folds into the encoder: a = W (A x − b_pre) + b_lat = (W A) x + …
"""

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from csr_qdrant.trainer.batch import on_device
from csr_qdrant.trainer.config import TrainConfig
from csr_qdrant.trainer.data import Array, Split
from csr_qdrant.trainer.linear_objective import Objective
from csr_qdrant.trainer.linear_sampling import MatchSampler
from csr_qdrant.trainer.sampling import Sampler, sampler
from csr_qdrant.trainer.schedule import falling, set_rate
from csr_qdrant.trainer.supervision import Labels, Pairs

ROWS = 512  # a step
LARGEST_SHARE = 0.5  # of the minutes of a run


def learn_adapter(
    vectors: Array, supervision: Labels | Pairs, config: TrainConfig, device: torch.device
) -> Tensor:
    """Return A, (d, d): trained from the identity on cosines of adapted vectors.

    From pairs it learns by the symmetric cross-entropy over in-batch negatives, from labels by the
    supervised contrastive term; both as a plain adapter of `fit_linear` does. Of a run in minutes
    it takes half at most: then fewer steps, and the rate falls by the clock.
    """
    started, d = time.perf_counter(), vectors.shape[1]
    matrix = torch.nn.Parameter(torch.eye(d, device=device))
    optimiser = torch.optim.Adam([matrix], lr=config.adapter_lr)
    objective, batches = (
        Objective((d,), config.adapter_temperature),
        _batches(vectors, supervision, config),
    )
    for step in range(config.adapter_steps):
        progress = step / config.adapter_steps
        if config.minutes is not None:
            spent = (time.perf_counter() - started) / (60 * config.minutes)
            progress = max(progress, spent / LARGEST_SHARE)
        if progress >= 1:
            break
        set_rate(optimiser, falling(config.adapter_lr, progress))
        batch = on_device(batches.at(step), device, lambda x: torch.from_numpy(x).to(device))
        optimiser.zero_grad()
        for cosines, term in objective.blocks(matrix, batch):
            cosines.backward(term.by_similarity)  # type: ignore[no-untyped-call]
        optimiser.step()
    return matrix.detach()


def _batches(vectors: Array, supervision: Labels | Pairs, config: TrainConfig) -> Sampler:
    # Larger batches take longer and make it no better: docs/LOG.md.
    rows = min(ROWS, config.rows_a_step(pairs=False))
    if isinstance(supervision, Pairs):
        every = np.arange(len(supervision.query_rows))
        return MatchSampler.of(vectors, supervision, every, rows, config.seed)
    split = Split.random(len(vectors), config.held_out, config.seed)
    return sampler(vectors, split, supervision, None, rows, config.seed)


def adapt(matrix: Tensor, vectors: Array) -> Any:
    """Return `vectors` (n, d) through the adapter, at L2 norm 1: the dense adapter's own result."""
    adapted = np.asarray(vectors, np.float32) @ matrix.cpu().numpy().T
    return adapted / np.maximum(np.linalg.norm(adapted, axis=1, keepdims=True), 1e-12)
