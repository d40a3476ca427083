"""The embedded engine: one shard of Qdrant Edge an index.

A shard's folder holds, once it is built, one optimised segment (and an empty one that waits for
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

import shutil
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from csr_qdrant.benchmarks import edge_types as types
from csr_qdrant.benchmarks.engine import (
    FULL,
    Asked,
    Columns,
    DenseVectors,
    Index,
    Layout,
    Place,
    Sizes,
    SparseVectors,
)
from csr_qdrant.errors import CsrError

PACKAGE = "qdrant-edge-py"
_NO_LIMIT_KB = 1 << 40


class Shard(Index):
    """A shard in a folder."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        """Create an empty shard in a new `folder`."""
        folder.mkdir(parents=True)
        optimizers = edge.EdgeOptimizersConfig(
            default_segment_number=1, max_segment_size=_NO_LIMIT_KB, indexing_threshold=1
        )
        dense = {
            n: types.dense_parameters(v) for n, v in layout.items() if isinstance(v, DenseVectors)
        }
        sparse = {
            n: types.sparse_parameters(v) for n, v in layout.items() if isinstance(v, SparseVectors)
        }
        config = edge.EdgeConfig(vectors=dense, sparse_vectors=sparse, optimizers=optimizers)
        self.folder, self.name = folder, str(folder)
        self._shard = edge.EdgeShard.create(str(folder), config)

    @classmethod
    def open(cls, folder: Path, n: int) -> "Shard":
        """Open the shard that an earlier `build` left in `folder`, of `n` rows.

        Raises CsrError if there is none, or another number of rows in it.
        """
        shard = cls.__new__(cls)
        shard.folder, shard.name, shard.rows = folder, str(folder), n
        try:
            shard._shard = edge.EdgeShard.load(str(folder))
            found = shard._count()
        except Exception as error:  # the engine has one kind for all of them
            raise CsrError(f"{folder} holds no index that can be opened: {error}") from error
        if found != n:
            shard.close()
            raise CsrError(f"{folder} holds {found} rows, not {n}: remove it and run again")
        return shard

    def requests(self, asked: Asked) -> list[Any | None]:
        """Return the engine's own request of each query; None for a code without latents."""
        params, prefetch = types.search_parameters(asked), max(asked.depth, asked.limit)
        queries = [
            None if query is None else edge.Query.Nearest(query, using=asked.using)
            for query in types.rows(asked.queries)
        ]
        if asked.full is None:
            return [each and types.request(each, asked.limit, params=params) for each in queries]
        full = [edge.Query.Nearest(row, using=FULL) for row in asked.full.tolist()]
        return [
            first
            and types.request(
                then,
                asked.limit,
                prefetches=[edge.Prefetch(limit=prefetch, query=first, params=params)],
            )
            for first, then in zip(queries, full, strict=True)
        ]

    def query(self, request: Any) -> list[Any]:
        """Return the engine's scored points of one request."""
        return self._shard.query(request)

    def sizes(self, name: str) -> Sizes:
        """Return what the vectors called `name` take, in bytes."""
        storage = f"vector_storage-{name}"
        parts = [(_part(file, storage), _used(file)) for file in self._files(storage)]
        return Sizes(
            index_bytes=sum(_used(file) for file in self._files(f"vector_index-{name}")),
            quantised_bytes=sum(size for part, size in parts if part.startswith("quant")),
            vector_bytes=sum(
                size for part, size in parts if not part.startswith(("quant", "deleted"))
            ),
        )

    def disk_bytes(self) -> int:
        """Return the bytes of all blocks that the segments occupy."""
        files = (self.folder / "segments").rglob("*")
        return sum(file.stat().st_blocks * 512 for file in files if file.is_file())

    def close(self) -> None:
        """Release the engine; the folder stays."""
        self._shard.close()

    def _answers(self, requests: list[Any]) -> list[list[Any]]:
        return self._shard.query_batch(edge.QueryBatchRequest(requests))

    def _write(self, start: int, columns: Columns) -> None:
        rows: dict[int, dict[str, Any]] = {}
        for name, column in columns.items():
            for i, vector in enumerate(types.rows(column), start):
                own = rows.setdefault(i, {})
                if vector is not None:
                    own[name] = vector
        points = [edge.Point(i, vectors) for i, vectors in rows.items()]
        self._shard.update(edge.UpdateOperation.upsert_points(points))

    def _flush(self) -> None:
        self._shard.flush()

    def _optimise(self) -> float:
        started = time.perf_counter()
        self._shard.optimize()
        self._shard.flush()
        return time.perf_counter() - started

    def _count(self) -> int:
        return int(self._shard.info().points_count)

    def _files(self, part: str) -> list[Path]:
        folders = (self.folder / "segments").glob(f"*/{part}")
        return [file for folder in folders for file in folder.rglob("*") if file.is_file()]


@dataclass(frozen=True)
class ShardFolder:
    """A folder as the place of an index."""

    folder: Path

    def create(self, layout: Layout) -> Shard:
        """Make an empty shard in the folder, which must be new."""
        return Shard(self.folder, layout)

    def open(self, n: int) -> Shard:
        """Open the shard of `n` rows that is there."""
        return Shard.open(self.folder, n)

    def exists(self) -> bool:
        """Tell whether the folder exists."""
        return self.folder.exists()

    def clear(self) -> None:
        """Remove the folder, if there is one."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def beside(self, ending: str) -> Path:
        """Return a path beside the folder."""
        return self.folder.with_name(f"{self.folder.name}{ending}")


@dataclass(frozen=True)
class EdgeEngine:
    """Qdrant Edge, in this process."""

    name: str = "Qdrant Edge"
    embedded: bool = True

    @property
    def version(self) -> str:
        """The version of its package."""
        return metadata.version(PACKAGE)

    @property
    def identity(self) -> str:
        """The same: its figures belong to a version."""
        return self.version

    def place(self, folder: Path) -> ShardFolder:
        """Return the folder itself."""
        return ShardFolder(folder)

    def lacks(self, quantisation: str) -> str | None:
        """Nothing: the pinned version has every kind."""
        return None

    def memory_bytes(self) -> None:
        """Nothing: each index is measured by itself."""

    def finished(self) -> None:
        """Keep the folders, so that another run with more systems goes on there."""


def placed(place: Path | Place) -> Place:
    """Return a place; a path stands for a shard in that folder."""
    return ShardFolder(place) if isinstance(place, Path) else place


def _part(file: Path, folder: str) -> str:
    """Return the first name below `folder` on the way to `file`."""
    return file.parts[file.parts.index(folder) + 1]


def _used(file: Path) -> int:
    status = file.stat()
    return min(status.st_size, status.st_blocks * 512)
