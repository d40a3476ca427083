"""Systems under test: ways to index dense vectors in the same engine, behind one protocol."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np

from csr_qdrant.benchmarks.edge_engine import placed
from csr_qdrant.benchmarks.engine import (
    FULL,
    SEARCHED,
    Asked,
    BuildReport,
    Columns,
    DenseVectors,
    Footprint,
    Found,
    Index,
    Layout,
    Place,
    Quantisation,
)
from csr_qdrant.benchmarks.neighbours import Matrix, unit_rows
from csr_qdrant.benchmarks.row_blocks import InBlocks
from csr_qdrant.errors import ConfigError

Transform = Callable[[Matrix], Matrix]

ASKED_ROWS = 1024  # queries whose requests are held at once


class System(Protocol):
    """A way to index and search; its results name rows of the vectors that it was built from."""

    @property
    def name(self) -> str:
        """What to call it in tables."""

    def build(self, vectors: Matrix, place: Path | Place) -> BuildReport:
        """Index `vectors` (n, d) in a new `place`; a path is a folder for the embedded engine."""

    def calls(self, queries: Matrix, limit: int) -> list[Callable[[], Any]]:
        """Return one call a query (m, d) that searches and does nothing else, for timing."""

    def search(self, queries: Matrix, limit: int) -> Found:
        """Return the `limit` best rows of each query (m, d)."""

    def footprint(self) -> Footprint:
        """Return the measured bytes a vector; CsrError where the engine does not tell them."""

    def open(self, place: Path | Place, n: int) -> None:
        """Open what an earlier `build` of `n` rows left in `place`."""

    def close(self) -> None:
        """Release the engine; what is stored stays."""


class IndexSystem(ABC):
    """What the systems over the raw engine share: an index, and requests to it."""

    name: str
    _index: Index

    @abstractmethod
    def build(self, vectors: Matrix, place: Path | Place) -> BuildReport:
        """Index `vectors` (n, d) in a new `place`; rows may come from a memory map."""

    @abstractmethod
    def asked(self, queries: Matrix, limit: int) -> Asked:
        """Return what is asked of the index for queries (m, d)."""

    @abstractmethod
    def footprint(self) -> Footprint:
        """Return the measured bytes a vector; CsrError where the engine does not tell them."""

    def calls(self, queries: Matrix, limit: int) -> list[Callable[[], Any]]:
        """Return one call a query (m, d) that searches and does nothing else, for timing."""

        def call(request: Any | None) -> Callable[[], Any]:
            return lambda: [] if request is None else self._index.query(request)

        return [call(each) for each in self._index.requests(self.asked(queries, limit))]

    def search(self, queries: Matrix, limit: int) -> Found:
        """Return the `limit` best rows of each query (m, d)."""
        # Requests hold Python's numbers, many times the size of the queries.
        starts = range(0, max(1, len(queries)), ASKED_ROWS)
        parts = [self._searched_block(queries[at : at + ASKED_ROWS], limit) for at in starts]
        return Found(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def open(self, place: Path | Place, n: int) -> None:
        """Open what an earlier `build` of `n` rows left in `place`."""
        self._index = placed(place).open(n)

    def sharing(self, other: "IndexSystem") -> None:
        """Search what `other` built, with settings of one's own; close one of the two only."""
        self._index = other._index

    def close(self) -> None:
        """Release the engine; what is stored stays."""
        self._index.close()

    def _searched_block(self, queries: Matrix, limit: int) -> Found:
        return self._index.search(self._index.requests(self.asked(queries, limit)), limit)

    def _built(
        self, place: Path | Place, layout: Layout, n: int, columns: Callable[[int, int], Columns]
    ) -> BuildReport:
        self._index = placed(place).create(layout)
        return self._index.build(n, columns)


@dataclass(kw_only=True)
class DenseSystem(IndexSystem):
    """Dense vectors under cosine: exact or with a graph, quantised or not, transformed or not.

    With `candidates`, that many best hits are scored anew with float32 vectors: the quantised
    vectors' own originals, or, for transformed ones, the vectors that the system was built from.
    """

    name: str
    m: int = 16  # links a node; 0: no graph, every vector is scored
    ef_construct: int = 100
    ef: int = 128
    quantisation: Quantisation | None = None
    candidates: int = 0  # 0: no rescoring
    transform: Transform | None = None  # (n, d) -> (n, d'), for vectors and queries alike
    _index: Index = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.quantisation not in (None, *get_args(Quantisation)):
            raise ConfigError(f"no quantisation is called {self.quantisation!r}")
        if self.candidates and not (self.quantisation or self.transform):
            raise ConfigError("rescoring exact float32 scores changes nothing: leave candidates 0")

    def build(self, vectors: Matrix, place: Path | Place) -> BuildReport:
        """Index `vectors` (n, d) in a new `place`."""
        searched = InBlocks(len(vectors), lambda start, stop: self._searched(vectors[start:stop]))
        layout = {SEARCHED: self._stored(self._searched(vectors[:1]).shape[1])}
        if self._keeps_full:
            layout[FULL] = kept(vectors.shape[1])

        def columns(start: int, stop: int) -> Columns:
            made = {SEARCHED: searched.rows(start, stop)}
            return made | ({FULL: vectors[start:stop]} if self._keeps_full else {})

        made = self._built(place, layout, len(vectors), columns)
        encode_s = searched.seconds if self.transform else 0.0
        return made._replace(upload_s=made.upload_s - encode_s, encode_s=encode_s)

    def asked(self, queries: Matrix, limit: int) -> Asked:
        """Return what is asked of the index for queries (m, d)."""
        own_rescoring = bool(self.candidates) and not self._keeps_full
        oversampling = max(1.0, self.candidates / limit) if own_rescoring else None
        return Asked(
            queries=self._searched(queries),
            limit=limit,
            exact=not (self.quantisation or self.m),
            ef=self.ef,
            rescore=own_rescoring if self.quantisation else None,
            oversampling=oversampling,
            full=queries if self._keeps_full else None,
            depth=self.candidates,
        )

    def footprint(self) -> Footprint:
        """Return the measured bytes a vector; CsrError where the engine does not tell them."""
        sizes = self._index.sizes(SEARCHED)
        scored = sizes.quantised_bytes if self.quantisation else sizes.vector_bytes
        graph = sizes.index_bytes if self.m else 0  # written, not read, without links
        rescoring = 0
        if self.candidates:
            sizes = self._index.sizes(FULL) if self._keeps_full else sizes
            rescoring = sizes.vector_bytes
        return self._index.footprint(graph + scored, rescoring)

    def _searched(self, vectors: Matrix) -> Matrix:
        return self.transform(vectors) if self.transform else vectors

    @property
    def _keeps_full(self) -> bool:
        return bool(self.candidates and self.transform)

    def _stored(self, d: int) -> DenseVectors:
        return DenseVectors(
            size=d,
            m=self.m,
            ef_construct=self.ef_construct,
            quantisation=self.quantisation,
            # Originals of quantised vectors are read for rescoring at most.
            on_disk=self.quantisation is not None,
        )


def kept(d: int) -> DenseVectors:
    """Return how vectors of `d` dimensions are stored for rescoring: on disk, without a graph."""
    return DenseVectors(size=d, on_disk=True)


def truncated(
    dims: int, *, m: int = 0, candidates: int = 0, name: str | None = None
) -> DenseSystem:
    """Return a system over the first `dims` dimensions, renormalised (Matryoshka truncation)."""

    def first(vectors: Matrix) -> Matrix:
        return unit_rows(vectors[:, :dims])

    label = name or f"truncated to {dims}" + (f", rescored {candidates}" if candidates else "")
    return DenseSystem(name=label, m=m, candidates=candidates, transform=first)
