"""A collection in a folder, kept by Qdrant Edge: the real engine inside this process.

    FOLDER/collection.json   format version, schema and metadata
    FOLDER/shard/            the engine's files

Where codes were attached to a bare shard, its files stay where they are, in FOLDER itself.
Edge is in beta; nothing else in this package imports it, apart from conversions of codes.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import qdrant_edge as engine

from csr_qdrant.atomic import replaced_folder
from csr_qdrant.errors import ConfigError
from csr_qdrant.ids import PointId
from csr_qdrant.stores.base import (
    Group,
    Hit,
    Json,
    PointBatch,
    Schema,
    Search,
    StoredPoint,
    StoreInfo,
)
from csr_qdrant.stores.checks import (
    check_point_id,
    check_points,
    check_search,
)
from csr_qdrant.stores.disk import DiskSizes, disk_sizes, require_space
from csr_qdrant.stores.edge_folder import (
    plain_errors,
    read_description,
    shard_folder,
    write_description,
)
from csr_qdrant.stores.edge_open import WritableShard
from csr_qdrant.stores.edge_points import (
    bytes_to_write,
    engine_points,
    hits,
    known_ids,
)
from csr_qdrant.stores.edge_queries import edge_queries
from csr_qdrant.stores.filters import edge_filter
from csr_qdrant.stores.records import plain_id, stored_point

# Points a call to the engine: larger calls gain nothing and hold more of them in memory.
UPSERT_POINTS = 256
DATATYPES = {
    "f32": engine.VectorStorageDatatype.Float32,
    "f16": engine.VectorStorageDatatype.Float16,
    "u8": engine.VectorStorageDatatype.Uint8,
}


class EdgeStore(WritableShard):
    """One collection in a folder; open in one process at a time. See `Store` for the methods."""

    def __init__(self, folder: Path, shard: Any, schema: Schema, metadata: Json) -> None:
        """Wrap an open shard; use `create` or `open`."""
        super().__init__(folder, shard)
        self._schema = schema
        self._metadata = metadata

    @classmethod
    def create(
        cls,
        folder: str | Path,
        schema: Schema,
        metadata: Mapping[str, Any] | None = None,
        *,
        fill: Callable[[Path], object] | None = None,
    ) -> Self:
        """Make an empty collection in `folder`, which appears whole or not at all.

        `fill` is given the folder while it still has another name, to put more into it.
        Raises ConfigError if `folder` exists.
        """
        path = Path(folder)
        with plain_errors(path), replaced_folder(path) as temporary:
            require_space(path.parent)
            (temporary / "shard").mkdir()
            shard = engine.EdgeShard.create(str(temporary / "shard"), _config(schema))
            shard.flush()
            shard.close()
            write_description(temporary, schema, dict(metadata or {}))
            if fill is not None:
                fill(temporary)
        return cls.open(path)

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open the collection in `folder`.

        Raises CsrError if there is none, or if it is open elsewhere.
        """
        path = Path(folder)
        schema, metadata = read_description(path)
        with plain_errors(path):
            shard = shard_folder(path, schema)
            return cls(path, engine.EdgeShard.load(str(shard)), schema, metadata)

    @property
    def schema(self) -> Schema:
        """The vectors that the collection holds."""
        return self._schema

    def metadata(self) -> Json:
        """Return a copy of what was stored beside the points."""
        copy: Json = json.loads(json.dumps(self._metadata))
        return copy

    def write_metadata(self, key: str, value: Any) -> None:
        """Store a JSON value under `key` beside the points; None removes the key."""
        changed = {**self._metadata, key: value}
        if value is None:
            del changed[key]
        with plain_errors(self._folder):
            write_description(self._folder, self._schema, changed)
        self._metadata = changed

    def upsert(self, points: PointBatch) -> None:
        """Write points; those with a known id are replaced. Durable after `flush`.

        A batch with a point that cannot be stored is refused before anything is written.
        """
        check_points(points, self._schema)
        starts = range(0, len(points), UPSERT_POINTS)
        made = [
            engine_points(points, slice(start, start + UPSERT_POINTS), self._schema)
            for start in starts
        ]
        require_space(self._folder, bytes_to_write(points))
        for some in made:
            self._update(engine.UpdateOperation.upsert_points(some))

    def search(self, request: Search) -> list[list[Hit]]:
        """Return the hits of each query, best first, at most `limit`."""
        check_search(request, self._schema)
        queries = edge_queries(request, self._schema)
        shard = self._shard
        with plain_errors(self._folder):
            if len(queries) == 1:
                found = [shard.query(queries[0])]
            else:
                found = shard.query_batch(engine.QueryBatchRequest(queries)) if queries else []
        return [hits(points) for points in found]

    def search_groups(self, request: Search, field: str, size: int) -> list[list[Group]]:
        """Refuse: the engine has no such search."""
        raise ConfigError(
            "Qdrant Edge cannot group hits: use a collection on a server, or search with a higher "
            "limit and group the hits by their payload"
        )

    def delete(self, ids: Sequence[PointId]) -> None:
        """Delete points; unknown ids are ignored."""
        if ids:
            require_space(self._folder)
            with plain_errors(self._folder):
                operation = engine.UpdateOperation.delete_points(known_ids(ids))
            self._update(operation)

    def count(self, filter: Json | None = None) -> int:
        """Return the exact number of points."""
        request = engine.CountRequest(exact=True, filter=edge_filter(filter))
        with plain_errors(self._folder):
            return int(self._shard.count(request))

    def retrieve(self, ids: Sequence[PointId]) -> list[StoredPoint]:
        """Return the points that exist, with payload and vectors, in any order."""
        shard = self._shard
        with plain_errors(self._folder):
            found = shard.retrieve(
                known_ids(ids), with_payload=True, with_vector=self._schema.vector_names
            )
        return [stored_point(record, self._schema) for record in found]

    def scroll(
        self, limit: int, offset: PointId | None = None
    ) -> tuple[list[StoredPoint], PointId | None]:
        """Return up to `limit` points by rising id from `offset` on, and the next offset."""
        with plain_errors(self._folder):
            request = engine.ScrollRequest(
                offset=None if offset is None else check_point_id(offset),
                limit=limit,
                with_payload=True,
                with_vector=self._schema.vector_names,
            )
            found, following = self._shard.scroll(request)
        next_offset = None if following is None else plain_id(following)
        return [stored_point(record, self._schema) for record in found], next_offset

    def info(self) -> StoreInfo:
        """Return the engine's own counts."""
        with plain_errors(self._folder):
            info = self._shard.info()
        return StoreInfo(info.points_count, info.segments_count, info.indexed_vectors_count)

    def sizes(self) -> DiskSizes:
        """Measure the folder on disk, without what stands beside the engine's own files."""
        return disk_sizes(shard_folder(self._folder, self._schema), self._schema.code_name)

    def optimise(self) -> None:
        """Merge segments and build the compact sparse index; blocks until that is done.

        Needs as much free disk as the collection takes: segments are copied, then replaced.
        """
        _ = self._shard  # raises if it is closed
        require_space(self._folder, self.sizes().allocated)
        super().optimise()


def _config(schema: Schema) -> Any:
    sparse = engine.EdgeSparseVectorParams(datatype=DATATYPES[schema.datatype])
    dense = {}
    if schema.dense_dim is not None:
        # For rescoring only: on disk and without a graph, or it would cost what codes save.
        dense[schema.dense_name] = engine.EdgeVectorParams(
            size=schema.dense_dim,
            distance=engine.Distance.Cosine,
            datatype=DATATYPES[schema.dense_datatype],
            memory=engine.Memory.Cold,
            hnsw_config=engine.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=10_000),
        )
    # By default the engine leaves up to 10 MB of vectors without a compact index, all in RAM; here
    # indexes are built when `optimise` is called, so it should always do so.
    optimisers = engine.EdgeOptimizersConfig(indexing_threshold=1)  # KB
    return engine.EdgeConfig(
        vectors=dense, sparse_vectors={schema.code_name: sparse}, optimizers=optimisers
    )
