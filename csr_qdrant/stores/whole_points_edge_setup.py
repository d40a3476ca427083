"""The set-up of a collection of Qdrant Edge, to and from the JSON forms of the REST interface."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import qdrant_edge as engine

from csr_qdrant.errors import CsrError
from csr_qdrant.json_files import read_json
from csr_qdrant.stores.base import Json
from csr_qdrant.stores.whole_points import Setup, setting_name

HNSW_DEFAULTS = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000}
QUANTIZATIONS = {
    "scalar": engine.ScalarQuantizationConfig,
    "product": engine.ProductQuantizationConfig,
    "binary": engine.BinaryQuantizationConfig,
    "turbo": engine.TurboQuantQuantizationConfig,
}
ENUMS: Mapping[str, Any] = {
    "distance": engine.Distance,
    "datatype": engine.VectorStorageDatatype,
    "comparator": engine.MultiVectorComparator,
    "memory": engine.Memory,
    "modifier": engine.Modifier,
    "compression": engine.CompressionRatio,
    "encoding": engine.BinaryQuantizationEncoding,
    "query_encoding": engine.BinaryQuantizationQueryEncoding,
    "bits": engine.TurboQuantBitSize,
    "tokenizer": engine.TokenizerType,
    "type": engine.ScalarType,
}
INDEXES = {
    kind: getattr(engine, f"{kind.capitalize()}IndexParams")
    for kind in ("keyword", "integer", "float", "geo", "text", "bool", "datetime", "uuid")
}
OPTIMIZERS = (
    "deleted_threshold",
    "vacuum_min_vector_number",
    "default_segment_number",
    "max_segment_size",
    "indexing_threshold",
    "prevent_unoptimized",
)
COLLECTION = ("on_disk_payload",)  # of what a server calls its own, what Edge has, too
SPARSE_INDEX = ("full_scan_threshold", "on_disk", "memory", "datatype")
# Parts of text indexes that Edge takes and gives as objects of its own.
OBJECTS = ("stopwords", "stemmer", "scoring")


def read_setup(shard_folder: Path, schema: Mapping[str, Any], metadata: Json) -> Setup:
    """Return the set-up of an open shard; `schema` are the payload indexes that it tells.

    Raises CsrError if its own description cannot be read.
    """
    try:
        described = read_json(shard_folder / "edge_config.json")
        sparse = described.get("sparse_vectors") or {}
        indexes, left_out = _read_indexes(schema)
        return Setup(
            vectors={n: _given(each) for n, each in (described.get("vectors") or {}).items()},
            sparse={name: _sparse_json(each) for name, each in sparse.items()},
            hnsw=described.get("hnsw_config"),
            quantization=described.get("quantization_config"),
            optimizers=_given(described.get("optimizers") or {}) or None,
            server={key: described[key] for key in COLLECTION if described.get(key) is not None},
            indexes=indexes,
            metadata=metadata,
            left_out=tuple(left_out),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CsrError(
            f"cannot tell how {shard_folder} is set up ({type(error).__name__}: {error}): it is "
            "damaged, or not a collection of Qdrant Edge"
        ) from error


def edge_config(setup: Setup) -> Any:
    """Return the engine's configuration of a new shard; raises CsrError for what it has not."""
    try:
        return engine.EdgeConfig(
            vectors={name: _vector(each, setup.hnsw) for name, each in setup.vectors.items()},
            sparse_vectors={name: _sparse(each) for name, each in setup.sparse.items()},
            hnsw_config=_hnsw(setup.hnsw, None),
            quantization_config=_quantization(setup.quantization),
            optimizers=_optimizers(setup.optimizers),
            **{key: setup.server[key] for key in COLLECTION if key in setup.server},
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CsrError(f"Qdrant Edge cannot be set up like the source: {error}") from error


def edge_index(settings: Json) -> Any:
    """Return a payload index's settings as the engine's; raises CsrError for what it has not."""
    kept = {key: value for key, value in settings.items() if key not in ("type", *OBJECTS)}
    try:
        return INDEXES[settings["type"]](**_members(kept))
    except (KeyError, TypeError, ValueError) as error:
        raise CsrError(f"Qdrant Edge has no such payload index as the source: {error}") from error


def left_out(setup: Setup) -> list[str]:
    """Return what a shard cannot take over, in words."""
    words = [setting_name(key) for key in setup.server if key not in COLLECTION]
    words += [f"optimizer's {key}" for key in setup.optimizers or {} if key not in OPTIMIZERS]
    for name, settings in setup.indexes.items():
        words += [f"{key} of the index on {name!r}" for key in OBJECTS if settings.get(key)]
    return words


def _given(settings: Json) -> Json:
    return {key: value for key, value in settings.items() if value is not None}


def _sparse_json(each: Json) -> Json:
    index = {key: each[key] for key in SPARSE_INDEX if each.get(key) is not None}
    modifier = {"modifier": each["modifier"]} if each.get("modifier") else {}
    return {**({"index": index} if index else {}), **modifier}


def _read_indexes(schema: Mapping[str, Any]) -> tuple[dict[str, Json], list[str]]:
    indexes: dict[str, Json] = {}
    lost: list[str] = []
    for name, info in schema.items():
        settings: Json = {"type": _snake(_name(info.data_type))}
        if info.params is not None:
            for key in [each for each in dir(info.params) if not each.startswith("_")]:
                value = getattr(info.params, key)
                if value is None or callable(value):
                    continue
                if key in OBJECTS:
                    lost.append(f"{key} of the index on {name!r}")
                else:
                    settings[key] = _snake(_name(value)) if key in ENUMS else value
        indexes[name] = settings
    return indexes, lost


def _name(member: Any) -> str:
    """Return the bare name of a member of the engine's enumerations."""
    return str(member).rpartition(".")[2]


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _members(settings: Json) -> Json:
    """Return settings with the engine's members for the names of enumerations."""
    return {k: _member(ENUMS[k], v) if k in ENUMS else v for k, v in _given(settings).items()}


def _member(enum: Any, name: str) -> Any:
    wanted = name.replace("_", "").lower()
    for each in dir(enum):
        if each.replace("_", "").lower() == wanted and not each.startswith("_"):
            return getattr(enum, each)
    raise KeyError(f"it has no {enum.__name__} {name!r}")


def _vector(settings: Json, hnsw: Json | None) -> Any:
    special = ("hnsw_config", "quantization_config", "multivector_config")
    plain = _members({key: each for key, each in settings.items() if key not in special})
    multi = settings.get("multivector_config")
    return engine.EdgeVectorParams(
        **plain,
        hnsw_config=_hnsw(settings.get("hnsw_config"), hnsw),
        quantization_config=_quantization(settings.get("quantization_config")),
        multivector_config=engine.MultiVectorConfig(**_members(multi)) if multi else None,
    )


def _hnsw(settings: Json | None, collection: Json | None) -> Any:
    """Return a graph's settings; a vector's own are filled up from the collection's."""
    if not settings:
        return None
    filled = {**HNSW_DEFAULTS, **_given(collection or {}), **_given(settings)}
    return engine.HnswIndexConfig(**_members(filled))


def _quantization(settings: Json | None) -> Any:
    if not settings:
        return None
    ((kind, given),) = settings.items()
    return QUANTIZATIONS[kind](**_members(given))


def _sparse(settings: Json) -> Any:
    modifier = settings.get("modifier")
    flat = {**(settings.get("index") or {}), "modifier": None if modifier == "none" else modifier}
    return engine.EdgeSparseVectorParams(**_members(flat))


def _optimizers(settings: Json | None) -> Any:
    kept = {key: each for key, each in (settings or {}).items() if key in OPTIMIZERS}
    return engine.EdgeOptimizersConfig(**kept) if _given(kept) else None
