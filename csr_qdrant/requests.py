"""The queries that `CsrQdrant` and `AsyncCsrQdrant` send: what their client takes, with codes.

Functions only, which change none of their arguments and ask no engine.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

import numpy as np

from csr_qdrant.codes import SparseCodes
from csr_qdrant.coding import Coding
from csr_qdrant.encoder import F32
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.queries import Queries, are_texts, as_vectors, check_number

if TYPE_CHECKING:
    from qdrant_client import models
    from qdrant_client.http.models import QueryResponse

LIMIT = 10
FUSED_CANDIDATES = 100  # hits that each part of a fusion brings at least
_PASSED_ON = {
    "offset",
    "with_payload",
    "with_vectors",
    "score_threshold",
    "search_params",
    "lookup_from",
    "consistency",
    "shard_key_selector",
    "timeout",
}
_OF_CALL = ("consistency", "timeout")  # the same for a whole batch
# Where a single query's arguments have other names in a request of a batch.
_IN_REQUEST = {
    "query_filter": "filter",
    "search_params": "params",
    "with_vectors": "with_vector",
    "shard_key_selector": "shard_key",
}


class QueryOptions(TypedDict, total=False):
    """Settings of a query; those below `candidates` go to the client as they are."""

    limit: int  # hits at most; 10
    k: int | None  # active latents of the query, fewer for speed; None: as the documents'
    filter: "models.Filter | None"
    rescore: int  # score so many hits by code anew by their dense vectors; 0: don't
    fuse: "Mapping[str, Any] | Sequence[models.Prefetch]"  # vector name -> query, or prefetches
    fusion: Literal["rrf", "dbsf"]
    candidates: int  # hits that each part of a fusion brings
    offset: int | None
    with_payload: Any
    with_vectors: "bool | Sequence[str]"
    score_threshold: float | None
    search_params: "models.SearchParams | None"
    lookup_from: "models.LookupLocation | None"
    consistency: Any
    shard_key_selector: Any
    timeout: int | None


_KNOWN = frozenset(QueryOptions.__annotations__)
# What the client calls what has a name of its own here.
_CLIENTS_NAMES = {"query_filter": "filter", "prefetch": "fuse", "params": "search_params"}


def check_options(options: QueryOptions) -> None:
    """Raise ConfigError for a setting that no query has: a filter with a wrong name must not be
    left out without a word.
    """
    for name in options:
        if name not in _KNOWN:
            own = _CLIENTS_NAMES.get(name)
            fix = f"it is called {own} here" if own else f"choose among {', '.join(sorted(_KNOWN))}"
            raise ConfigError(f"queries have no setting {name!r}: {fix}")


class Asked(NamedTuple):
    """Queries as vectors and codes, row by row."""

    dense: F32 | None  # (m, d); None where the caller gave codes
    codes: SparseCodes  # (m, h), normalised


def asked(coding: Coding, queries: Queries, k: int | None) -> Asked:
    """Return texts, vectors (m, d) or codes (m, h) as what a search needs.

    Raises ConfigError for texts without an embedder, CsrError for vectors that don't fit.
    """
    if isinstance(queries, SparseCodes):
        if queries.h != coding.encoder.h:  # an engine would look up latents of another meaning
            raise CsrError(
                f"this encoder has {coding.encoder.h} latents, got codes over {queries.h}: make "
                "the codes with the collection's encoder"
            )
        return Asked(None, queries.truncated(coding.document_k if k is None else k).normalised())
    if len(queries) == 0:
        queries = np.zeros((0, coding.encoder.d), np.float32)
    dense = as_vectors(embedded(coding, queries) if are_texts(queries) else queries)
    if dense.ndim != 2:
        raise ConfigError(
            f"queries must be vectors of shape (m, {coding.encoder.d}), got {dense.shape}: use "
            "query for a single one"
        )
    return Asked(dense, coding.codes(dense, k, "the queries"))


def embedded(coding: Coding, texts: Sequence[str]) -> F32:
    """Return the vectors of texts, (m, d); raises ConfigError without an embedder."""
    if coding.embedder is None:
        raise ConfigError(
            "texts need an embedder: pass the one that made the collection's vectors, or give "
            "vectors"
        )
    return coding.embedder.embed_queries(texts)


def one_query(coding: Coding, queries: Queries, options: QueryOptions) -> dict[str, Any] | None:
    """Return the arguments of `query_points`; None if the query has nothing to search with.

    Raises ConfigError unless `queries` holds exactly one.
    """
    check_options(options)
    found = asked(coding, queries, options.get("k"))
    if len(found.codes) != 1:
        raise ConfigError(f"query takes one query, got {len(found.codes)}: use query_batch")
    return _arguments(coding, found, 0, options, found.codes.to_qdrant()[0])


def grouped_query(
    coding: Coding, queries: Queries, group_by: str, group_size: int, options: QueryOptions
) -> dict[str, Any] | None:
    """Return the arguments of `query_points_groups`, as `one_query` does."""
    if options.get("offset"):
        raise ConfigError("groups know no offset: ask for a higher limit")
    arguments = one_query(coding, queries, options)
    return arguments and {**arguments, "group_by": group_by, "group_size": group_size}


class BatchRequest(NamedTuple):
    """Several queries as one call."""

    requests: "list[models.QueryRequest]"
    places: list[int]  # which query each request is of
    queries: int  # those without a request included
    options: dict[str, Any]  # of the call itself


def batch_request(coding: Coding, queries: Queries, options: QueryOptions) -> BatchRequest:
    """Return the requests of `query_batch_points`, all with the same settings."""
    from qdrant_client import models

    check_options(options)
    found = asked(coding, queries, options.get("k"))
    requests, places = [], []
    for row, code in enumerate(found.codes.to_qdrant()):
        arguments = _arguments(coding, found, row, options, code)
        if arguments is not None:
            renamed = {_IN_REQUEST.get(name, name): each for name, each in arguments.items()}
            for name in _OF_CALL:
                renamed.pop(name, None)
            requests.append(models.QueryRequest(**renamed))
            places.append(row)
    given: Mapping[str, Any] = options
    of_call = {name: given[name] for name in _OF_CALL if name in given}
    return BatchRequest(requests, places, len(found.codes), of_call)


def spread(answers: "Sequence[QueryResponse]", request: BatchRequest) -> "list[QueryResponse]":
    """Return one answer a query, without hits where none was asked for."""
    found = dict(zip(request.places, answers, strict=True))
    return [found.get(place) or no_hits() for place in range(request.queries)]


def sizes(options: QueryOptions, queries: int = 1) -> dict[str, int]:
    """Return what a span tells of a search."""
    limit, rescore = options.get("limit", LIMIT), options.get("rescore", 0)
    return {"queries": queries, "limit": limit, "rescore": rescore}


def no_hits() -> "QueryResponse":
    """Return the answer to a query that has nothing to search with."""
    from qdrant_client.http.models import QueryResponse  # that of `models` is another class

    return QueryResponse(points=[])


def no_groups() -> "models.GroupsResult":
    """Return the same for groups."""
    from qdrant_client import models

    return models.GroupsResult(groups=[])


# --- what is asked ----------------------------------------------------------------------------


def _arguments(
    coding: Coding, found: Asked, row: int, options: QueryOptions, code: "models.SparseVector"
) -> dict[str, Any] | None:
    limit, rescore = options.get("limit", LIMIT), options.get("rescore", 0)
    check_number("limit", limit, 1)
    check_number("rescore", rescore, 0)
    arguments: dict[str, Any] = {n: each for n, each in options.items() if n in _PASSED_ON}
    arguments["limit"] = limit
    wanted = limit + (options.get("offset") or 0)
    dense = _rescoring_vector(coding, found, row) if rescore else None
    fuse = options.get("fuse")
    if fuse:
        return arguments | _fused(coding, code, dense, fuse, wanted, options)
    if not code.indices:
        return None
    condition = options.get("filter")
    if dense is None:
        return arguments | {"query": code, "using": coding.code_name, "query_filter": condition}
    prefetch = _by_code(coding, code, max(rescore, wanted), condition)
    return arguments | {"prefetch": prefetch, "query": dense, "using": coding.dense_name or None}


def _rescoring_vector(coding: Coding, found: Asked, row: int) -> list[float]:
    if not coding.keep_dense:
        raise ConfigError("rescoring needs dense vectors in the collection: search without it")
    if found.dense is None:
        raise ConfigError("rescoring needs dense queries, got codes: give texts or vectors")
    vector: list[float] = found.dense[row].tolist()
    return vector


def _by_code(
    coding: Coding, code: "models.SparseVector", limit: int, condition: "models.Filter | None"
) -> "models.Prefetch":
    from qdrant_client import models

    # The constructor would try the query as each of twenty types.
    return models.Prefetch.model_construct(
        query=code, using=coding.code_name, limit=limit, filter=condition
    )


def _fused(
    coding: Coding,
    code: "models.SparseVector",
    dense: list[float] | None,
    fuse: "Mapping[str, Any] | Sequence[models.Prefetch]",
    wanted: int,
    options: QueryOptions,
) -> dict[str, Any]:
    from qdrant_client import models

    method = options.get("fusion", "rrf")
    if method not in ("rrf", "dbsf"):
        raise ConfigError(f"fusion must be rrf or dbsf, got {method!r}")
    size = max(options.get("candidates", FUSED_CANDIDATES), wanted)
    condition = options.get("filter")
    parts = []
    if code.indices:
        rescore = options.get("rescore", 0)
        own = _by_code(coding, code, max(rescore, size) if dense else size, condition)
        if dense is not None:
            using = coding.dense_name or None
            own = models.Prefetch(prefetch=own, query=dense, using=using, limit=size)
        parts.append(own)
    if isinstance(fuse, Mapping):
        parts += [_named(name, query, size, condition) for name, query in fuse.items()]
    else:
        parts += [filtered(prefetch, condition) for prefetch in fuse]
    return {"prefetch": parts, "query": models.FusionQuery(fusion=models.Fusion(method))}


def _named(
    name: str, query: Any, limit: int, condition: "models.Filter | None"
) -> "models.Prefetch":
    from qdrant_client import models

    if isinstance(query, np.ndarray):
        query = query.tolist()
    return models.Prefetch(query=query, limit=limit, filter=condition, using=name or None)


def filtered(prefetch: "models.Prefetch", condition: "models.Filter | None") -> "models.Prefetch":
    """Return a prefetch whose innermost parts find nothing but what fits `condition` too."""
    from qdrant_client import models

    if condition is None:
        return prefetch
    inner = prefetch.prefetch
    if inner:
        parts = inner if isinstance(inner, list) else [inner]
        return prefetch.model_copy(update={"prefetch": [filtered(p, condition) for p in parts]})
    both = condition
    if prefetch.filter is not None:
        both = models.Filter(must=[prefetch.filter, condition])
    return prefetch.model_copy(update={"filter": both})
