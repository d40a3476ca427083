"""A linear adapter learned from labels or pairs: it moves together what belongs together.

Linear, so that it folds into the encoder: a = W (A x − b_pre) + b_lat = (W A) x + …
"""

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
from csr_qdrant.trainer.supervision import Labels, Pairs


def learn_adapter(
    vectors: Array, supervision: Labels | Pairs, config: TrainConfig, device: torch.device
) -> Tensor:
    """Return A, (d, d): trained from the identity on cosines of adapted vectors.

    From pairs it learns by the symmetric cross-entropy over in-batch negatives, from labels by the
    supervised contrastive term; both as a plain adapter of `fit_linear` does.
    """
    d = vectors.shape[1]
    matrix = torch.nn.Parameter(torch.eye(d, device=device))
    optimiser = torch.optim.Adam([matrix], lr=config.adapter_lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, config.adapter_steps))
    objective, batches = (
        Objective((d,), config.adapter_temperature),
        _batches(vectors, supervision, config),
    )
    for step in range(config.adapter_steps):
        batch = on_device(batches.at(step), device, lambda x: torch.from_numpy(x).to(device))
        optimiser.zero_grad()
        for cosines, term in objective.blocks(matrix, batch):
            cosines.backward(term.by_similarity)  # type: ignore[no-untyped-call]
        optimiser.step()
        decay.step()
    return matrix.detach()


def _batches(vectors: Array, supervision: Labels | Pairs, config: TrainConfig) -> Sampler:
    if isinstance(supervision, Pairs):
        every = np.arange(len(supervision.query_rows))
        return MatchSampler.of(vectors, supervision, every, config.batch_size, config.seed)
    split = Split.random(len(vectors), config.held_out, config.seed)
    return sampler(vectors, split, supervision, None, config.batch_size, config.seed)


def adapt(matrix: Tensor, vectors: Array) -> Any:
    """Return `vectors` (n, d) through the adapter, at L2 norm 1: the dense adapter's own result."""
    adapted = np.asarray(vectors, np.float32) @ matrix.cpu().numpy().T
    return adapted / np.maximum(np.linalg.norm(adapted, axis=1, keepdims=True), 1e-12)
