"""Systems under test: ways to index dense vectors in the same engine, behind one protocol."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import qdrant_edge as edge

from csr_qdrant.benchmarks.engine import (
    BuildReport,
    Footprint,
    Found,
    InBlocks,
    Shard,
    kept_parameters,
    request,
    rescored,
)
from csr_qdrant.benchmarks.neighbours import Matrix, unit_rows
from csr_qdrant.errors import ConfigError

Quantisation = Literal["binary", "int8", "turbo1", "turbo1.5", "turbo2", "turbo4", "turbo8"]
Transform = Callable[[Matrix], Matrix]

# The vectors that are searched, and the untouched ones that some systems keep for rescoring.
SEARCHED, FULL = "searched", "full"
ASKED_ROWS = 1024  # queries whose requests are held at once


class System(Protocol):
    """A way to index and search; its results name rows of the vectors that it was built from."""

    @property
    def name(self) -> str:
        """What to call it in tables."""

    def build(self, vectors: Matrix, folder: Path) -> BuildReport:
        """Index `vectors` (n, d) in a new `folder`; rows may come from a memory map."""

    def calls(self, queries: Matrix, limit: int) -> list[Callable[[], Any]]:
        """Return one call a query (m, d) that searches and does nothing else, for timing."""

    def search(self, queries: Matrix, limit: int) -> Found:
        """Return the `limit` best rows of each query (m, d)."""

    def footprint(self) -> Footprint:
        """Return the measured bytes a vector."""

    def open(self, folder: Path, n: int) -> None:
        """Open what an earlier `build` of `n` rows left in `folder`."""

    def close(self) -> None:
        """Release the engine; the folder stays."""


class EdgeSystem(ABC):
    """What the systems over the raw engine share: a shard, and requests to it."""

    name: str
    _shard: Shard

    @abstractmethod
    def build(self, vectors: Matrix, folder: Path) -> BuildReport:
        """Index `vectors` (n, d) in a new `folder`; rows may come from a memory map."""

    @abstractmethod
    def requests(self, queries: Matrix, limit: int) -> Sequence[Any | None]:
        """Return one engine request a query; None where there is nothing to ask."""

    @abstractmethod
    def footprint(self) -> Footprint:
        """Return the measured bytes a vector."""

    def calls(self, queries: Matrix, limit: int) -> list[Callable[[], Any]]:
        """Return one call a query (m, d) that searches and does nothing else, for timing."""

        def call(asked: Any) -> Callable[[], Any]:
            return lambda: [] if asked is None else self._shard.query(asked)

        return [call(asked) for asked in self.requests(queries, limit)]

    def search(self, queries: Matrix, limit: int) -> Found:
        """Return the `limit` best rows of each query (m, d)."""
        # Requests hold Python's numbers, many times the size of the queries.
        starts = range(0, max(1, len(queries)), ASKED_ROWS)
        parts = [
            self._shard.search(self.requests(queries[at : at + ASKED_ROWS], limit), limit)
            for at in starts
        ]
        return Found(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def open(self, folder: Path, n: int) -> None:
        """Open what an earlier `build` of `n` rows left in `folder`."""
        self._shard = Shard.open(folder, n)

    def sharing(self, other: "EdgeSystem") -> None:
        """Search what `other` built, with settings of one's own; close one of the two only."""
        self._shard = other._shard

    def close(self) -> None:
        """Release the engine; the folder stays."""
        self._shard.close()


@dataclass(kw_only=True)
class DenseSystem(EdgeSystem):
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
    _shard: Shard = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.quantisation not in (None, "binary", "int8", *_TURBO):
            raise ConfigError(f"no quantisation is called {self.quantisation!r}")
        if self.candidates and not (self.quantisation or self.transform):
            raise ConfigError("rescoring exact float32 scores changes nothing: leave candidates 0")

    def build(self, vectors: Matrix, folder: Path) -> BuildReport:
        """Index `vectors` (n, d) in a new `folder`."""
        searched = InBlocks(len(vectors), lambda start, stop: self._searched(vectors[start:stop]))
        parameters = {SEARCHED: self._searched_parameters(self._searched(vectors[:1]).shape[1])}
        if self._keeps_full:
            parameters[FULL] = kept_parameters(vectors.shape[1])

        def named_vectors(start: int, stop: int) -> list[dict[str, Any]]:
            made = searched.rows(start, stop).tolist()
            rows: list[dict[str, Any]] = [{SEARCHED: row} for row in made]
            if self._keeps_full:
                for row, full in zip(rows, vectors[start:stop].tolist(), strict=True):
                    row[FULL] = full
            return rows

        self._shard = Shard(folder, parameters, None)
        made = self._shard.build(len(vectors), named_vectors)
        encode_s = searched.seconds if self.transform else 0.0
        return made._replace(upload_s=made.upload_s - encode_s, encode_s=encode_s)

    def rescoring(self, name: str, candidates: int) -> "DenseSystem":
        """Return a system over the same shard with other `candidates`; quantised vectors only.

        Close either of the two, not both.
        """
        if not self.quantisation or self.transform:
            raise ConfigError("only quantised vectors are stored with what rescoring needs")
        other = copy.copy(self)
        other.name, other.candidates = name, candidates
        return other

    def requests(self, queries: Matrix, limit: int) -> list[Any]:
        """Return one engine request a query."""
        searched = self._searched(queries)
        nearest = [edge.Query.Nearest(v, using=SEARCHED) for v in searched.tolist()]
        params = self._search_params(limit)
        if not self._keeps_full:
            return [request(query, limit, params=params) for query in nearest]
        full = [edge.Query.Nearest(v, using=FULL) for v in queries.tolist()]
        depth = max(self.candidates, limit)
        return [
            rescored(edge.Prefetch(limit=depth, query=first, params=params), then, limit)
            for first, then in zip(nearest, full, strict=True)
        ]

    def footprint(self) -> Footprint:
        """Return the measured bytes a vector."""
        shard, originals = self._shard, self._shard.vector_bytes(SEARCHED)
        scored = shard.quantised_bytes(SEARCHED) if self.quantisation else originals
        graph = shard.index_bytes(SEARCHED) if self.m else 0  # written, not read, without links
        rescoring = 0
        if self.candidates:
            rescoring = shard.vector_bytes(FULL) if self._keeps_full else originals
        return shard.footprint(graph + scored, rescoring)

    def _searched(self, vectors: Matrix) -> Matrix:
        return self.transform(vectors) if self.transform else vectors

    @property
    def _keeps_full(self) -> bool:
        return bool(self.candidates and self.transform)

    def _searched_parameters(self, d: int) -> Any:
        # Originals of quantised vectors are read for rescoring at most: from disk, as in CsrSystem.
        memory = edge.Memory.Cold if self.quantisation else edge.Memory.Cached
        graph = edge.HnswIndexConfig(
            m=self.m, ef_construct=self.ef_construct, full_scan_threshold=1
        )
        return edge.EdgeVectorParams(
            size=d,
            distance=edge.Distance.Cosine,
            memory=memory,
            hnsw_config=graph,
            quantization_config=_quantisation_config(self.quantisation),
        )

    def _search_params(self, limit: int) -> Any:
        if not self.quantisation:
            return (
                edge.SearchParams(exact=True) if not self.m else edge.SearchParams(hnsw_ef=self.ef)
            )
        own_rescoring = bool(self.candidates) and not self._keeps_full
        oversampling = max(1.0, self.candidates / limit) if own_rescoring else None
        quantised = edge.QuantizationSearchParams(rescore=own_rescoring, oversampling=oversampling)
        return edge.SearchParams(hnsw_ef=self.ef, quantization=quantised)


def truncated(
    dims: int, *, m: int = 0, candidates: int = 0, name: str | None = None
) -> DenseSystem:
    """Return a system over the first `dims` dimensions, renormalised (Matryoshka truncation)."""

    def first(vectors: Matrix) -> Matrix:
        return unit_rows(vectors[:, :dims])

    label = name or f"truncated to {dims}" + (f", rescored {candidates}" if candidates else "")
    return DenseSystem(name=label, m=m, candidates=candidates, transform=first)


_TURBO = {
    "turbo1": edge.TurboQuantBitSize.Bits1,
    "turbo1.5": edge.TurboQuantBitSize.Bits1_5,
    "turbo2": edge.TurboQuantBitSize.Bits2,
    "turbo4": edge.TurboQuantBitSize.Bits4,
    "turbo8": edge.TurboQuantBitSize.Bits8,
}


def _quantisation_config(kind: Quantisation | None) -> Any:
    if kind is None:
        return None
    if kind == "binary":
        return edge.BinaryQuantizationConfig(memory=edge.Memory.Pinned)
    if kind == "int8":
        return edge.ScalarQuantizationConfig(
            type=edge.ScalarType.Int8, quantile=0.99, memory=edge.Memory.Pinned
        )
    return edge.TurboQuantQuantizationConfig(bits=_TURBO[kind], memory=edge.Memory.Pinned)
