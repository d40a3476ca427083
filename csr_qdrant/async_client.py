"""AsyncCsrQdrant: what `CsrQdrant` does, with an `AsyncQdrantClient`."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

from csr_qdrant import requests
from csr_qdrant.coding import Coding, check_collection, coded_points, coded_vectors
from csr_qdrant.embedders import Embedder
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError
from csr_qdrant.queries import Queries, Query, are_texts, as_batch
from csr_qdrant.telemetry import span

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient, models
    from qdrant_client.http.models import QueryResponse


class AsyncCsrQdrant:
    """See `CsrQdrant`; encoding happens in threads, so that the event loop goes on meanwhile.

    At most `concurrency` writes are encoded or under way at once; who calls for more waits. An
    embedder is asked for one call's texts at a time, since few of them bear threads.
    """

    def __init__(
        self,
        client: "AsyncQdrantClient",
        encoder: Encoder,
        *,
        dense_name: str = "",
        code_name: str = "csr",
        k: int | None = None,
        keep_dense: bool = True,
        normalise: bool = False,
        embedder: Embedder | None = None,
        concurrency: int = 8,
    ) -> None:
        """Wrap `client`; nothing is sent. `concurrency` bounds the writes, the rest: `CsrQdrant`.

        An object serves one event loop.
        """
        if concurrency < 1:
            raise ConfigError(f"concurrency must be at least 1, got {concurrency}")
        self.client = client
        self.coding = Coding(
            encoder=encoder,
            dense_name=dense_name,
            code_name=code_name,
            k=k,
            keep_dense=keep_dense,
            normalise=normalise,
            embedder=embedder,
        )
        self._writes = asyncio.Semaphore(concurrency)
        self._embedding = asyncio.Lock()

    async def check(self, collection: str) -> None:
        """Raise CsrError if the collection belongs to another encoder or has other settings."""
        info = await self.client.get_collection(collection)
        check_collection(self.coding, info, self.client, collection)

    async def upsert(
        self,
        collection: str,
        points: "Sequence[models.PointStruct]",
        *,
        wait: bool = True,
        **options: Any,
    ) -> "models.UpdateResult":
        """Write points with the codes of their dense vectors; see `CsrQdrant.upsert`."""
        async with self._writes:
            coded = await asyncio.to_thread(coded_points, self.coding, points)
            with span("upsert", points=len(coded)):
                return await self.client.upsert(collection, coded, wait=wait, **options)

    async def update_vectors(
        self,
        collection: str,
        points: "Sequence[models.PointVectors]",
        *,
        wait: bool = True,
        **options: Any,
    ) -> "models.UpdateResult":
        """Change vectors of points; a new dense vector brings its code. See `upsert`."""
        async with self._writes:
            coded = await asyncio.to_thread(coded_vectors, self.coding, points)
            with span("upsert", points=len(coded)):
                return await self.client.update_vectors(collection, coded, wait=wait, **options)

    async def query(
        self, collection: str, query: Query, **options: Unpack[requests.QueryOptions]
    ) -> "QueryResponse":
        """Return the hits of a text, a vector (d,) or a code; see `CsrQdrant.query`."""
        batch = await self._vectors(as_batch(query))
        arguments = await asyncio.to_thread(requests.one_query, self.coding, batch, options)
        if arguments is None:
            return requests.no_hits()
        with span("search", **requests.sizes(options)):
            return await self.client.query_points(collection, **arguments)

    async def query_batch(
        self, collection: str, queries: Queries, **options: Unpack[requests.QueryOptions]
    ) -> "list[QueryResponse]":
        """Return the hits of each of some texts, vectors (m, d) or codes; see `query`."""
        vectors = await self._vectors(queries)
        batch = await asyncio.to_thread(requests.batch_request, self.coding, vectors, options)
        answers = []
        if batch.requests:
            with span("search", **requests.sizes(options, len(batch.requests))):
                answers = await self.client.query_batch_points(
                    collection, batch.requests, **batch.options
                )
        return requests.spread(answers, batch)

    async def query_groups(
        self,
        collection: str,
        query: Query,
        group_by: str,
        *,
        group_size: int = 3,
        **options: Unpack[requests.QueryOptions],
    ) -> "models.GroupsResult":
        """Return the best `limit` groups of points that share the payload field `group_by`."""
        batch = await self._vectors(as_batch(query))
        arguments = await asyncio.to_thread(
            requests.grouped_query, self.coding, batch, group_by, group_size, options
        )
        if arguments is None:
            return requests.no_groups()
        with span("search", **requests.sizes(options)):
            return await self.client.query_points_groups(collection, **arguments)

    async def _vectors(self, queries: Queries) -> Queries:
        """Return texts as vectors, other queries as they are."""
        if not are_texts(queries):
            return queries
        async with self._embedding:
            return await asyncio.to_thread(requests.embedded, self.coding, queries)
