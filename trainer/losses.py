"""The terms of the objective. Shapes: B rows, d dimensions, h latents.

Vectors are scaled to a mean norm of 1 and squared errors are summed over dimensions, as the
papers write them, so the weights mean the same at every d. (Their code averages over dimensions.)
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from csr_qdrant.trainer.model import Autoencoder

TINY = 1e-8


def squared_error(reconstruction: Tensor, x: Tensor) -> Tensor:
    """Mean over rows of ‖x̂ − x‖² (arXiv 2503.01776, equation of L_k)."""
    return (reconstruction - x).square().sum(1).mean()


class _Awakening(torch.autograd.Function):
    """ReLU that lets a gradient raise what lies below zero, but not lower it further."""

    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        ctx.save_for_backward(a)
        return a.relu()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (a,) = ctx.saved_tensors
        return torch.where((a > 0) | (grads[0] < 0), grads[0], 0.0)


def auxiliary(model: Autoencoder, a: Tensor, residual: Tensor, dead: Tensor, k_aux: int) -> Tensor:
    """Error of reconstructing `residual` (B, d) from dead latents, over that of its mean.

    The normalised MSE of arXiv 2503.01776 (after arXiv 2406.04093, appendix A.2), on dead latents
    only. ReLU would cut off the very latents that it should revive, those with negative
    pre-activations; here they still get every gradient that raises them. The bias b_pre gets none
    from this term: all dead latents at once would drag it, and with it the live latents, away.

    Args:
        model: the autoencoder.
        a: pre-activations (B, h).
        residual: x − x̂, detached (B, d).
        dead: indices of dead latents (n,), at least one.
        k_aux: latents used for a row at most.
    """
    # Zero, but its gradient by b_pre cancels the one that comes through `a`.
    shield = model.weight[dead] @ (model.pre_bias - model.pre_bias.detach())
    chosen = a.index_select(1, dead) + shield  # (B, n)
    if k_aux < len(dead):
        kept = chosen.topk(k_aux, dim=1)
        awake = _awakened(kept.values)
        z = torch.zeros_like(chosen).scatter(1, kept.indices, awake)
    else:
        z = _awakened(chosen)
    error = (z @ model.weight[dead] - residual).square().mean()
    power = residual.square().mean()
    around_mean = (residual - residual.mean(0)).square().mean()
    # A single row, or equal ones, lie at their mean, and that is no measure.
    baseline = torch.where(around_mean > 1e-6 * power, around_mean, power)
    return error / (baseline + TINY)


def _awakened(a: Tensor) -> Tensor:
    awake: Tensor = _Awakening.apply(a)  # type: ignore[no-untyped-call]
    return awake


class _Gram(torch.autograd.Function):
    """Z Zᵀ whose gradient takes one product, since G is symmetric: (dG + dGᵀ) Z."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z @ z.T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        product: Tensor = (grads[0] + grads[0].T) @ z
        return product


def gram(codes: Tensor) -> Tensor:
    """Return the dot products of codes (B, h) among themselves, (B, B)."""
    product: Tensor = _Gram.apply(codes)  # type: ignore[no-untyped-call]
    return product


def contrastive(similarities: Tensor, temperature: float) -> Tensor:
    """The papers' contrastive term (arXiv 2503.01776, L_cl), from one (B, B) Gram matrix.

    Both views of a row are the same code there, so its positive has similarity 1 and each other
    row counts twice: −log(e^{1/τ} / (e^{1/τ} + 2 Σ_{j≠i} e^{s_ij/τ})).
    """
    others = _without_self(similarities / temperature)
    twice = torch.logsumexp(others, 1) + math.log(2)
    return F.softplus(twice - 1 / temperature).mean()


def distillation(similarities: Tensor, x: Tensor, temperature: float) -> Tensor:
    """KL divergence from the dense similarities' softmax over the batch to the codes'."""
    with torch.no_grad():
        dense = F.normalize(x, dim=1, eps=TINY)
        target = F.log_softmax(_without_self(dense @ dense.T / temperature), 1)
    learned = F.log_softmax(_without_self(similarities / temperature), 1)
    # The diagonal is −inf in both; its true share is nothing.
    difference = (target - learned).fill_diagonal_(0.0)
    return (target.exp() * difference).sum(1).mean()


def same_label(similarities: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Supervised contrastive term: −log(Σ_pos / (Σ_pos + Σ_neg)) (arXiv 2602.05735).

    Rows without another row of their label (B,) in the batch have no term; if there are no
    others, it is zero. Rows without a label (−1) are neither positive nor negative.
    """
    labelled = labels >= 0
    scores = _without_self(similarities / temperature).masked_fill(~labelled, float("-inf"))
    positive = (labels[:, None] == labels[None, :]) & labelled
    positive.fill_diagonal_(False)
    anchors = positive.any(1)
    scores, positive = scores[anchors], positive[anchors]
    pulled = torch.logsumexp(scores.masked_fill(~positive, float("-inf")), 1)
    return (torch.logsumexp(scores, 1) - pulled).sum() / max(1, len(scores))


def paired(similarities: Tensor, known: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of each query's document among those of the batch, in both directions.

    Args:
        similarities: cosines (p, p) of queries (rows) and documents; pair i is at (i, i).
        known: (p, p) bool, other pairs that must not count as negatives.
        weights: (p,) relevance of each pair.
        temperature: τ.
    """
    scores = (similarities / temperature).masked_fill(known, float("-inf"))
    truth = torch.arange(len(scores), device=scores.device)
    forth = F.cross_entropy(scores, truth, reduction="none")
    back = F.cross_entropy(scores.T, truth, reduction="none")
    return ((forth + back) / 2 * weights).sum() / weights.sum()


def _without_self(scores: Tensor) -> Tensor:
    """Return scores whose diagonal cannot be chosen."""
    mask = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    return scores.masked_fill(mask, float("-inf"))
