"""Searching: from queries of any kind to hits of one call to the engine."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from csr_qdrant.codes import SparseCodes
from csr_qdrant.embedders import Embedder
from csr_qdrant.encoder import F32, Encoder, unit_rows
from csr_qdrant.errors import ConfigError
from csr_qdrant.identity import Identity
from csr_qdrant.points import directed_codes
from csr_qdrant.queries import (
    Asking,
    Fuse,
    Queries,
    Query,
    are_texts,
    as_batch,
    as_vectors,
    external_hits,
    search_of,
)
from csr_qdrant.stores.base import Group, Hit, Store
from csr_qdrant.telemetry import span


class Searching:
    """An open store and the encoder of its codes: the part of a `Collection` that searches."""

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        identity: Identity,
        embedder: Embedder | None = None,
    ) -> None:
        """Wrap an open store; raises CsrError if it was made with another encoder."""
        identity.check(encoder, store.location)
        self.store, self.encoder, self.identity = store, encoder, identity
        self._embedder = embedder

    @property
    def embedder(self) -> Embedder:
        """The embedder given, or the one that the collection remembers; loaded on first use.

        Raises ConfigError if neither is known or the latter cannot be loaded by its name.
        """
        if self._embedder is None:
            from csr_qdrant.embedders import load_embedder

            uri = self.identity.embedder
            if uri is None:
                raise ConfigError(
                    "texts need an embedder and this collection knows none: pass the one that "
                    "made its vectors, or give vectors"
                )
            try:
                self._embedder = load_embedder(uri)
            except ConfigError as error:
                raise ConfigError(f"{error}; or pass the embedder that made the vectors") from error
        return self._embedder

    def encode(self, dense: F32, k: int, *, name: str) -> SparseCodes:
        """Return raw codes, (m, h), of dense queries, (m, d), made as those of the documents."""
        rows = unit_rows(dense) if self.store.schema.unit_norm else dense
        return self.encoder.encode(rows, k, name=name)

    def search(
        self,
        query: Query,
        *,
        limit: int = 10,
        k: int | None = None,
        filter: Any = None,
        rescore: int = 0,
        fuse: Fuse | None = None,
        payload: bool = True,
    ) -> list[Hit]:
        """Return the hits of one query, best first; see `search_batch`."""
        hits = self.search_batch(
            as_batch(query),
            limit=limit,
            k=k,
            filter=filter,
            rescore=rescore,
            fuse=fuse,
            payload=payload,
        )
        if len(hits) != 1:
            raise ConfigError(f"search takes one query, got {len(hits)}: use search_batch")
        return hits[0]

    def search_batch(
        self,
        queries: Queries,
        *,
        limit: int = 10,
        k: int | None = None,
        filter: Any = None,
        rescore: int = 0,
        fuse: Fuse | None = None,
        payload: bool = True,
    ) -> list[list[Hit]]:
        """Return the hits of each query, best first, from one call to the engine.

        Args:
            queries: texts, dense vectors (m, d) or codes (m, h).
            limit: hits a query at most; points that share no latent with it are never found.
            k: active latents of the queries, fewer for speed; None: as the documents'.
            filter: Qdrant's filter, as JSON or `qdrant_client.models.Filter`; `has_id` takes
                external ids.
            rescore: score so many candidates anew by the cosine of their dense vectors; 0: don't.
            fuse: another vector, whose hits are fused with these; None: none.
            payload: whether hits carry their payload.

        Returns:
            Hits with external ids; none for a query of zeros or without an active latent.
        """
        asking = Asking(limit=limit, filter=filter, rescore=rescore, payload=payload, fuse=fuse)
        request, active = search_of(asking, self.store.schema, *self._encoded(queries, k))
        with span("search", queries=len(active), limit=limit, rescore=rescore):
            found = iter(self.store.search(request) if request else ())
        return [external_hits(next(found)) if each else [] for each in active]

    def search_groups(
        self,
        queries: Queries,
        group_by: str,
        *,
        group_size: int = 3,
        limit: int = 10,
        k: int | None = None,
        filter: Any = None,
        rescore: int = 0,
        fuse: Fuse | None = None,
        payload: bool = True,
    ) -> list[list[Group]]:
        """Return each query's best `limit` groups of points that share a value of `group_by`.

        One call to the engine a query. The rest is as in `search_batch`. Raises ConfigError on the
        embedded engine, which cannot group.
        """
        asking = Asking(limit=limit, filter=filter, rescore=rescore, payload=payload, fuse=fuse)
        request, active = search_of(asking, self.store.schema, *self._encoded(queries, k))
        found: Iterator[list[Group]] = iter(())
        if request:
            with span("search", queries=len(active), limit=limit, rescore=rescore):
                found = iter(self.store.search_groups(request, group_by, group_size))
        return [
            [Group(key, external_hits(hits)) for key, hits in next(found)] if each else []
            for each in active
        ]

    def _encoded(self, queries: Queries, k: int | None) -> tuple[F32 | None, SparseCodes]:
        """Return dense queries, if there are any, and normalised codes of at most k latents."""
        k = self.identity.k if k is None else k
        if isinstance(queries, SparseCodes):
            return None, queries.truncated(k).normalised()
        if are_texts(queries):
            queries = self.embedder.embed_queries(queries)
        dense = as_vectors(queries)
        with span("encode", rows=len(dense)):
            codes = self.encode(dense, k, name="the queries")
        return dense, directed_codes(codes, np.asarray(dense.any(axis=1))).normalised()
