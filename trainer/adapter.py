"""A linear adapter learned from pairs: it moves queries towards their documents.

Linear, so that it folds into the encoder: a = W (A x − b_pre) + b_lat = (W A) x + …
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from csr_qdrant.trainer.config import TrainConfig
from csr_qdrant.trainer.data import Array, Order, gather
from csr_qdrant.trainer.supervision import Pairs
from csr_qdrant.trainer.terms import paired


def learn_adapter(
    vectors: Array, pairs: Pairs, config: TrainConfig, device: torch.device
) -> Tensor:
    """Return A, (d, d): trained from the identity to match each query with its documents.

    The loss is the symmetric cross-entropy over in-batch negatives on cosines of adapted vectors.
    """
    d = vectors.shape[1]
    matrix = torch.nn.Parameter(torch.eye(d, device=device))
    optimiser = torch.optim.Adam([matrix], lr=config.adapter_lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, config.adapter_steps))
    order = Order(len(pairs.query_rows), config.batch_size, (config.seed, 4))
    for step in range(config.adapter_steps):
        chosen = order.at(step)
        q, r = pairs.query_rows[chosen], pairs.document_rows[chosen]
        queries = _to(gather(pairs.queries, q, "the query vectors"), device) @ matrix.T
        wrong = pairs.negatives_of(q, len(q), np.random.default_rng((config.seed, 8, step)))
        rows = np.concatenate([r, wrong])
        documents = _to(gather(vectors, rows), device) @ matrix.T
        similarities = F.normalize(queries, dim=1) @ F.normalize(documents, dim=1).T
        _, by_similarity = paired(
            similarities.detach(),
            _to(pairs.known(q, r, wrong), device),
            _to(pairs.scores[chosen], device),
            config.supervised_temperature,
        )
        optimiser.zero_grad()
        similarities.backward(by_similarity)  # type: ignore[no-untyped-call]
        optimiser.step()
        decay.step()
    return matrix.detach()


def adapt(matrix: Tensor, vectors: Array) -> Any:
    """Return `vectors` (n, d) through the adapter, at L2 norm 1: the dense adapter's own result."""
    adapted = np.asarray(vectors, np.float32) @ matrix.cpu().numpy().T
    return adapted / np.maximum(np.linalg.norm(adapted, axis=1, keepdims=True), 1e-12)


def _to(array: Any, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
