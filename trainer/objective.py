"""The whole loss of a step, and what the step shows of dead latents."""

from typing import NamedTuple

import torch
from torch import Tensor

from csr_qdrant.trainer.config import TrainConfig
from csr_qdrant.trainer.data import Matches
from csr_qdrant.trainer.losses import (
    auxiliary,
    contrastive,
    distillation,
    gram,
    paired,
    same_label,
    squared_error,
)
from csr_qdrant.trainer.model import Active, Autoencoder, densify


class TorchBatch(NamedTuple):
    """A `data.Batch` on the device."""

    x: Tensor  # (B, d), scaled and adapted
    labels: Tensor | None = None
    matches: Matches | None = None


class Outcome(NamedTuple):
    """What a step computes."""

    loss: Tensor
    terms: dict[str, Tensor]  # unweighted, detached
    active: Active  # (B, k) at the largest k


def annealed_k(config: TrainConfig, k: int, h: int, progress: float) -> int:
    """Return the k of this moment: from k_anneal down to k over the first 70 % (CSRv2)."""
    if config.k_anneal is None:
        return k
    start = max(k, min(config.k_anneal, h // 4))
    return round(k + (start - k) * max(0.0, 1 - progress / 0.7))


def objective(
    model: Autoencoder,
    batch: TorchBatch,
    dead: Tensor,
    config: TrainConfig,
    *,
    step: int,
    progress: float,
) -> Outcome:
    """Return the loss of one batch.

    Each step takes one k of the list in turn; the 4k term and the dead latents go by the largest.

    Args:
        model: the autoencoder.
        batch: its rows and supervision.
        dead: indices of dead latents, (n,), may be empty.
        config: weights and temperatures.
        step: number of the step, which chooses k.
        progress: share of the run that is over, 0..1.
    """
    h = len(model.latent_bias)
    ks = sorted({annealed_k(config, k, h, progress) for k in config.k}, reverse=True)
    a = model.pre_activations(batch.x)
    strongest = model.active(a, min(4 * ks[0], h) if config.multi_k else ks[0])
    active = strongest.first(ks[step % len(ks)])
    reconstruction = model.decode(active)
    terms = {"reconstruction": squared_error(reconstruction, batch.x)}
    if config.multi_k:
        terms["multi_k"] = squared_error(model.decode(strongest), batch.x)
    if config.aux and len(dead):
        residual = batch.x - reconstruction.detach()
        terms["aux"] = auxiliary(model, a, residual, dead, config.k_aux)
    terms |= _similarity_terms(densify(active.normalised(), h), batch, config)
    loss = torch.stack([getattr(config, name) * term for name, term in terms.items()]).sum()
    detached = {name: term.detach() for name, term in terms.items()}
    return Outcome(loss, detached, strongest.first(ks[0]))


def _similarity_terms(codes: Tensor, batch: TorchBatch, config: TrainConfig) -> dict[str, Tensor]:
    """Return the terms that need the Gram matrix of normalised codes, (B, h)."""
    if len(codes) < 2:  # a row alone is like no other
        return {}
    supervised = batch.labels is not None or batch.matches is not None
    if not (config.contrastive or config.distillation or (supervised and config.supervised)):
        return {}
    similarities = gram(codes)
    terms = {}
    if config.contrastive:
        terms["contrastive"] = contrastive(similarities, config.contrastive_temperature)
    if config.distillation:
        terms["distillation"] = distillation(similarities, batch.x, config.distillation_temperature)
    if config.supervised and supervised:
        terms["supervised"] = _supervised(similarities, batch, config.supervised_temperature)
    return terms


def _supervised(similarities: Tensor, batch: TorchBatch, temperature: float) -> Tensor:
    if batch.labels is not None:
        return same_label(similarities, batch.labels, temperature)
    assert batch.matches is not None
    queries, documents, known, weights = batch.matches
    return paired(similarities[queries][:, documents], known, weights, temperature)
