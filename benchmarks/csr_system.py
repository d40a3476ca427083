"""CSR codes in the raw engine, as a system beside the dense ones."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from csr_qdrant.benchmarks.edge_engine import placed
from csr_qdrant.benchmarks.engine import (
    FULL,
    SEARCHED,
    Asked,
    BuildReport,
    Columns,
    Footprint,
    Index,
    Layout,
    Place,
    SparseVectors,
)
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.benchmarks.row_blocks import InBlocks
from csr_qdrant.benchmarks.systems import IndexSystem, kept
from csr_qdrant.codes import SparseCodes
from csr_qdrant.stores.base import Datatype

LISTS = ".lists.npy"  # beside an index: lengths of its posting lists


class KnownCodes:
    """Codes of rows that several indexes are built from: encoded once, then remembered.

    Beyond `LIMIT_BYTES` nothing more is remembered, and encoded anew where it is asked for.
    """

    LIMIT_BYTES = 2**28

    def __init__(self, encode: Callable[[Matrix], SparseCodes], vectors: Matrix) -> None:
        """Take `vectors` (n, d), maybe memory-mapped; nothing is encoded yet."""
        self._encode, self._vectors = encode, vectors
        self._blocks: dict[tuple[int, int], SparseCodes] = {}
        self._seconds: dict[tuple[int, int], float] = {}
        self._bytes = 0

    @property
    def seconds(self) -> float:
        """How long encoding took, of all rows that were asked for."""
        return sum(self._seconds.values())

    def rows(self, start: int, stop: int) -> SparseCodes:
        """Return the codes of rows start..stop."""
        block = start, stop
        if block in self._blocks:
            return self._blocks[block]
        began = time.perf_counter()
        codes = self._encode(self._vectors[start:stop])
        self._seconds[block] = time.perf_counter() - began
        self._bytes += codes.indices.nbytes + codes.values.nbytes
        if self._bytes <= self.LIMIT_BYTES:
            self._blocks[block] = codes
        return codes


@dataclass(kw_only=True)
class CsrSystem(IndexSystem):
    """CSR codes as sparse vectors in the raw engine, optionally rescored with the dense vectors.

    `encode` turns dense vectors (n, d) into codes; the `k` strongest latents of a row are stored,
    the `query_k` strongest of a query are searched with, both at norm 1.
    """

    name: str
    encode: Callable[[Matrix], SparseCodes]
    k: int
    query_k: int | None = None  # None: as k
    datatype: Datatype = "f32"
    candidates: int = 0  # 0: no rescoring, no dense vectors are stored
    known: KnownCodes | None = None  # of the vectors to build from, if others have them encoded too
    _index: Index = field(init=False, repr=False)
    _lists: npt.NDArray[np.int64] = field(init=False, repr=False)  # (h,) posting-list lengths

    def build(self, vectors: Matrix, place: Path | Place) -> BuildReport:
        """Index `vectors` (n, d) in a new `place`; rows without latents get no code."""
        self._lists = np.zeros(0, np.int64)
        known = self.known or KnownCodes(self.encode, vectors)

        def encoded(start: int, stop: int) -> SparseCodes:
            codes = known.rows(start, stop).truncated(self.k).normalised()
            lengths = np.bincount(codes.indices, minlength=codes.h)
            self._lists = lengths if not len(self._lists) else self._lists + lengths
            return codes

        codes = InBlocks(len(vectors), encoded)

        def columns(start: int, stop: int) -> Columns:
            made: Columns = {SEARCHED: codes.rows(start, stop)}
            return {**made, FULL: vectors[start:stop]} if self.candidates else made

        layout: Layout = {SEARCHED: SparseVectors(datatype=self.datatype)}
        if self.candidates:
            layout = {**layout, FULL: kept(vectors.shape[1])}
        made = self._built(place, layout, len(vectors), columns)
        np.save(placed(place).beside(LISTS), self._lists)
        return made._replace(upload_s=made.upload_s - codes.seconds, encode_s=known.seconds)

    def open(self, place: Path | Place, n: int) -> None:
        """Open what an earlier `build` of `n` rows left in `place`."""
        super().open(place, n)
        self._lists = np.load(placed(place).beside(LISTS))

    def sharing(self, other: IndexSystem) -> None:
        """Search what `other` built, with settings of one's own; close one of the two only."""
        super().sharing(other)
        assert isinstance(other, CsrSystem)
        self._lists = other.lists

    @property
    def lists(self) -> npt.NDArray[np.int64]:
        """Lengths of the posting lists, (h,)."""
        return self._lists

    @property
    def rows(self) -> int:
        """Number of vectors that it was built from."""
        return self._index.rows

    def asked(self, queries: Matrix, limit: int) -> Asked:
        """Return what is asked of the index for queries (m, d)."""
        return Asked(
            queries=self._query_codes(queries),
            limit=limit,
            full=queries if self.candidates else None,
            depth=self.candidates,
        )

    def footprint(self) -> Footprint:
        """Return the measured bytes a vector; CsrError where the engine does not tell them."""
        index = self._index.sizes(SEARCHED).index_bytes
        rescoring = self._index.sizes(FULL).vector_bytes if self.candidates else 0
        return self._index.footprint(index, rescoring)

    def postings(self, queries: Matrix) -> npt.NDArray[np.float64]:
        """Return the postings that each query touches, (m,), as multiples of the number of rows."""
        codes = self._query_codes(queries)
        touched = self._lists[codes.indices]
        owners = np.repeat(np.arange(len(codes)), codes.lengths)
        return np.bincount(owners, weights=touched, minlength=len(codes)) / self.rows

    def _query_codes(self, queries: Matrix) -> SparseCodes:
        return self.encode(queries).truncated(self.query_k or self.k).normalised()
