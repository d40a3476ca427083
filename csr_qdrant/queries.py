"""What a search is asked with, and what it answers under external ids."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeGuard

import numpy as np
import numpy.typing as npt

from csr_qdrant.codes import SparseCodes
from csr_qdrant.encoder import F32
from csr_qdrant.errors import ConfigError
from csr_qdrant.ids import ID_KEY, filter_with_point_ids
from csr_qdrant.stores.base import Fusion, Hit, Schema, Search

Query = str | npt.NDArray[Any] | SparseCodes
Queries = Sequence[str] | npt.NDArray[Any] | SparseCodes


@dataclass(frozen=True, kw_only=True)
class Fuse:
    """Hybrid search: hits by code, fused with the hits of another vector of the collection."""

    vector: str | None = None  # its name; None: the dense vectors
    queries: Any = None  # (m, d) or codes; None: the dense queries themselves
    method: Literal["rrf", "dbsf"] = "rrf"
    candidates: int = 100  # hits that each part brings at least

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.method not in ("rrf", "dbsf"):
            raise ConfigError(f"fusion must be rrf or dbsf, got {self.method!r}")
        if self.candidates < 1:
            raise ConfigError(f"a fusion's candidates must be at least 1, got {self.candidates}")


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How to search, the same for all queries of a call."""

    limit: int
    filter: Any
    rescore: int
    payload: bool
    fuse: Fuse | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_number("limit", self.limit, 1)
        check_number("rescore", self.rescore, 0)


def check_number(name: str, value: object, least: int) -> None:
    """Raise ConfigError unless the setting `name` is an integer of at least `least`."""
    if not isinstance(value, int | np.integer):
        raise ConfigError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ConfigError(f"{name} must be at least {least}, got {value}")


def search_of(
    asking: Asking, schema: Schema, dense: F32 | None, codes: SparseCodes
) -> tuple[Search | None, list[bool]]:
    """Return what to ask a store, and which queries that covers: those with an active latent.

    `codes` (m, h) are normalised; `dense` (m, d) is None where codes were given. Raises
    ConfigError for rescoring or fusing with dense queries that are not there.
    """
    active = [bool(length) for length in codes.lengths.tolist()]
    if asking.rescore and dense is None:
        raise ConfigError("rescoring needs dense queries, got codes: give texts or vectors")
    fusion = None if asking.fuse is None else _fusion(asking, asking.fuse, schema, dense)
    if fusion is not None and len(fusion.queries) != len(codes):
        raise ConfigError(
            f"fusion needs a query of each kind, got {len(fusion.queries)} for the vector "
            f"{fusion.name!r} and {len(codes)} codes"
        )
    if not any(active):
        return None, active
    if not all(active):
        rows = np.flatnonzero(active)
        codes, dense = codes[rows], None if dense is None else dense[rows]
        fusion = fusion and replace(fusion, queries=fusion.queries[rows])
    rescore = asking.rescore
    least = max(asking.limit, fusion.candidates if fusion else 0)
    request = Search(
        codes=codes,
        limit=asking.limit,
        filter=filter_with_point_ids(asking.filter),
        dense=dense if rescore else None,
        candidates=max(rescore, least) if rescore else 0,
        fusion=fusion,
        payload=asking.payload or [ID_KEY],
    )
    return request, active


def _fusion(asking: Asking, fuse: Fuse, schema: Schema, dense: F32 | None) -> Fusion:
    queries = dense if fuse.queries is None else fuse.queries
    if queries is None:
        raise ConfigError("fusion with dense vectors needs dense queries, got codes: give both")
    if not isinstance(queries, SparseCodes):
        queries = as_vectors(queries)
    name = schema.dense_name if fuse.vector is None else fuse.vector
    size = max(fuse.candidates, asking.limit)
    return Fusion(method=fuse.method, name=name, queries=queries, candidates=size)


def as_batch(query: Query) -> Queries:
    """Return one query as a batch of one."""
    if isinstance(query, str):
        return [query]
    if isinstance(query, SparseCodes):
        return query
    given = np.asarray(query)
    return given[None] if given.ndim == 1 else np.atleast_2d(given)


def are_texts(queries: Queries) -> TypeGuard[Sequence[str]]:
    """Tell whether `queries` must be embedded first."""
    if isinstance(queries, np.ndarray | SparseCodes):
        return False
    return all(isinstance(each, str) for each in queries)


def as_vectors(queries: Any) -> F32:
    """Return (m, d) float32; raises ConfigError for what is neither numbers nor texts."""
    if isinstance(queries, np.ndarray) and queries.dtype == np.float32:
        return queries  # every search waits for what follows
    try:
        with np.errstate(over="ignore"):  # infinity is for the encoder to report
            return np.asarray(queries, np.float32)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"queries must be texts, vectors or codes: {error}") from None


def external_hits(hits: list[Hit]) -> list[Hit]:
    """Return hits under their external ids, without the reserved payload key."""
    return [Hit(payload.pop(ID_KEY, point), score, payload) for point, score, payload in hits]
