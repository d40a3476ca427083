"""The engine's interface in the types of `qdrant_client`."""

from typing import Any

from qdrant_client import models

from csr_qdrant.benchmarks.engine import (
    FULL,
    Asked,
    DenseVectors,
    Layout,
    Quantisation,
    SparseVectors,
)
from csr_qdrant.codes import SparseCodes

NO_LIMIT_KB = 1 << 40
LEAST_SCAN_KB = 10  # the server takes no smaller threshold
_DATATYPES = {
    "f32": models.Datatype.FLOAT32,
    "f16": models.Datatype.FLOAT16,
    "u8": models.Datatype.UINT8,
}
_TURBO = {
    "turbo1": models.TurboQuantBitSize.BITS1,
    "turbo1.5": models.TurboQuantBitSize.BITS1_5,
    "turbo2": models.TurboQuantBitSize.BITS2,
    "turbo4": models.TurboQuantBitSize.BITS4,
    "turbo8": models.TurboQuantBitSize.BITS8,
}


def collection_settings(layout: Layout) -> dict[str, Any]:
    """Return how a collection is made that indexes nothing until `indexing` is sent."""
    return {
        "vectors_config": {
            name: _dense(each) for name, each in layout.items() if isinstance(each, DenseVectors)
        },
        "sparse_vectors_config": {
            name: _sparse(each) for name, each in layout.items() if isinstance(each, SparseVectors)
        },
        "shard_number": 1,
        "optimizers_config": models.OptimizersConfigDiff(
            default_segment_number=1, max_segment_size=NO_LIMIT_KB, indexing_threshold=0
        ),
    }


def indexing() -> models.OptimizersConfigDiff:
    """Return the change after which everything is indexed."""
    return models.OptimizersConfigDiff(indexing_threshold=1)


def requests(asked: Asked, *, with_params: bool = True) -> list[models.QueryRequest | None]:
    """Return the request of each query; None for a code without latents.

    Local mode knows no parameters of a search.
    """
    params = _params(asked) if with_params else None
    queries = rows(asked.queries)
    if asked.full is None:
        return [
            None
            if query is None
            else models.QueryRequest(
                query=query, using=asked.using, limit=asked.limit, params=params
            )
            for query in queries
        ]
    depth = max(asked.depth, asked.limit)
    return [
        None
        if first is None
        else models.QueryRequest(
            prefetch=models.Prefetch(query=first, using=asked.using, limit=depth, params=params),
            query=then,
            using=FULL,
            limit=asked.limit,
        )
        for first, then in zip(queries, asked.full.tolist(), strict=True)
    ]


def rows(column: Any) -> list[Any]:
    """Return vectors one by one, None for a code without latents."""
    if isinstance(column, SparseCodes):
        lengths = column.lengths.tolist()
        return [code if n else None for code, n in zip(column.to_qdrant(), lengths, strict=True)]
    found: list[Any] = column.tolist()
    return found


def _dense(vectors: DenseVectors) -> models.VectorParams:
    graph = models.HnswConfigDiff(
        m=vectors.m, ef_construct=vectors.ef_construct, full_scan_threshold=LEAST_SCAN_KB
    )
    return models.VectorParams(
        size=vectors.size,
        distance=models.Distance.COSINE,
        on_disk=vectors.on_disk,
        hnsw_config=graph,
        quantization_config=_quantisation(vectors.quantisation),
    )


def _sparse(vectors: SparseVectors) -> models.SparseVectorParams:
    index = models.SparseIndexParams(datatype=_DATATYPES[vectors.datatype])
    return models.SparseVectorParams(index=index)


def _quantisation(kind: Quantisation | None) -> Any:
    if kind is None:
        return None
    if kind == "binary":
        binary = models.BinaryQuantizationConfig(always_ram=True)
        return models.BinaryQuantization(binary=binary)
    if kind == "int8":
        scalar = models.ScalarQuantizationConfig(
            type=models.ScalarType.INT8, quantile=0.99, always_ram=True
        )
        return models.ScalarQuantization(scalar=scalar)
    turbo = models.TurboQuantQuantizationConfig(bits=_TURBO[kind], always_ram=True)
    return models.TurboQuantization(turbo=turbo)


def _params(asked: Asked) -> models.SearchParams | None:
    if asked.rescore is not None:
        quantised = models.QuantizationSearchParams(
            rescore=asked.rescore, oversampling=asked.oversampling
        )
        return models.SearchParams(hnsw_ef=asked.ef, quantization=quantised)
    if asked.exact:
        return models.SearchParams(exact=True)
    return None if asked.ef is None else models.SearchParams(hnsw_ef=asked.ef)
