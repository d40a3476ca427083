"""Searches in a server's terms."""

from typing import Any

from qdrant_client import models

from csr_qdrant.codes import SparseCodes
from csr_qdrant.stores.base import Fusion, Schema, Search
from csr_qdrant.stores.filters import client_filter


def server_queries(request: Search, schema: Schema) -> list[models.QueryRequest]:
    """Return one request a query; raises CsrError for a malformed filter."""
    return [
        models.QueryRequest(limit=request.limit, with_payload=request.payload, **each)
        for each in _searches(request, schema)
    ]


def group_arguments(request: Search, schema: Schema) -> list[dict[str, Any]]:
    """Return the arguments of `query_points_groups` of each query, but for the groups' own."""
    found = []
    for each in _searches(request, schema):
        condition = each.pop("filter", None)
        own = {"limit": request.limit, "with_payload": request.payload}
        found.append({**each, **own, "query_filter": condition})
    return found


def _searches(request: Search, schema: Schema) -> list[dict[str, Any]]:
    condition = client_filter(request.filter)
    rows: list[Any] = [None] * len(request.codes)
    if request.dense is not None:
        rows = request.dense.tolist()
    codes = request.codes.to_qdrant()
    if request.fusion is not None:
        parts = zip(codes, rows, _others(request.fusion), strict=True)
        return [_fused(request, request.fusion, schema, condition, *each) for each in parts]
    return [
        {"query": code, "using": schema.code_name, "filter": condition}
        if row is None
        else {
            "prefetch": _by_code(code, request.candidates, schema, condition),
            "query": row,
            "using": schema.dense_name or None,
        }
        for code, row in zip(codes, rows, strict=True)
    ]


def _by_code(
    code: models.SparseVector, limit: int, schema: Schema, condition: models.Filter | None
) -> models.Prefetch:
    return models.Prefetch(query=code, using=schema.code_name, filter=condition, limit=limit)


def _fused(
    request: Search,
    fusion: Fusion,
    schema: Schema,
    condition: models.Filter | None,
    code: models.SparseVector,
    row: list[float] | None,
    other: Any,
) -> dict[str, Any]:
    size = fusion.candidates
    ours = _by_code(code, size if row is None else request.candidates, schema, condition)
    if row is not None:
        using = schema.dense_name or None
        ours = models.Prefetch(prefetch=ours, query=row, using=using, limit=size)
    theirs = models.Prefetch(query=other, using=fusion.name or None, filter=condition, limit=size)
    query = models.FusionQuery(fusion=models.Fusion(fusion.method))
    return {"prefetch": [ours, theirs], "query": query}


def _others(fusion: Fusion) -> list[Any]:
    given = fusion.queries
    return list(given.to_qdrant() if isinstance(given, SparseCodes) else given.tolist())
