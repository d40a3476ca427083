"""What a server keeps of collections, over qdrant-client's local mode; not a test itself.

Local mode is the engine. Here is what a server has beyond it: settings that local mode ignores and
a server reports, numbers as float32, and one request at a time.
"""

import threading
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel
from qdrant_client import QdrantClient, models

VERSION = "1.19.0"  # the newest whose answers are imitated
HNSW = models.HnswConfig(
    m=16, ef_construct=100, full_scan_threshold=10_000, max_indexing_threads=0, on_disk=False
)
WAL = models.WalConfig(wal_capacity_mb=32, wal_segments_ahead=0)
OPTIMIZERS = models.OptimizersConfig(
    deleted_threshold=0.2,
    vacuum_min_vector_number=1000,
    default_segment_number=0,
    indexing_threshold=10_000,
    flush_interval_sec=5,
)
Settings = TypeVar("Settings", bound=BaseModel)


class Engine:
    """Collections, by name or alias; hold `lock` while anything is called."""

    def __init__(self) -> None:
        self.client = QdrantClient(":memory:")
        self.lock = threading.RLock()
        self.version = VERSION
        self._made: dict[str, models.CreateCollection] = {}
        self._indexes: dict[str, dict[str, Any]] = {}

    def name_of(self, name: str) -> str:
        """Return the collection's own name."""
        local: Any = self.client._client
        return str(local.aliases.get(name, name))

    def require(self, name: str) -> None:
        """Raise LookupError, in the server's words, unless the collection exists."""
        if not self.client.collection_exists(name):
            raise LookupError(f"Not found: Collection `{name}` doesn't exist!")

    def create(self, name: str, made: models.CreateCollection) -> bool:
        """Make a collection; FileExistsError if there is one."""
        if self.client.collection_exists(name):
            raise FileExistsError(f"Wrong input: Collection `{name}` already exists!")
        self.client.create_collection(
            name,
            vectors_config=made.vectors,
            sparse_vectors_config=made.sparse_vectors,
            metadata=made.metadata,
        )
        self._made[name], self._indexes[name] = made, {}
        return True

    def delete(self, name: str) -> bool:
        """Delete a collection; tell whether there was one."""
        self._made.pop(name, None)
        self._indexes.pop(name, None)
        return bool(self.client.delete_collection(name))

    def update(self, name: str, change: models.UpdateCollection) -> bool:
        """Change settings and metadata."""
        self.client.update_collection(
            name,
            sparse_vectors_config=change.sparse_vectors,
            vectors_config=change.vectors,
            metadata=change.metadata,
        )
        made = self._made[self.name_of(name)]
        parts = ("hnsw_config", "optimizers_config", "quantization_config", "strict_mode_config")
        for part in parts:
            if (new := getattr(change, part)) is not None:
                old = getattr(made, part)
                whole = new if old is None or part[0] == "q" else _over(old, new)
                setattr(made, part, whole)
        for key, value in _given(change.params).items():
            setattr(made, key, value)
        return True

    def strict(self, name: str) -> models.StrictModeConfig | None:
        """Return the strict mode of a collection."""
        return self._made[self.name_of(name)].strict_mode_config

    def add_index(self, name: str, field: str, schema: Any) -> models.UpdateResult:
        """Make a payload index."""
        self._indexes[self.name_of(name)][field] = schema
        return self.client.create_payload_index(name, field, field_schema=schema)

    def remove_index(self, name: str, field: str) -> models.UpdateResult:
        """Remove a payload index."""
        self._indexes[self.name_of(name)].pop(field, None)
        return self.client.delete_payload_index(name, field)

    def info(self, name: str) -> models.CollectionInfo:
        """Return what a server says of a collection."""
        info, own = self.client.get_collection(name), self.name_of(name)
        made, config = self._made[own], info.config
        config.hnsw_config = _over(HNSW, made.hnsw_config)
        config.optimizer_config = _over(OPTIMIZERS, made.optimizers_config)
        config.wal_config = _over(WAL, made.wal_config)
        config.quantization_config = made.quantization_config
        if made.strict_mode_config is not None:
            told = _given(made.strict_mode_config)
            config.strict_mode_config = models.StrictModeConfigOutput(**told)
        defaults = {"shard_number": 1, "replication_factor": 1, "write_consistency_factor": 1}
        for key, value in {**defaults, "on_disk_payload": True, "sharding_method": None}.items():
            given = getattr(made, key, None)
            setattr(config.params, key, value if given is None else given)
        info.indexed_vectors_count = self._vectors(name, config.params)  # all, and at once
        info.payload_schema = {
            field: _index_info(schema, info.points_count or 0)
            for field, schema in self._indexes[own].items()
        }
        return info

    def _vectors(self, name: str, params: models.CollectionParams) -> int:
        """Return how many vectors there are, under all names."""
        dense = params.vectors if isinstance(params.vectors, dict) else {"": params.vectors}
        names = [*dense, *(params.sparse_vectors or {})]
        having = [models.HasVectorCondition(has_vector=each) for each in names]
        filters = [models.Filter(must=[each]) for each in having]
        return sum(self.client.count(name, count_filter=each).count for each in filters)


def _given(settings: BaseModel | None) -> dict[str, Any]:
    return {} if settings is None else settings.model_dump(exclude_none=True)


def _over(defaults: Settings, settings: BaseModel | None) -> Settings:
    """Return the defaults with what else was set."""
    known = type(defaults).model_fields
    changes = {key: value for key, value in _given(settings).items() if key in known}
    return type(defaults).model_validate({**_given(defaults), **changes})


def _index_info(schema: Any, points: int) -> models.PayloadIndexInfo:
    if isinstance(schema, models.PayloadSchemaType):
        return models.PayloadIndexInfo(data_type=schema, points=points)
    kind = models.PayloadSchemaType(schema.type.value)
    return models.PayloadIndexInfo(data_type=kind, params=schema, points=points)


def float32(records: Any) -> Any:
    """Return records whose vectors and scores read as a server writes them: as short as float32.

    0.1 comes back as 0.1 and not as the double 0.10000000149, which local mode returns.
    """
    for record in records:
        if record.vector is not None:
            record.vector = _shortest(record.vector)
        if getattr(record, "score", None) is not None:
            record.score = float(str(np.float32(record.score)))
    return records


def _shortest(vector: Any) -> Any:
    if isinstance(vector, dict):
        return {name: _shortest(each) for name, each in vector.items()}
    if isinstance(vector, models.SparseVector):
        return models.SparseVector.model_construct(
            indices=vector.indices, values=_shortest(vector.values)
        )
    if vector and isinstance(vector[0], list):
        return [_shortest(each) for each in vector]
    return [float(text) for text in np.asarray(vector, np.float32).astype("U32")]
