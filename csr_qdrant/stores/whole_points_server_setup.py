"""The set-up of a collection on a server, to and from the JSON forms of the REST interface."""

from typing import Any

from pydantic import TypeAdapter, ValidationError
from qdrant_client import models

from csr_qdrant.errors import CsrError
from csr_qdrant.stores.base import Json, Schema
from csr_qdrant.stores.server_config import META_KEY, first_metadata
from csr_qdrant.stores.whole_points import Setup

SHARED = ("shard_number", "replication_factor", "write_consistency_factor", "on_disk_payload")
PLACED = ("payload", "id_tracker")  # where they are kept in memory, from 1.19 on
UPDATED = ("read_fan_out_factor", "read_fan_out_delay_ms")  # no new collection takes them
CUSTOM = "custom"  # sharding by keys that the points themselves do not tell


def read_setup(info: models.CollectionInfo, location: str) -> Setup:
    """Return the set-up of a collection.

    Raises CsrError for shards by keys of its user's, which a copy cannot reproduce.
    """
    config = info.config
    parameters = _json(config.params)
    if parameters.get("sharding_method") == CUSTOM:
        raise CsrError(
            f"{location} is spread over shards by keys of its own (sharding_method custom), which "
            "cannot be copied: use `csr attach`"
        )
    vectors = parameters.get("vectors") or {}
    parts = {"wal_config": config.wal_config, "strict_mode_config": config.strict_mode_config}
    return Setup(
        vectors={"": vectors} if "size" in vectors and "distance" in vectors else vectors,
        sparse=parameters.get("sparse_vectors") or {},
        hnsw=_json(config.hnsw_config),
        quantization=_json(config.quantization_config) or None,
        optimizers=_json(config.optimizer_config),
        server={
            **{key: parameters[key] for key in (*SHARED, *PLACED) if key in parameters},
            **{key: _json(part) for key, part in parts.items() if part is not None},
        },
        indexes={
            name: {"type": each.data_type.value, **_json(each.params)}
            for name, each in (info.payload_schema or {}).items()
        },
        metadata={
            key: value
            for key, value in (config.metadata or {}).items()
            if key != META_KEY and not key.startswith(META_KEY + ".")
        },
        left_out=tuple(key.replace("_", " ") for key in UPDATED if parameters.get(key)),
    )


def creation(setup: Setup, schema: Schema, metadata: Json) -> dict[str, Any]:
    """Return the arguments of the client's `create_collection`.

    Raises CsrError for settings that this client does not know.
    """
    unnamed = list(setup.vectors) == [""]
    vectors = {name: _parsed(models.VectorParams, each) for name, each in setup.vectors.items()}
    server = setup.server
    placed = {
        "payload": models.PayloadStorageParams,
        "id_tracker": models.IdTrackerParams,
        "wal_config": models.WalConfigDiff,
        "strict_mode_config": models.StrictModeConfig,
    }
    return {
        "vectors_config": vectors[""] if unnamed else vectors,
        "sparse_vectors_config": {
            name: _parsed(models.SparseVectorParams, each) for name, each in setup.sparse.items()
        },
        "hnsw_config": _parsed(models.HnswConfigDiff, setup.hnsw),
        "quantization_config": _parsed(models.QuantizationConfig, setup.quantization),
        "optimizers_config": _parsed(models.OptimizersConfigDiff, setup.optimizers),
        "metadata": {**setup.metadata, **first_metadata(schema, metadata)},
        **{key: server[key] for key in SHARED if key in server},
        **{key: _parsed(kind, server[key]) for key, kind in placed.items() if key in server},
    }


def index_settings(settings: Json) -> Any:
    """Return a payload index's settings as the client's."""
    return _parsed(models.PayloadSchemaParams, settings)


def left_out(setup: Setup) -> list[str]:
    """Return what a server cannot take over, in words: nothing."""
    return []


def _json(part: Any) -> Json:
    if part is None:
        return {}
    plain: Json = part.model_dump(mode="json", exclude_none=True)
    return plain


def _parsed(kind: Any, settings: Json | None) -> Any:
    if settings is None:
        return None
    try:
        return TypeAdapter(kind).validate_python(settings)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise CsrError(
            f"the source's settings cannot be given to a server: {where}: {fault['msg']}"
        ) from None
