"""A collection on a Qdrant server or cluster, through `qdrant_client`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self

from qdrant_client import QdrantClient, models

from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.ids import PointId
from csr_qdrant.stores import server_config as config
from csr_qdrant.stores.base import (
    Group,
    Hit,
    Json,
    PointBatch,
    Schema,
    Search,
    StoredPoint,
    StoreInfo,
)
from csr_qdrant.stores.checks import check_point_id, check_points, check_search
from csr_qdrant.stores.filters import client_filter
from csr_qdrant.stores.records import plain_id, stored_point
from csr_qdrant.stores.server_config import connect
from csr_qdrant.stores.server_errors import RetryPolicy
from csr_qdrant.stores.server_limits import at_most
from csr_qdrant.stores.server_open import OnServer
from csr_qdrant.stores.server_points import points_in_requests
from csr_qdrant.stores.server_queries import group_arguments, server_queries

__all__ = ["RetryPolicy", "ServerStore", "connect"]

# A write goes on for minutes; who waits for an answer wants to know sooner that there is none.
WRITES = RetryPolicy(attempts=10, first_s=0.5, longest_s=30)
READS = RetryPolicy(attempts=3, first_s=0.25, longest_s=2)
IDS_PER_REQUEST = 10_000


class ServerStore(OnServer):
    """One collection on a server. See `Store` for the methods.

    Writes wait until the server keeps them, and are repeated as `writes` says while it is busy or
    away; all of them can be repeated without harm. Nothing here ever deletes a collection.
    """

    def __init__(
        self,
        client: QdrantClient,
        name: str,
        schema: Schema,
        *,
        writes: RetryPolicy = WRITES,
        owns_client: bool = False,
    ) -> None:
        """Wrap a collection that is known to exist; use `create` or `open`."""
        super().__init__(client, name, READS, owns_client=owns_client)
        self._schema = schema
        self._writes = writes

    @classmethod
    def create(
        cls,
        client: QdrantClient,
        name: str,
        schema: Schema,
        metadata: Mapping[str, Any] | None = None,
        *,
        shard_number: int | None = None,
        replication_factor: int | None = None,
        writes: RetryPolicy = WRITES,
        owns_client: bool = False,
    ) -> Self:
        """Make the empty collection `name`; `owns_client` says that `close` closes the client too.

        Raises ConfigError if the collection exists, CsrError for a server below 1.16.
        """
        store = cls(client, name, schema, writes=writes, owns_client=owns_client)
        if store._exists():
            raise ConfigError(f"{store.location} already exists: choose another name or open it")
        recorded = config.first_metadata(schema, metadata or {})
        ask = partial(
            client.create_collection,
            name,
            vectors_config=config.dense_config(schema),
            sparse_vectors_config=config.sparse_config(schema),
            shard_number=shard_number,
            replication_factor=replication_factor,
            metadata=recorded,
        )
        try:
            store._call(ask, writes)
        except CsrError:
            # An answer may be lost on its way, and then the second try finds it there already.
            if not store._exists() or store._info().config.metadata != recorded:
                raise
        return store

    @classmethod
    def open(
        cls,
        client: QdrantClient,
        name: str,
        *,
        writes: RetryPolicy = WRITES,
        owns_client: bool = False,
    ) -> Self:
        """Open the collection `name`; `owns_client` says that `close` closes the client too.

        Raises CsrError if there is none, if csr-qdrant did not make it, or for a server below 1.16.
        """
        store = cls(client, name, Schema(h=1), writes=writes, owns_client=owns_client)
        if not store._exists():
            raise CsrError(f"there is no {store.location}: check the name or index a source there")
        store._schema = config.read_schema(store._info(), store.location)
        return store

    @property
    def schema(self) -> Schema:
        """The vectors that the collection holds."""
        return self._schema

    def metadata(self) -> Json:
        """Return what was stored beside the points."""
        return config.own_metadata(self._info())

    def write_metadata(self, key: str, value: Any) -> None:
        """Store a JSON value under `key` beside the points; None removes the key."""
        change = {f"{config.META_KEY}.{key}": value}  # the server merges by key and drops nulls
        self._write(lambda: self._client.update_collection(self._name, metadata=change))

    def upsert(self, points: PointBatch) -> None:
        """Write points; those with a known id are replaced. Kept by the server on return.

        A batch with a payload that cannot be stored is refused before anything is sent.
        """
        check_points(points, self._schema)
        for request in points_in_requests(points, self._schema, self._limits.update):
            self._write(partial(self._client.upsert, self._name, request, wait=True))

    def search(self, request: Search) -> list[list[Hit]]:
        """Return the hits of each query, best first, at most `limit`."""
        check_search(request, self._schema)
        queries = server_queries(request, self._schema)
        if not queries:
            return []
        answers = self._call(lambda: self._client.query_batch_points(self._name, queries))
        return [_hits(answer.points) for answer in answers]

    def search_groups(self, request: Search, field: str, size: int) -> list[list[Group]]:
        """Return each query's `limit` best groups of at most `size` hits, one call a query."""
        check_search(request, self._schema)
        found = []
        for arguments in group_arguments(request, self._schema):
            ask = partial(
                self._client.query_points_groups,
                self._name,
                group_by=field,
                group_size=size,
                **arguments,
            )
            groups = self._call(ask).groups
            found.append([Group(group.id, _hits(group.hits)) for group in groups])
        return found

    def delete(self, ids: Sequence[PointId]) -> None:
        """Delete points; unknown ids are ignored."""
        known: list[Any] = [check_point_id(point) for point in ids]
        for start in range(0, len(known), IDS_PER_REQUEST):
            some = models.PointIdsList(points=known[start : start + IDS_PER_REQUEST])
            self._write(partial(self._client.delete, self._name, some, wait=True))

    def count(self, filter: Json | None = None) -> int:
        """Return the exact number of points."""
        return self._count(client_filter(filter))

    def retrieve(self, ids: Sequence[PointId]) -> list[StoredPoint]:
        """Return the points that exist, with payload and vectors, in any order."""
        known = [check_point_id(point) for point in ids]
        found = self._call(
            lambda: self._client.retrieve(
                self._name, known, with_payload=True, with_vectors=self._schema.vector_names
            ),
        )
        return [stored_point(record, self._schema) for record in found]

    def scroll(
        self, limit: int, offset: PointId | None = None
    ) -> tuple[list[StoredPoint], PointId | None]:
        """Return up to `limit` points by rising id from `offset` on, and the next offset."""
        start = None if offset is None else check_point_id(offset)
        found, following = self._call(
            lambda: self._client.scroll(
                self._name,
                limit=at_most(limit, self._limits.page),
                offset=start,
                with_payload=True,
                with_vectors=self._schema.vector_names,
            ),
        )
        points = [stored_point(record, self._schema) for record in found]
        return points, None if following is None else plain_id(following)

    def info(self) -> StoreInfo:
        """Return the server's own counts."""
        info = self._info()
        return StoreInfo(info.points_count or 0, info.segments_count, info.indexed_vectors_count)

    def flush(self) -> None:
        """Do nothing: a write returns only when the server keeps it."""

    def optimise(self) -> None:
        """Do nothing: a server builds its indexes by itself."""

    def _write(self, function: Callable[[], Any]) -> None:
        self._call(function, self._writes)


def _hits(points: Sequence[models.ScoredPoint]) -> list[Hit]:
    return [Hit(plain_id(point.id), point.score, point.payload or {}) for point in points]
