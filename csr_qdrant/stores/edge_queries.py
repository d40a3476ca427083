"""Searches in the embedded engine's own terms."""

from typing import Any

import qdrant_edge as engine

from csr_qdrant.codes import SparseCodes
from csr_qdrant.stores.base import Fusion, Schema, Search
from csr_qdrant.stores.filters import edge_filter

RRF_K = 2  # a server's default, so that both engines rank alike


def edge_queries(request: Search, schema: Schema) -> list[Any]:
    """Return one request a query; raises CsrError for a malformed filter."""
    condition = edge_filter(request.filter)
    codes = [engine.Query.Nearest(c, using=schema.code_name) for c in request.codes.to_edge()]
    dense: list[Any] = [None] * len(codes)
    if request.dense is not None:
        rows = request.dense.tolist()
        dense = [engine.Query.Nearest(row, using=schema.dense_name) for row in rows]
    if request.fusion is not None:
        return _fused(request, request.fusion, condition, codes, dense)
    return [
        engine.QueryRequest(
            limit=request.limit,
            query=code,
            filter=condition,
            with_payload=request.payload,
        )
        if vector is None
        else engine.QueryRequest(
            limit=request.limit,
            query=vector,
            prefetches=[engine.Prefetch(limit=request.candidates, query=code, filter=condition)],
            with_payload=request.payload,
        )
        for code, vector in zip(codes, dense, strict=True)
    ]


def _fused(
    request: Search, fusion: Fusion, condition: Any, codes: list[Any], dense: list[Any]
) -> list[Any]:
    method: Any = engine.Fusion.Rrf(RRF_K) if fusion.method == "rrf" else engine.Fusion.Dbsf()
    size = fusion.candidates
    made = []
    for code, vector, other in zip(codes, dense, _others(fusion), strict=True):
        ours = engine.Prefetch(
            limit=size if vector is None else request.candidates, query=code, filter=condition
        )
        if vector is not None:
            ours = engine.Prefetch(limit=size, query=vector, prefetches=[ours])
        theirs = engine.Prefetch(limit=size, query=other, filter=condition)
        made.append(
            engine.QueryRequest(
                limit=request.limit,
                query=method,
                prefetches=[ours, theirs],
                with_payload=request.payload,
            )
        )
    return made


def _others(fusion: Fusion) -> list[Any]:
    given = fusion.queries
    vectors = given.to_edge() if isinstance(given, SparseCodes) else given.tolist()
    return [engine.Query.Nearest(each, using=fusion.name) for each in vectors]
