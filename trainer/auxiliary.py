"""The term that revives dead latents, with its gradients."""

from typing import NamedTuple

import torch
from torch import Tensor

from csr_qdrant.trainer.group import Group
from csr_qdrant.trainer.ops import Ops

TINY = 1e-8
ROWS = 1024  # whose dead latents are computed at once


class Auxiliary(NamedTuple):
    """The term and its gradients by the dead latents' weights, (n, d), and biases, (n,)."""

    loss: Tensor
    by_weight: Tensor
    by_bias: Tensor


def auxiliary(
    a: Tensor,
    residual: Tensor,
    x: Tensor,
    weight: Tensor,
    k_aux: int,
    group: Group,
    ops: Ops,
) -> Auxiliary:
    """Error of reconstructing `residual` from dead latents, over that of its mean.

    The normalised MSE of arXiv 2503.01776 (after arXiv 2406.04093, appendix A.2), on dead latents
    only. ReLU would cut off the very latents that it should revive, those with negative
    pre-activations; here they still get every gradient that raises them. The bias b_pre gets none
    from this term: all dead latents at once would drag it, and with it the live latents, away.

    Args:
        a: pre-activations of the dead latents, (n, m).
        residual: x − x̂, (n, d).
        x: what the dead latents look at, x − b_pre, (n, d).
        weight: rows of W of the dead latents, (m, d).
        k_aux: latents used for a row at most.
        group: who holds the rest of the batch.
        ops: operations of the device.
    """
    scale = 1 / (_baseline(residual, group) + TINY)

    def work(start: int, stop: int) -> Auxiliary:
        parts = [
            _of_rows(a[rows], residual[rows], x[rows], weight, k_aux, scale, ops)
            for first in range(start, max(stop, start + 1), ROWS)  # a share may have no rows
            for rows in [slice(first, min(first + ROWS, stop))]
        ]
        return _sum(parts)

    return _sum(ops.over(len(a), work))


def _baseline(residual: Tensor, group: Group) -> Tensor:
    """Return the squared distance of the batch's residuals from their mean, summed.

    A single row, or equal ones, lie at their mean, and that is no measure: then their power.
    """
    count = residual.new_tensor(float(len(residual)))
    mean, power = residual.sum(0), residual.square().sum()
    group.sum(count, mean, power)
    mean /= count
    around = (residual - mean).square().sum()
    group.sum(around)
    return torch.where(around > 1e-6 * power, around, power)


def _of_rows(
    a: Tensor, residual: Tensor, x: Tensor, weight: Tensor, k_aux: int, scale: Tensor, ops: Ops
) -> Auxiliary:
    kept = torch.ones_like(a)
    if k_aux < a.shape[1]:
        kept.mul_(a >= ops.kth_largest(a, k_aux))
    z = a.relu() * kept
    error = z @ weight - residual
    by_error = error * (2 * scale)
    by_a = (by_error @ weight.T) * kept
    by_a = torch.where((a > 0) | (by_a < 0), by_a, 0.0)
    by_weight = z.T @ by_error + by_a.T @ x
    return Auxiliary(error.square().sum() * scale, by_weight, by_a.sum(0))


def _sum(parts: list[Auxiliary]) -> Auxiliary:
    return Auxiliary(*(torch.stack(each).sum(0) for each in zip(*parts, strict=True)))
