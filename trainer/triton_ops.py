"""Operations of a training step over active latents alone, on a GPU, by kernels of our own.

Dense codes are nearly all zeros: their products with W read and multiply h/k times what is needed,
and torch's topk takes longer than the product that it looks at. `dense_ops` computes the same in
plain torch, and is what these are tested against.
"""

from typing import Any

import torch
from torch import Tensor

from csr_qdrant.trainer import triton_kernels as kernels
from csr_qdrant.trainer.dense_ops import CHUNK_BYTES, DenseOps
from csr_qdrant.trainer.ops import Active, Encoded, densify

WIDEST_ROW = 1 << 15  # latents that one program can hold; above, torch selects
COLUMNS, PLACES = 256, 16  # that a program takes at once
WARP_COLUMNS = 512  # of a selected row that a warp takes: sixteen a thread


class TritonOps(DenseOps):
    """See `Ops`; what needs no kernel is as in `DenseOps`."""

    def encode(
        self, x: Tensor, weight: Tensor, offset: Tensor, cuts: tuple[int, ...], columns: Tensor
    ) -> Encoded:
        """Return the strongest positive entries of x Wᵀ + offset."""
        n, h = len(x), len(weight)
        if h > WIDEST_ROW:
            return super().encode(x, weight, offset, cuts, columns)
        latents = torch.zeros((n, cuts[0]), dtype=torch.int64, device=x.device)
        values, kept = x.new_zeros(n, cuts[0]), x.new_empty(n, len(columns))
        width = 1 << (h - 1).bit_length()
        size = max(1, CHUNK_BYTES // (4 * h))
        for start in range(0, n, size):
            rows = slice(start, min(start + size, n))
            a = self._product(x[rows], weight.T)
            kept[rows] = a[:, columns] + offset[columns]
            for inner, outer in zip((0, *cuts[:0:-1]), reversed(cuts), strict=True):
                kernels.select[(len(a),)](
                    a,
                    offset,
                    latents[rows],
                    values[rows],
                    h,
                    inner,
                    outer,
                    K=cuts[0],
                    H=width,
                    num_warps=min(16, max(1, width // WARP_COLUMNS)),
                )
        return Encoded(Active(latents, values), kept)

    def decode(
        self, active: Active, k: int, weight: Tensor, pre_bias: Tensor, x: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the errors x̂ − x (n, d) of reconstructing from the first k and from all K."""
        few, many = torch.empty_like(x), pre_bias - x
        _add_rows(active, k, weight, few, many)
        return few, many

    def value_gradients(
        self, active: Active, k: int, weight: Tensor, first: Tensor, rest: Tensor
    ) -> Tensor:
        """Return ⟨W_l, g⟩ of each place, (n, K); g is a row of `first` up to k, then `rest`."""
        return _row_products(active, k, weight, first, rest)

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
        d, most = x.shape[1], active.values.shape[1]
        by_weight, by_bias = x.new_empty(h, d), x.new_empty(h)
        starts, entries = _inverted(active, h)
        kernels.add_by_latent[(h, _blocks(d))](
            starts,
            entries,
            *_whole(active.values, by_values, x, pre_bias, first, rest),
            by_weight,
            by_bias,
            d,
            k,
            most,
            D=COLUMNS,
        )
        return by_weight, by_bias

    def lists(self, codes: Active, h: int) -> "TritonLists":
        """Return `codes` (B, k) listed by latent."""
        return TritonLists(codes, h)


class TritonLists:
    """See `Lists`; a latent's list is a row of the dense codes, turned round."""

    def __init__(self, codes: Active, h: int) -> None:
        """Take the codes (B, k) of a batch."""
        self._codes, self._h = codes, h
        self._lists = densify(codes, h).T.contiguous()
        self.block_rows = max(1, CHUNK_BYTES // (4 * max(1, len(codes.latents), h)))

    def cosines(self, codes: Active) -> Tensor:
        """Return the dot products of some codes with all listed ones, (n, B)."""
        found = codes.values.new_zeros(len(codes.values), self._lists.shape[1])
        _add_rows(codes, codes.values.shape[1], self._lists, found, found)
        return found

    def no_gradient(self) -> Tensor:
        """Return zeros, (B, k)."""
        return torch.zeros_like(self._codes.values)

    def add_gradient(self, codes: Active, by_cosines: Tensor, own: Tensor, listed: Tensor) -> None:
        """Add the gradients by the values of `codes` and by the listed values."""
        k, given = codes.values.shape[1], by_cosines.contiguous()
        own += _row_products(codes, k, self._lists, given, given)
        turned = given.T.contiguous()
        others = densify(codes, self._h).T.contiguous()
        listed += _row_products(self._codes, k, others, turned, turned)

    def by_values(self, listed: Tensor) -> Tensor:
        """Return the gradient as it is."""
        return listed


def _add_rows(active: Active, k: int, matrix: Tensor, few: Tensor, many: Tensor) -> None:
    """Add Σ z_l · matrix_l over all places to `many`, and put the sum over k into `few`."""
    n, d = many.shape
    if n and d:
        places = active.values.shape[1]
        kernels.add_rows[(n, _blocks(d))](
            *_whole(*active, matrix), few, many, d, k, places, D=COLUMNS
        )


def _row_products(active: Active, k: int, matrix: Tensor, first: Tensor, rest: Tensor) -> Tensor:
    """Return ⟨matrix_l, g⟩ of each place, (n, K)."""
    n, places = active.values.shape
    found = torch.zeros_like(active.values, memory_format=torch.contiguous_format)
    if n and places:
        kernels.row_products[(n, -(-places // PLACES))](
            *_whole(*active, matrix, first, rest),
            found,
            matrix.shape[1],
            k,
            places,
            P=PLACES,
            D=COLUMNS,
        )
    return found


def _inverted(active: Active, h: int) -> tuple[Tensor, Tensor]:
    """Return where each latent's entries start, (h + 1,), and the entries, those of none last."""
    latents = torch.where(active.values > 0, active.latents, h).flatten()
    ordered, entries = latents.sort(stable=True)
    return torch.searchsorted(ordered, torch.arange(h + 1, device=ordered.device)), entries


def _blocks(columns: int) -> int:
    return -(-columns // COLUMNS)


def _whole(*tensors: Tensor) -> tuple[Any, ...]:
    """Return the tensors row after row in memory, as the kernels read them."""
    return tuple(tensor.contiguous() for tensor in tensors)
