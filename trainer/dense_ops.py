"""Operations of a training step by products of dense codes, in torch: on any device.

The plain twin of `triton_ops` on a GPU; on a CPU `sparse_ops` is several times faster.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from csr_qdrant.trainer.ops import Active, Encoded, Lists, T, densify

CHUNK_BYTES = 1 << 28  # of dense codes at once


class DenseOps:
    """See `Ops`; `products` is the type in which matrices are multiplied, None: their own."""

    def __init__(self, products: torch.dtype | None = None) -> None:
        """Multiply in `products`, whose results come back in the matrices' own type."""
        self._products = products

    def _product(self, left: Tensor, right: Tensor) -> Tensor:
        if self._products is None:
            return left @ right
        return (left.to(self._products) @ right.to(self._products)).to(left.dtype)

    def leading(self) -> AbstractContextManager[None]:
        """Return a block that changes nothing."""
        return nullcontext()

    def over(self, rows: int, work: Callable[[int, int], T]) -> list[T]:
        """Return work(0, rows): a GPU needs no parts."""
        return [work(0, rows)]

    def encode(
        self, x: Tensor, weight: Tensor, offset: Tensor, cuts: tuple[int, ...], columns: Tensor
    ) -> Encoded:
        """Return the strongest positive entries of x Wᵀ + offset."""
        actives, kept = [], []
        for rows in _chunks(x, len(weight)):
            a = self._product(rows, weight.T).add_(offset)
            values, latents = a.topk(cuts[0], dim=1)
            actives.append(Active(latents, values.relu_()))
            kept.append(a[:, columns])
        return Encoded(_joined(actives), torch.cat(kept))

    def decode(
        self, active: Active, k: int, weight: Tensor, pre_bias: Tensor, x: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the errors x̂ − x (n, d) of reconstructing from the first k and from all K."""
        few = self._reconstructed(active.first(k), weight) + (pre_bias - x)
        if k == active.values.shape[1]:
            return few, few.clone()
        rest = Active(active.latents[:, k:], active.values[:, k:])
        return few, few + self._reconstructed(rest, weight)

    def _reconstructed(self, active: Active, weight: Tensor) -> Tensor:
        parts = zip(*(_chunks(each, len(weight)) for each in active), strict=True)
        codes = (densify(Active(*part), len(weight)) for part in parts)
        return torch.cat([self._product(each, weight) for each in codes])

    def value_gradients(
        self, active: Active, k: int, weight: Tensor, first: Tensor, rest: Tensor
    ) -> Tensor:
        """Return ⟨W_l, g⟩ of each place, (n, K); g is a row of `first` up to k, then `rest`."""
        h, found = len(weight), []
        chunks = (_chunks(each, h) for each in (active.latents, first, rest))
        for latents, g_first, g_rest in zip(*chunks, strict=True):
            parts = [self._product(g_first, weight.T).gather(1, latents[:, :k])]
            if k < latents.shape[1]:
                parts.append(self._product(g_rest, weight.T).gather(1, latents[:, k:]))
            found.append(torch.cat(parts, 1))
        return torch.where(active.values > 0, torch.cat(found), 0.0)

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
        by_weight, by_bias = x.new_zeros(h, x.shape[1]), x.new_zeros(h)
        arrays = (active.latents, active.values, by_values, x, first, rest)
        for latents, values, gradients, rows, g_first, g_rest in zip(
            *(_chunks(each, h) for each in arrays), strict=True
        ):
            by_a = densify(Active(latents, gradients), h)
            by_bias += by_a.sum(0)
            by_weight += self._product(by_a.T, rows - pre_bias)
            first_codes = densify(Active(latents[:, :k], values[:, :k]), h)
            by_weight += self._product(first_codes.T, g_first)
            if k < latents.shape[1]:
                rest_codes = densify(Active(latents[:, k:], values[:, k:]), h)
                by_weight += self._product(rest_codes.T, g_rest)
        return by_weight, by_bias

    def kth_largest(self, a: Tensor, k: int) -> Tensor:
        """Return a bound that the k largest of each row reach, (n, 1)."""
        return a.topk(k, dim=1).values[:, -1:]

    def lists(self, codes: Active, h: int) -> Lists:
        """Return `codes` (B, k) in the form of the similarities' products."""
        return DenseLists(codes, h, self._product)


class DenseLists:
    """See `Lists`; here the codes are kept dense."""

    def __init__(
        self, codes: Active, h: int, product: Callable[[Tensor, Tensor], Tensor] = torch.matmul
    ) -> None:
        """Take the codes (B, k) of a batch, and what multiplies them."""
        self._product = product
        self._latents, self._codes = codes.latents, densify(codes, h)
        self.block_rows = max(1, CHUNK_BYTES // (4 * max(1, len(codes.latents), h)))

    def cosines(self, codes: Active) -> Tensor:
        """Return the dot products of some codes with all listed ones, (n, B)."""
        return self._product(densify(codes, self._codes.shape[1]), self._codes.T)

    def no_gradient(self) -> Tensor:
        """Return zeros, (B, k)."""
        return self._codes.new_zeros(self._latents.shape)

    def add_gradient(self, codes: Active, by_cosines: Tensor, own: Tensor, listed: Tensor) -> None:
        """Add the gradients by the values of `codes` and by the listed values."""
        h = self._codes.shape[1]
        own += self._product(by_cosines, self._codes).gather(1, codes.latents)
        listed += self._product(by_cosines.T, densify(codes, h)).gather(1, self._latents)

    def by_values(self, listed: Tensor) -> Tensor:
        """Return the gradient as it is."""
        return listed


def _chunks(rows: Tensor, h: int) -> tuple[Tensor, ...]:
    """Return `rows` in parts whose dense codes over h latents fit `CHUNK_BYTES`."""
    chunks: tuple[Tensor, ...] = torch.split(rows, max(1, CHUNK_BYTES // (4 * h)))
    return chunks


def _joined(parts: list[Active]) -> Active:
    latents, values = zip(*parts, strict=True)
    return Active(torch.cat(latents), torch.cat(values))
