"""Operations of a training step over active latents alone, on the cores of a CPU.

Only about 4k of h latents are active, so all products but the first are small: what a step costs
is then the product x Wᵀ and reading a few rows of W. Threads of our own share the rows, with one
thread of torch's each: after each of its own parallel products torch's threads spin for a while in
wait of the next, and would take the cores from these loops.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from csr_qdrant.trainer import kernels
from csr_qdrant.trainer.ops import Active, Encoded, T

BLOCK_BYTES = 2 << 20  # of pre-activations, or of similarities, that a thread holds at once
FEW_ROWS = 64  # that are not worth a second thread


class SparseOps:
    """See `Ops`; `threads` share the work."""

    def __init__(self, threads: int) -> None:
        """Start the threads; they end with the object."""
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "step", _begin)

    @contextmanager
    def leading(self) -> Iterator[None]:
        """Keep torch's own threads out of the block."""
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def over(self, rows: int, work: Callable[[int, int], T]) -> list[T]:
        """Return work(start, stop) for as many parts of the rows as there are threads."""
        count = max(1, min(self._threads, rows // FEW_ROWS))
        bounds = [rows * part // count for part in range(count + 1)]
        return self._between(bounds, work)

    def _between(self, bounds: list[int], work: Callable[[int, int], T]) -> list[T]:
        return list(self._pool.map(work, bounds[:-1], bounds[1:]))

    def encode(
        self, x: Tensor, weight: Tensor, offset: Tensor, cuts: tuple[int, ...], columns: Tensor
    ) -> Encoded:
        """Return the strongest positive entries of x Wᵀ + offset."""
        n, h = len(x), len(weight)
        latents = torch.empty((n, cuts[0]), dtype=torch.int64)
        values, kept = x.new_empty(n, cuts[0]), x.new_empty(n, len(columns))
        size = max(16, BLOCK_BYTES // (4 * h))

        def work(start: int, stop: int) -> None:
            memory = x.new_empty(min(size, stop - start), h)
            for first in range(start, stop, size):
                rows = slice(first, min(first + size, stop))
                a = torch.mm(x[rows], weight.T, out=memory[: rows.stop - first])
                if len(columns):
                    torch.add(a[:, columns], offset[columns], out=kept[rows])
                kernels.select(
                    *_arrays(a, offset), np.array(cuts), *_arrays(latents[rows], values[rows])
                )

        self.over(n, work)
        return Encoded(Active(latents, values), kept)

    def decode(
        self, active: Active, k: int, weight: Tensor, pre_bias: Tensor, x: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the errors x̂ − x (n, d) of reconstructing from the first k and from all K."""
        few, many = torch.empty_like(x), torch.empty_like(x)
        kernels.decode(*_arrays(*active), k, *_arrays(weight, pre_bias, x, few, many))
        return few, many

    def value_gradients(
        self, active: Active, k: int, weight: Tensor, first: Tensor, rest: Tensor
    ) -> Tensor:
        """Return ⟨W_l, g⟩ of each place, (n, K); g is a row of `first` up to k, then `rest`."""
        found = torch.empty_like(active.values)
        kernels.value_gradients(*_arrays(*active), k, *_arrays(weight, first, rest, found))
        return found

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
        by_weight, by_bias = x.new_empty(h, x.shape[1]), x.new_empty(h)
        starts, entries = _inverted(active, h)
        given = _arrays(active.values, by_values)
        others = _arrays(x, pre_bias, first, rest, by_weight, by_bias)

        def work(start: int, stop: int) -> None:
            kernels.weight_gradients(start, stop, starts, entries, *given, k, *others)

        # Parts of as many entries each, for some latents have many more than others.
        shares = np.linspace(0, starts[-1], self._threads + 1)[1:-1]
        self._between([0, *np.searchsorted(starts, shares).tolist(), h], work)
        return by_weight, by_bias

    def kth_largest(self, a: Tensor, k: int) -> Tensor:
        """Return a bound that the k largest of each row reach, (n, 1)."""
        found = a.new_empty(len(a), 1)
        kernels.kth_largest(*_arrays(a), k, found.view(-1).numpy())
        return found

    def lists(self, codes: Active, h: int) -> "SparseLists":
        """Return `codes` (B, k) listed by latent."""
        return SparseLists(codes, h)


class SparseLists:
    """See `Lists`."""

    def __init__(self, codes: Active, h: int) -> None:
        """Invert the codes (B, k) of a batch."""
        self._shape = codes.latents.shape
        self._starts, self._entries = _inverted(codes, h)
        self._rows = self._entries // self._shape[1]
        (values,) = _arrays(codes.values)
        self._weights = values.reshape(-1)[self._entries]
        self.block_rows = max(16, BLOCK_BYTES // (4 * max(1, self._shape[0])))

    def cosines(self, codes: Active) -> Tensor:
        """Return the dot products of some codes with all listed ones, (n, B)."""
        found = codes.values.new_empty(len(codes.values), self._shape[0])
        kernels.cosines(*_arrays(*codes), *self._listed(), *_arrays(found))
        return found

    def no_gradient(self) -> Tensor:
        """Return zeros, one a listed entry."""
        return torch.from_numpy(np.zeros_like(self._weights))

    def add_gradient(self, codes: Active, by_cosines: Tensor, own: Tensor, listed: Tensor) -> None:
        """Add the gradients by the values of `codes` and by the listed values."""
        kernels.cosine_gradients(
            *_arrays(*codes), *self._listed(), *_arrays(by_cosines, own, listed)
        )

    def by_values(self, listed: Tensor) -> Tensor:
        """Return the gradient as (B, k)."""
        spread = listed.new_zeros(self._shape)
        spread.view(-1)[torch.from_numpy(self._entries)] = listed
        return spread

    def _listed(self) -> tuple[Any, Any, Any]:
        return self._starts, self._rows, self._weights


def _begin() -> None:
    """Settings that torch keeps for each thread."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)


def _inverted(active: Active, h: int) -> tuple[Any, Any]:
    """Return where each latent's entries start, (h + 1,), and the entries."""
    starts = np.empty(h + 1, np.int64)
    entries = np.empty(active.latents.numel(), np.int64)
    kernels.invert(*_arrays(*active), starts, entries)
    return starts, entries[: starts[-1]]


def _arrays(*tensors: Tensor) -> tuple[Any, ...]:
    """Return the tensors' own memory as numpy arrays, row after row."""
    return tuple(tensor.detach().contiguous().numpy() for tensor in tensors)
