"""SparseCodes: a batch of codes as compressed sparse rows, in the form that Qdrant wants."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from csr_qdrant.errors import CsrError

if TYPE_CHECKING:
    import qdrant_edge
    from qdrant_client import models
    from scipy.sparse import csr_array

MAX_HIDDEN = 2**32  # Qdrant's sparse indices are u32


class CodeRow(NamedTuple):
    """One code: its active latents in rising order and their values."""

    indices: npt.NDArray[np.uint32]  # (nnz,)
    values: npt.NDArray[np.float32]  # (nnz,)


@dataclass(frozen=True, slots=True, eq=False)
class SparseCodes:
    """n codes over `h` latents; row i is `indptr[i]:indptr[i + 1]` of `indices` and `values`.

    Every instance holds what Qdrant takes for granted and its embedded engine does not check:
    indices are u32, rising and unique in each row and below `h`; values are finite and not zero.

    Raises CsrError from the constructor if the arrays break any of this.
    """

    indptr: npt.NDArray[np.int64]  # (n + 1,)
    indices: npt.NDArray[np.uint32]  # (nnz,)
    values: npt.NDArray[np.float32]  # (nnz,)
    h: int

    def __post_init__(self) -> None:
        """Check the guarantees: one pass over the arrays."""
        _check_shapes(self)
        _check_rows(self)

    # --- making ---------------------------------------------------------------------------

    @classmethod
    def from_topk(
        cls, indices: npt.NDArray[Any], values: npt.NDArray[np.float32], h: int
    ) -> "SparseCodes":
        """Return the positive entries of a TopK result: `indices` and `values` are (n, k).

        Entries at or below zero are what the ReLU after TopK removes (arXiv 2503.01776, section 3).
        """
        # Index and value share one 64-bit key, so a single sort orders both: several times faster
        # than argsort and two gathers.
        value_bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        keys = (indices.astype(np.uint64) << np.uint64(32)) | value_bits
        keys.sort(axis=1)
        kept = (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.float32)
        positive = ~(kept <= 0)  # NaN stays, so that the constructor refuses it
        indptr = np.zeros(len(keys) + 1, np.int64)
        np.cumsum(positive.sum(axis=1), out=indptr[1:])
        return cls(indptr, (keys >> np.uint64(32)).astype(np.uint32)[positive], kept[positive], h)

    @classmethod
    def from_dense(cls, matrix: npt.ArrayLike) -> "SparseCodes":
        """Return the non-zero entries of an (n, h) array."""
        dense = np.asarray(matrix, np.float32)
        if dense.ndim != 2:
            raise CsrError(f"codes need a matrix of shape (n, h), got shape {dense.shape}")
        rows, columns = np.nonzero(dense)
        indptr = np.searchsorted(rows, np.arange(len(dense) + 1)).astype(np.int64)
        return cls(indptr, columns.astype(np.uint32), dense[rows, columns], dense.shape[1])

    @classmethod
    def from_scipy(cls, matrix: Any) -> "SparseCodes":
        """Return the codes of any scipy sparse matrix of shape (n, h)."""
        rows = matrix.tocsr().copy()
        rows.sum_duplicates()
        rows = rows.astype(np.float32)  # first, for tiny values may become zeros
        rows.eliminate_zeros()
        return cls(
            rows.indptr.astype(np.int64),
            rows.indices.astype(np.uint32),
            rows.data,
            int(rows.shape[1]),
        )

    @classmethod
    def concatenate(cls, batches: Sequence["SparseCodes"]) -> "SparseCodes":
        """Stack batches of the same `h`, rows in order; raises CsrError for none or unequal h."""
        if not batches:
            raise CsrError("concatenate needs at least one batch of codes, got none")
        if len(batches) == 1:
            return batches[0]
        sizes = {batch.h for batch in batches}
        if len(sizes) > 1:
            raise CsrError(f"codes of different hidden sizes cannot be joined, got {sorted(sizes)}")
        lengths = np.concatenate([np.diff(batch.indptr) for batch in batches])
        return cls(
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            np.concatenate([batch.indices for batch in batches]),
            np.concatenate([batch.values for batch in batches]),
            batches[0].h,
        )

    # --- reading --------------------------------------------------------------------------

    def __len__(self) -> int:
        """Return the number of codes."""
        return len(self.indptr) - 1

    def __getitem__(self, rows: slice | npt.NDArray[np.integer[Any]] | list[int]) -> "SparseCodes":
        """Return some rows as codes of their own; for a single row use `codes[i : i + 1]`."""
        if isinstance(rows, slice) and rows.step in (None, 1):
            start, stop, _ = rows.indices(len(self))
            first, last = self.indptr[start], self.indptr[max(start, stop)]
            indptr = self.indptr[start : max(start, stop) + 1] - first
            return SparseCodes(indptr, self.indices[first:last], self.values[first:last], self.h)
        return self._take(np.arange(len(self))[rows])

    def _take(self, rows: npt.NDArray[np.intp]) -> "SparseCodes":
        if rows.ndim != 1:
            raise CsrError("codes are indexed by a slice or a list of rows: use codes[i : i + 1]")
        lengths = np.diff(self.indptr)[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        entries = np.arange(indptr[-1]) + np.repeat(self.indptr[rows] - indptr[:-1], lengths)
        return SparseCodes(indptr, self.indices[entries], self.values[entries], self.h)

    def rows(self) -> Iterator[CodeRow]:
        """Yield each code."""
        for first, last in pairwise(self.indptr.tolist()):
            yield CodeRow(self.indices[first:last], self.values[first:last])

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of active latents of each code, (n,)."""
        return np.diff(self.indptr)

    def norms(self) -> npt.NDArray[np.float64]:
        """L2 norm of each code, (n,); float64, since squares may leave the range of float32."""
        if len(self) == 1:  # a query: every search waits for this, and numpy is slow on so little
            return np.array([math.hypot(*self.values.tolist())])
        rows = np.repeat(np.arange(len(self)), self.lengths)
        squares = self.values.astype(np.float64) ** 2
        return np.sqrt(np.bincount(rows, weights=squares, minlength=len(self)))

    def equals(self, other: "SparseCodes", tolerance: float = 0.0) -> bool:
        """Tell whether both hold the same latents, with values within `tolerance`."""
        return (
            self.h == other.h
            and np.array_equal(self.indptr, other.indptr)
            and np.array_equal(self.indices, other.indices)
            and bool(np.all(np.abs(self.values - other.values) <= tolerance))
        )

    # --- changing -------------------------------------------------------------------------

    def normalised(self) -> "SparseCodes":
        """Return the codes at L2 norm 1 (a dot product is then a cosine); empty rows stay."""
        norms = self.norms()
        divisors = norms[0] if len(self) == 1 else np.repeat(norms, self.lengths)
        values = (self.values / divisors).astype(np.float32)
        if values.all():
            return _derived(self, values)
        return _without_zeros(self.indptr, self.indices, values, self.h)

    def truncated(self, k: int) -> "SparseCodes":
        """Return each code's `k` strongest latents (by magnitude; ties go to the lower index)."""
        if k < 1:
            raise CsrError(f"k must be at least 1, got {k}")
        if len(self.values) <= k:
            return self
        lengths = self.lengths
        if lengths.max() <= k:
            return self
        # Rows padded with zeros to the longest: (n, longest). The k-th largest magnitude of each
        # row separates; of those equal to it the first ones fill what room is left.
        slots = np.arange(lengths.max()) < lengths[:, None]
        magnitudes = np.zeros(slots.shape, np.float32)
        magnitudes[slots] = np.abs(self.values)
        limit = np.partition(magnitudes, -k, axis=1)[:, -k, None]
        above, equal = magnitudes > limit, magnitudes == limit
        room = k - above.sum(axis=1, keepdims=True)
        kept = (above | (equal & (equal.cumsum(axis=1) <= room)))[slots]
        indptr = np.concatenate([[0], np.cumsum(np.minimum(lengths, k))]).astype(np.int64)
        return SparseCodes(indptr, self.indices[kept], self.values[kept], self.h)

    # --- to other forms -------------------------------------------------------------------

    def to_dense(self) -> npt.NDArray[np.float32]:
        """Return an (n, h) array; for small batches only."""
        dense = np.zeros((len(self), self.h), np.float32)
        dense[np.repeat(np.arange(len(self)), self.lengths), self.indices] = self.values
        return dense

    def to_scipy(self) -> "csr_array":
        """Return a `scipy.sparse.csr_array` of shape (n, h)."""
        from scipy.sparse import csr_array

        # 32-bit indices where they fit: scipy picks its faster kernels by them.
        narrow = np.int32 if max(len(self.values), self.h) < 2**31 else np.int64
        parts = (self.values, self.indices.astype(narrow), self.indptr.astype(narrow))
        return csr_array(parts, shape=(len(self), self.h))

    def to_lists(self) -> Iterator[tuple[list[int], list[float]]]:
        """Yield (indices, values) of each code as plain lists, the form that clients take."""
        indices, values = self.indices.tolist(), self.values.tolist()
        bounds = self.indptr.tolist()
        for first, last in pairwise(bounds):
            yield indices[first:last], values[first:last]

    def to_qdrant(self) -> "list[models.SparseVector]":
        """Return one `qdrant_client.models.SparseVector` a code."""
        from qdrant_client import models

        # The constructor's checks are this class's guarantees, so pydantic need not repeat them.
        construct = models.SparseVector.model_construct
        if len(self) == 1:  # a query: every search waits for this
            return [construct(indices=self.indices.tolist(), values=self.values.tolist())]
        return [construct(indices=i, values=v) for i, v in self.to_lists()]

    def to_edge(self) -> "list[qdrant_edge.SparseVector]":
        """Return one `qdrant_edge.SparseVector` a code."""
        from qdrant_edge import SparseVector

        return [SparseVector(indices=i, values=v) for i, v in self.to_lists()]

    def save(self, path: str | Path) -> None:
        """Write the codes to one safetensors file, whole or not at all."""
        from csr_qdrant.codes_file import save_codes

        save_codes(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> "SparseCodes":
        """Read codes that `save` wrote; raises CsrError for any other file."""
        from csr_qdrant.codes_file import load_codes

        return load_codes(Path(path))


def _derived(codes: SparseCodes, values: npt.NDArray[np.float32]) -> SparseCodes:
    """Return `codes` with other finite values, none of them zero, without checking it all anew."""
    made = object.__new__(SparseCodes)
    for name, each in (
        ("indptr", codes.indptr),
        ("indices", codes.indices),
        ("values", values),
        ("h", codes.h),
    ):
        object.__setattr__(made, name, each)
    return made


def _without_zeros(
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.uint32],
    values: npt.NDArray[np.float32],
    h: int,
) -> SparseCodes:
    """Drop entries that underflowed to zero."""
    kept = values != 0
    if kept.all():
        return SparseCodes(indptr, indices, values, h)
    counts = np.concatenate([[0], np.cumsum(kept)])
    return SparseCodes(counts[indptr].astype(np.int64), indices[kept], values[kept], h)


def _check_shapes(codes: SparseCodes) -> None:
    if not 1 <= codes.h <= MAX_HIDDEN:
        raise CsrError(f"hidden size must be in 1..{MAX_HIDDEN}, got {codes.h}")
    for name, dtype in (("indptr", np.int64), ("indices", np.uint32), ("values", np.float32)):
        array = getattr(codes, name)
        if array.ndim != 1 or array.dtype != dtype:
            raise CsrError(
                f"{name} must be one-dimensional {np.dtype(dtype).name}, "
                f"got {array.ndim}-dimensional {array.dtype}"
            )
    indptr, size = codes.indptr, len(codes.indices)
    if len(codes.values) != size:
        raise CsrError(f"codes need as many values as indices, got {len(codes.values)} and {size}")
    if not len(indptr) or indptr[0] != 0 or indptr[-1] != size or np.any(indptr[1:] < indptr[:-1]):
        raise CsrError(f"indptr must rise from 0 to the {size} entries: the codes are damaged")


def _check_rows(codes: SparseCodes) -> None:
    if not len(codes.indices):
        return
    if codes.indices.max() >= codes.h:
        raise CsrError(f"latents must be below h={codes.h}, got {codes.indices.max()}")
    if not np.isfinite(codes.values).all():
        raise CsrError("codes must be finite, got NaN or infinity: check the dense vectors")
    if not codes.values.all():
        raise CsrError("codes must not hold zeros: drop them first")
    rises = codes.indices[1:] > codes.indices[:-1]
    starts = codes.indptr[1:-1]
    starts = starts[(starts > 0) & (starts < len(codes.indices))]
    rises[starts - 1] = True  # a fall is allowed where a new row starts
    if not rises.all():
        raise CsrError("latents must rise within each code, got them unsorted or twice")
