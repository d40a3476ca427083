"""What a training step asks of a device; three implementations compute the same.

Shapes: n rows, d dimensions, h latents, K places a row for active latents, B rows of a batch.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from csr_qdrant.errors import ConfigError

T = TypeVar("T")


class Active(NamedTuple):
    """Active latents of each row; the k strongest stand first, for each k that was asked for."""

    latents: Tensor  # (n, K) int64
    values: Tensor  # (n, K), after ReLU: 0 marks a place without a latent

    def first(self, k: int) -> "Active":
        """Return the k strongest of them."""
        return Active(self.latents[:, :k], self.values[:, :k])

    def rows(self, rows: Any) -> "Active":
        """Return some rows."""
        return Active(self.latents[rows], self.values[rows])

    def normalised(self) -> "Active":
        """Return the codes at L2 norm 1; gradients reach the values."""
        return Active(self.latents, F.normalize(self.values, dim=1, eps=1e-8))


class Encoded(NamedTuple):
    """What a product with W leaves."""

    active: Active
    columns: Tensor  # (n, c) pre-activations of the latents that were asked for


class Lists(Protocol):
    """The codes of a batch, listed by latent as in Qdrant's index."""

    block_rows: int  # how many rows of the similarities to hold at once

    def cosines(self, codes: Active) -> Tensor:
        """Return the dot products of some codes with all listed ones, (n, B)."""

    def no_gradient(self) -> Tensor:
        """Return a gradient by the listed values, all zero, in a form of its own."""

    def add_gradient(self, codes: Active, by_cosines: Tensor, own: Tensor, listed: Tensor) -> None:
        """Add what `by_cosines` (n, B) means for the values of `codes` to `own`, (n, k).

        Adds what it means for the listed values to `listed`, made by `no_gradient`.
        """

    def by_values(self, listed: Tensor) -> Tensor:
        """Return a gradient by the listed values as (B, k)."""


class Ops(Protocol):
    """Products over active latents.

    `encode`, `weight_gradients` and `over` use all that the device has; the others run where they
    are called, so that `over` can share their rows.
    """

    def leading(self) -> AbstractContextManager[None]:
        """Return a block for the thread that calls these operations again and again."""

    def over(self, rows: int, work: Callable[[int, int], T]) -> list[T]:
        """Return work(start, stop) for parts of 0..rows − 1, which may run at the same time."""

    def encode(
        self, x: Tensor, weight: Tensor, offset: Tensor, cuts: tuple[int, ...], columns: Tensor
    ) -> Encoded:
        """Return the strongest positive entries of x Wᵀ + offset.

        `cuts` are falling numbers of latents: for each the strongest stand first.
        """

    def decode(
        self, active: Active, k: int, weight: Tensor, pre_bias: Tensor, x: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the errors x̂ − x (n, d) of reconstructing from the first k and from all K."""

    def value_gradients(
        self, active: Active, k: int, weight: Tensor, first: Tensor, rest: Tensor
    ) -> Tensor:
        """Return ⟨W_l, g⟩ of each place, (n, K); g is a row of `first` up to k, then `rest`."""

    def weight_gradients(
        self,
        active: Active,
        by_values: Tensor,
        k: int,
        x: Tensor,
        pre_bias: Tensor,
        first: Tensor,
        rest: Tensor,
        h: int,
    ) -> tuple[Tensor, Tensor]:
        """Return Σ da·(x − b_pre) + z·g, (h, d), and Σ da, (h,), of each latent."""

    def kth_largest(self, a: Tensor, k: int) -> Tensor:
        """Return a bound that the k largest of each row reach, (n, 1); of equal ones, more may."""

    def lists(self, codes: Active, h: int) -> Lists:
        """Return `codes` (B, k) listed by latent."""


def densify(active: Active, h: int) -> Tensor:
    """Return codes as (n, h) with zeros; gradients reach the values."""
    zeros = active.values.new_zeros(len(active.values), h)
    # Added rather than put: several places without a latent may name the same one.
    return zeros.scatter_add(1, active.latents, active.values)


def ops_for(device: torch.device, precision: str = "float32") -> Ops:
    """Return the operations for `device` that need no trial.

    Raises ConfigError for `bf16` on a CPU, where it saves nothing.
    """
    if device.type == "cpu":
        if precision != "float32":
            raise ConfigError(f"precision {precision} is for GPUs: train on a CPU with float32")
        try:
            from csr_qdrant.trainer.sparse_ops import SparseOps
        except ImportError:  # numba comes with the extra `train`, but not on every platform
            pass
        else:
            return SparseOps(torch.get_num_threads())
    from csr_qdrant.trainer.dense_ops import DenseOps

    return DenseOps(_products(precision))


def rival_ops(device: torch.device, precision: str = "float32") -> Ops | None:
    """Return operations for `device` that may be faster than those of `ops_for`, if there are any.

    On CUDA these are kernels of our own, where Triton is installed. What they gain depends on the
    GPU and the sizes, so `trainer.trial` tries them out before a run.
    """
    if device.type != "cuda":
        return None
    try:
        from csr_qdrant.trainer.triton_ops import TritonOps
    except ImportError:  # comes with torch for CUDA, on Linux
        return None
    return TritonOps(_products(precision))


def _products(precision: str) -> torch.dtype | None:
    return torch.bfloat16 if precision == "bf16" else None
