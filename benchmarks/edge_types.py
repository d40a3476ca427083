"""The engine's interface in the types of `qdrant_edge`."""

from typing import Any

import qdrant_edge as edge

from csr_qdrant.benchmarks.engine import Asked, DenseVectors, Quantisation, SparseVectors
from csr_qdrant.codes import SparseCodes

_DATATYPES = {
    "f32": edge.VectorStorageDatatype.Float32,
    "f16": edge.VectorStorageDatatype.Float16,
    "u8": edge.VectorStorageDatatype.Uint8,
}
_TURBO = {
    "turbo1": edge.TurboQuantBitSize.Bits1,
    "turbo1.5": edge.TurboQuantBitSize.Bits1_5,
    "turbo2": edge.TurboQuantBitSize.Bits2,
    "turbo4": edge.TurboQuantBitSize.Bits4,
    "turbo8": edge.TurboQuantBitSize.Bits8,
}


def dense_parameters(vectors: DenseVectors) -> Any:
    """Return how dense vectors are stored."""
    graph = edge.HnswIndexConfig(
        m=vectors.m, ef_construct=vectors.ef_construct, full_scan_threshold=1
    )
    return edge.EdgeVectorParams(
        size=vectors.size,
        distance=edge.Distance.Cosine,
        memory=edge.Memory.Cold if vectors.on_disk else edge.Memory.Cached,
        hnsw_config=graph,
        quantization_config=_quantisation(vectors.quantisation),
    )


def sparse_parameters(vectors: SparseVectors) -> Any:
    """Return how codes are stored."""
    return edge.EdgeSparseVectorParams(datatype=_DATATYPES[vectors.datatype])


def _quantisation(kind: Quantisation | None) -> Any:
    if kind is None:
        return None
    if kind == "binary":
        return edge.BinaryQuantizationConfig(memory=edge.Memory.Pinned)
    if kind == "int8":
        return edge.ScalarQuantizationConfig(
            type=edge.ScalarType.Int8, quantile=0.99, memory=edge.Memory.Pinned
        )
    return edge.TurboQuantQuantizationConfig(bits=_TURBO[kind], memory=edge.Memory.Pinned)


def search_parameters(asked: Asked) -> Any:
    """Return how a search is done, None where there is nothing to say."""
    if asked.rescore is not None:
        quantised = edge.QuantizationSearchParams(
            rescore=asked.rescore, oversampling=asked.oversampling
        )
        return edge.SearchParams(hnsw_ef=asked.ef, quantization=quantised)
    if asked.exact:
        return edge.SearchParams(exact=True)
    return None if asked.ef is None else edge.SearchParams(hnsw_ef=asked.ef)


def request(query: Any, limit: int, **options: Any) -> Any:
    """Return a request for the ids and scores of the `limit` best points."""
    return edge.QueryRequest(
        limit=limit, query=query, with_payload=False, with_vector=False, **options
    )


def rows(column: Any) -> list[Any]:
    """Return the vectors one by one, None for a code without latents."""
    if isinstance(column, SparseCodes):
        lengths = column.lengths.tolist()
        return [code if n else None for code, n in zip(column.to_edge(), lengths, strict=True)]
    found: list[Any] = column.tolist()
    return found
