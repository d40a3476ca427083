"""One shard of Qdrant Edge with rows as points: what every system of the benchmarks stands on.

The engine is used directly, without this package's stores, so that baselines owe them nothing.
All shards are set up alike: one segment, everything indexed, ids are row numbers, no payload.

A shard's folder holds, after `Shard.build`, one optimised segment (and an empty one that waits for
writes). Of the optimised segment's files, for a vector called NAME:

- `vector_index-NAME/` is the graph of a dense vector (`links_compressed.bin`, `graph.bin`), or the
  inverted index of a sparse one (`inverted_index.dat`, `indices_tracker.json`);
- `vector_storage-NAME/quantized*` are the quantised vectors;
- the rest of `vector_storage-NAME/` but for `deleted*` are the vectors as they were given: float32
  rows in `matrix.dat`, or, of sparse vectors, pages that searches do not read;
- `id_tracker.*`, `payload_*` and the write-ahead log cost every system the same.

Sizes are what is in use: the engine sets files up at 32 MiB, of which the file system only
allocates what was written, so each file counts with the lesser of its length and its blocks.
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
import qdrant_edge

from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.errors import CsrError

UPLOAD_BATCH = 256
QUERY_BATCH = 128
_NO_LIMIT_KB = 1 << 40


class BuildReport(NamedTuple):
    """How long a system took to build, in seconds."""

    upload_s: float  # making points and writing them, with a flush
    optimise_s: float  # building the index
    encode_s: float = 0.0  # making what is stored from the dense vectors

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.upload_s + self.optimise_s + self.encode_s


class Footprint(NamedTuple):
    """Bytes a vector, measured from the files of the segments."""

    searched: float  # what a search reads: index or graph, and the vectors that it scores with
    rescoring: float  # full-precision vectors that are read for rescoring only
    disk: float  # all blocks that the segments occupy


class Found(NamedTuple):
    """Results of m queries, best first; missing ones have row -1 and score -inf."""

    rows: npt.NDArray[np.int64]  # (m, limit)
    scores: Matrix  # (m, limit)


T = TypeVar("T")
MADE_ROWS = 4096  # a multiple of UPLOAD_BATCH


class InBlocks(Generic[T]):
    """Makes rows a block at a time as batches ask for them in order, and counts the seconds."""

    def __init__(self, n: int, make: Callable[[int, int], T]) -> None:
        """Make rows start..stop of n, which can be sliced, by `make(start, stop)`."""
        self.seconds = 0.0
        self._n, self._make = n, make
        self._start, self._block = 0, cast(T, None)

    def rows(self, start: int, stop: int) -> T:
        """Return rows start..stop, which must lie in one block of `MADE_ROWS`."""
        first = start - start % MADE_ROWS
        if self._block is None or first != self._start:
            began = time.perf_counter()
            self._start, self._block = first, self._make(first, min(first + MADE_ROWS, self._n))
            self.seconds += time.perf_counter() - began
        block: Any = self._block
        return cast(T, block[start - first : stop - first])


class Shard:
    """A built shard; `close` releases it, and leaves its folder."""

    def __init__(
        self, folder: Path, vectors: dict[str, Any] | None, sparse_vectors: dict[str, Any] | None
    ) -> None:
        """Create an empty shard in a new `folder` with the engine's vector parameters by name."""
        folder.mkdir(parents=True)
        optimizers = qdrant_edge.EdgeOptimizersConfig(
            default_segment_number=1, max_segment_size=_NO_LIMIT_KB, indexing_threshold=1
        )
        config = qdrant_edge.EdgeConfig(
            vectors=vectors or {}, sparse_vectors=sparse_vectors or {}, optimizers=optimizers
        )
        self.folder = folder
        self._shard = qdrant_edge.EdgeShard.create(str(folder), config)

    @classmethod
    def open(cls, folder: Path, n: int) -> "Shard":
        """Open the shard that an earlier `build` left in `folder`, of `n` rows.

        Raises CsrError if there is none, or another number of rows in it.
        """
        shard = cls.__new__(cls)
        shard.folder, shard._n = folder, n
        try:
            shard._shard = qdrant_edge.EdgeShard.load(str(folder))
            found = shard._shard.info().points_count
        except Exception as error:  # the engine has one kind for all of them
            raise CsrError(f"{folder} holds no index that can be opened: {error}") from error
        if found != n:
            shard.close()
            raise CsrError(f"{folder} holds {found} rows, not {n}: remove it and run again")
        return shard

    def build(
        self, n: int, named_vectors: Callable[[int, int], list[dict[str, Any]]]
    ) -> BuildReport:
        """Write rows 0..n-1, whose vectors by name `named_vectors(start, stop)` gives; optimise."""
        self._n = n
        started = time.perf_counter()
        for start in range(0, n, UPLOAD_BATCH):
            rows = named_vectors(start, min(start + UPLOAD_BATCH, n))
            points = [qdrant_edge.Point(start + i, row) for i, row in enumerate(rows)]
            self._shard.update(qdrant_edge.UpdateOperation.upsert_points(points))
        self._shard.flush()
        uploaded = time.perf_counter()
        self._shard.optimize()
        self._shard.flush()
        done = time.perf_counter()
        if self._shard.info().points_count != n:
            raise CsrError(f"{self.folder} holds {self._shard.info().points_count} of {n} rows")
        return BuildReport(uploaded - started, done - uploaded)

    def query(self, request: Any) -> list[Any]:
        """Return the engine's scored points of one request."""
        return self._shard.query(request)

    def search(self, requests: Sequence[Any | None], limit: int) -> Found:
        """Return the results of many requests, in blocks of one call; None finds nothing.

        Blocks go side by side, one a core, since nothing here is timed.
        """
        found = Found(
            np.full((len(requests), limit), -1, np.int64),
            np.full((len(requests), limit), -np.inf, np.float32),
        )
        askable = [i for i, request in enumerate(requests) if request is not None]
        blocks = [askable[at : at + QUERY_BATCH] for at in range(0, len(askable), QUERY_BATCH)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            answers = pool.map(lambda asked: self._answers([requests[i] for i in asked]), blocks)
            for asked, answered in zip(blocks, answers, strict=True):
                for i, points in zip(asked, answered, strict=True):
                    found.rows[i, : len(points)] = [point.id for point in points]
                    found.scores[i, : len(points)] = [point.score for point in points]
        return found

    def _answers(self, requests: list[Any]) -> list[list[Any]]:
        return self._shard.query_batch(qdrant_edge.QueryBatchRequest(requests))

    def index_bytes(self, name: str) -> int:
        """Bytes of the graph or inverted index of vector `name`."""
        return sum(_used(file) for file in self._files(f"vector_index-{name}"))

    def quantised_bytes(self, name: str) -> int:
        """Bytes of the quantised vectors of `name`."""
        storage = f"vector_storage-{name}"
        return sum(_used(f) for f in self._files(storage) if _part(f, storage).startswith("quant"))

    def vector_bytes(self, name: str) -> int:
        """Bytes of the vectors of `name` as they were given."""
        storage = f"vector_storage-{name}"
        others = ("quant", "deleted")
        return sum(
            _used(f) for f in self._files(storage) if not _part(f, storage).startswith(others)
        )

    def footprint(self, searched: int, rescoring: int) -> Footprint:
        """Return the bytes a row, of `searched` and `rescoring` bytes in all."""
        return Footprint(searched / self._n, rescoring / self._n, self.disk_bytes() / self._n)

    def disk_bytes(self) -> int:
        """Bytes of all blocks that the segments occupy."""
        files = (self.folder / "segments").rglob("*")
        return sum(file.stat().st_blocks * 512 for file in files if file.is_file())

    def close(self) -> None:
        """Release the engine."""
        self._shard.close()

    def _files(self, part: str) -> list[Path]:
        folders = (self.folder / "segments").glob(f"*/{part}")
        return [file for folder in folders for file in folder.rglob("*") if file.is_file()]


def kept_parameters(d: int) -> Any:
    """Return the parameters of float32 vectors that are read for rescoring: on disk, no graph."""
    return qdrant_edge.EdgeVectorParams(
        size=d,
        distance=qdrant_edge.Distance.Cosine,
        memory=qdrant_edge.Memory.Cold,
        hnsw_config=qdrant_edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=1),
    )


def request(query: Any, limit: int, **options: Any) -> Any:
    """Return a request for the ids and scores of the `limit` best points."""
    return qdrant_edge.QueryRequest(
        limit=limit, query=query, with_payload=False, with_vector=False, **options
    )


def rescored(prefetch: Any, query: Any, limit: int) -> Any:
    """Return a request that scores the hits of `prefetch` anew by `query`."""
    return request(query, limit, prefetches=[prefetch])


def _part(file: Path, folder: str) -> str:
    """Return the first name below `folder` on the way to `file`."""
    return file.parts[file.parts.index(folder) + 1]


def _used(file: Path) -> int:
    status = file.stat()
    return min(status.st_size, status.st_blocks * 512)
