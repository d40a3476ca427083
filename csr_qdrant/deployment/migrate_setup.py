"""The set-up of a copy: the source's, with codes added and the encoded vector as it was asked."""

from dataclasses import replace

from csr_qdrant.deployment.migrate_config import Keep
from csr_qdrant.stores.base import Datatype, Json
from csr_qdrant.stores.layout import DenseVector
from csr_qdrant.stores.whole_points import Setup

SPARSE_DATATYPES = {"f32": "float32", "f16": "float16", "u8": "uint8"}
VALUE_BYTES = {"float16": 2, "uint8": 1, "turbo8": 1, "turbo16": 2}


def target_setup(
    setup: Setup, dense: DenseVector | None, name: str, datatype: Datatype, keep: Keep
) -> Setup:
    """Return the copy's set-up; `dense` is the encoded vector, None if codes are copied."""
    vectors = dict(setup.vectors)
    quantization = setup.quantization
    if dense is not None and keep == "none":
        del vectors[dense.name]
    if dense is not None and keep == "rescore":
        vectors, quantization = _without_graph(vectors, dense.name, quantization)
    codes: Json = {"index": {"datatype": SPARSE_DATATYPES[datatype]}}
    sparse = {**setup.sparse, name: setup.sparse.get(name, codes)}
    return replace(setup, vectors=vectors, sparse=sparse, quantization=quantization)


def dense_bytes(setup: Setup) -> int:
    """Return the bytes of one point's dense vectors, without multivectors and graphs."""
    return sum(
        int(each["size"]) * VALUE_BYTES.get(each.get("datatype") or "float32", 4)
        for each in setup.vectors.values()
        if not each.get("multivector_config")
    )


def _without_graph(
    vectors: dict[str, Json], name: str, quantization: Json | None
) -> tuple[dict[str, Json], Json | None]:
    """Return vectors of which `name` lies on disk alone, and the collection's quantisation.

    A vector cannot refuse the collection's quantisation: the others take it over instead.
    """
    changed = {}
    for other, settings in vectors.items():
        changed[other] = dict(settings)
        if other != name and quantization and not settings.get("quantization_config"):
            changed[other]["quantization_config"] = quantization
    kept = changed[name]
    for key in ("quantization_config", "memory"):
        kept.pop(key, None)
    # Without payload_m = 0 there would be graphs for payload indexes where the collection has them.
    kept |= {"on_disk": True, "hnsw_config": {"m": 0, "payload_m": 0}}
    return changed, None
