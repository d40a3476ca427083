"""CSR codes in the raw engine, as a system beside the dense ones."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import qdrant_edge as edge

from csr_qdrant.benchmarks.engine import (
    BuildReport,
    Footprint,
    InBlocks,
    Shard,
    kept_parameters,
    request,
    rescored,
)
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.benchmarks.systems import (
    FULL,
    SEARCHED,
    EdgeSystem,
)
from csr_qdrant.codes import SparseCodes
from csr_qdrant.stores.base import Datatype

_DATATYPES = {
    "f32": edge.VectorStorageDatatype.Float32,
    "f16": edge.VectorStorageDatatype.Float16,
    "u8": edge.VectorStorageDatatype.Uint8,
}


@dataclass(kw_only=True)
class CsrSystem(EdgeSystem):
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
    _shard: Shard = field(init=False, repr=False)
    _rows: int = field(init=False, repr=False)
    _lists: npt.NDArray[np.int64] = field(init=False, repr=False)  # (h,) posting-list lengths

    def build(self, vectors: Matrix, folder: Path) -> BuildReport:
        """Index `vectors` (n, d) in a new `folder`; rows without latents get no code."""
        self._lists, self._rows = np.zeros(0, np.int64), len(vectors)

        def encoded(start: int, stop: int) -> SparseCodes:
            codes = self.encode(vectors[start:stop]).truncated(self.k).normalised()
            lengths = np.bincount(codes.indices, minlength=codes.h)
            self._lists = lengths if not len(self._lists) else self._lists + lengths
            return codes

        codes = InBlocks(len(vectors), encoded)

        def named_vectors(start: int, stop: int) -> list[dict[str, Any]]:
            rows = [{SEARCHED: c} if c.indices else {} for c in codes.rows(start, stop).to_edge()]
            if self.candidates:
                for row, full in zip(rows, vectors[start:stop].tolist(), strict=True):
                    row[FULL] = full
            return rows

        kept = {FULL: kept_parameters(vectors.shape[1])} if self.candidates else None
        sparse = {SEARCHED: edge.EdgeSparseVectorParams(datatype=_DATATYPES[self.datatype])}
        self._shard = Shard(folder, kept, sparse)
        made = self._shard.build(self._rows, named_vectors)
        np.save(_lists_file(folder), self._lists)
        return made._replace(upload_s=made.upload_s - codes.seconds, encode_s=codes.seconds)

    def open(self, folder: Path, n: int) -> None:
        """Open what an earlier `build` of `n` rows left in `folder`."""
        super().open(folder, n)
        self._lists, self._rows = np.load(_lists_file(folder)), n

    def sharing(self, other: EdgeSystem) -> None:
        """Search what `other` built, with settings of one's own; close one of the two only."""
        super().sharing(other)
        assert isinstance(other, CsrSystem)
        self._lists, self._rows = other.lists, other.rows

    @property
    def lists(self) -> npt.NDArray[np.int64]:
        """Lengths of the posting lists, (h,)."""
        return self._lists

    @property
    def rows(self) -> int:
        """Number of vectors that it was built from."""
        return self._rows

    def requests(self, queries: Matrix, limit: int) -> list[Any | None]:
        """Return one engine request a query; None for a query without latents."""
        codes = self._query_codes(queries).to_edge()
        wanted = queries.tolist() if self.candidates else [None] * len(queries)
        return [
            self._one_request(code, full, limit) if code.indices else None
            for code, full in zip(codes, wanted, strict=True)
        ]

    def footprint(self) -> Footprint:
        """Return the measured bytes a vector."""
        index = self._shard.index_bytes(SEARCHED)
        rescoring = self._shard.vector_bytes(FULL) if self.candidates else 0
        return self._shard.footprint(index, rescoring)

    def postings(self, queries: Matrix) -> npt.NDArray[np.float64]:
        """Return the postings that each query touches, (m,), as multiples of the number of rows."""
        codes = self._query_codes(queries)
        touched = self._lists[codes.indices]
        owners = np.repeat(np.arange(len(codes)), codes.lengths)
        return np.bincount(owners, weights=touched, minlength=len(codes)) / self._rows

    def _query_codes(self, queries: Matrix) -> SparseCodes:
        return self.encode(queries).truncated(self.query_k or self.k).normalised()

    def _one_request(self, code: Any, full: list[float] | None, limit: int) -> Any:
        query = edge.Query.Nearest(code, using=SEARCHED)
        if not self.candidates:
            return request(query, limit)
        assert full is not None
        prefetch = edge.Prefetch(limit=max(self.candidates, limit), query=query)
        return rescored(prefetch, edge.Query.Nearest(full, using=FULL), limit)


def _lists_file(folder: Path) -> Path:
    return folder.parent / f"{folder.name}.lists.npy"
