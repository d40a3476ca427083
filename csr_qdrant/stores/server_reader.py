"""Reads any collection on a Qdrant server or cluster, through `qdrant_client`."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
from qdrant_client import QdrantClient, models

from csr_qdrant.closing import Closing
from csr_qdrant.errors import CsrError
from csr_qdrant.ids import PointId
from csr_qdrant.stores import server_config as config
from csr_qdrant.stores.checks import check_point_id
from csr_qdrant.stores.layout import Layout
from csr_qdrant.stores.reading import ReadPoint, ScoredId, read_point
from csr_qdrant.stores.records import plain_id
from csr_qdrant.stores.server_errors import RetryPolicy, server_errors
from csr_qdrant.stores.server_limits import Limits, at_most, exact_count, read_limits

T = TypeVar("T")

# A whole collection takes minutes to read: worth waiting for a server that is busy for a while.
PATIENT = RetryPolicy(attempts=8, first_s=0.5, longest_s=30)


class ServerReader(Closing):
    """One collection on a server, opened for reading. See `PointReader` for the methods."""

    def __init__(
        self, client: QdrantClient, name: str, retries: RetryPolicy, *, owns_client: bool
    ) -> None:
        """Wrap a collection that is known to exist; use `open`."""
        self._client = client
        self._name = name
        self._retries = retries
        self._owns_client = owns_client
        self._closed = False

    @classmethod
    def open(
        cls,
        client: QdrantClient,
        name: str,
        *,
        retries: RetryPolicy = PATIENT,
        owns_client: bool = False,
    ) -> Self:
        """Open the collection `name`; `owns_client` says that `close` closes the client too.

        Raises CsrError if there is none, or for a server below 1.16.
        """
        reader = cls(client, name, retries, owns_client=owns_client)
        reader._call(lambda: config.refuse_old(client))
        if not reader._call(lambda: client.collection_exists(name)):
            raise CsrError(f"there is no {reader.location}: check the name and the URL")
        return reader

    @property
    def location(self) -> str:
        """Name of the collection and the server's address, without a password."""
        return f"collection {self._name!r} {config.address(self._client)}"

    def layout(self) -> Layout:
        """Return the vectors that the collection holds."""
        return config.layout(self._info())

    def count(self, vector: str) -> int:
        """Return the exact number of points that have this vector."""
        condition = _having(vector)
        return exact_count(self._client, self._name, condition, lambda: self._limits, self._call)

    def page(
        self, vector: str, limit: int, offset: PointId | None, fields: Sequence[str]
    ) -> tuple[list[ReadPoint], PointId | None]:
        """Return up to `limit` points by rising id from `offset` on, and the next offset."""
        records, following = self._scroll(vector, limit, offset, [vector], fields)
        return [read_point(record, vector) for record in records], following

    def ids(
        self, vector: str, limit: int, offset: PointId | None
    ) -> tuple[list[PointId], PointId | None]:
        """Return the ids of up to `limit` points from `offset` on, and the next offset."""
        records, following = self._scroll(vector, limit, offset, False, ())
        return [plain_id(record.id) for record in records], following

    def retrieve(
        self, vector: str, ids: Sequence[PointId], fields: Sequence[str]
    ) -> list[ReadPoint]:
        """Return the points that exist, in any order."""
        known = [check_point_id(point) for point in ids]
        records = self._call(
            lambda: self._client.retrieve(
                self._name, known, with_payload=list(fields) or False, with_vectors=[vector]
            )
        )
        return [read_point(record, vector) for record in records]

    def nearest(
        self, vector: str, queries: npt.NDArray[np.float32], limit: int
    ) -> list[list[ScoredId]]:
        """Return the exactly nearest points of each of (m, d) queries, best first."""
        requests = [
            models.QueryRequest(
                query=row.tolist(),
                using=vector or None,
                limit=limit,
                params=models.SearchParams(exact=True),
            )
            for row in queries
        ]
        answers = self._call(lambda: self._client.query_batch_points(self._name, requests))
        return [[ScoredId(plain_id(p.id), p.score) for p in answer.points] for answer in answers]

    def close(self) -> None:
        """Close the client if the reader owns it; the reader cannot be used afterwards."""
        if self._owns_client and not self._closed:
            self._client.close()
        self._closed = True

    def _scroll(
        self,
        vector: str,
        limit: int,
        offset: PointId | None,
        vectors: bool | list[str],
        fields: Sequence[str],
    ) -> tuple[list[Any], PointId | None]:
        start = None if offset is None else check_point_id(offset)
        records, following = self._call(
            lambda: self._client.scroll(
                self._name,
                scroll_filter=_having(vector),
                limit=at_most(limit, self._limits.page),
                offset=start,
                with_payload=list(fields) or False,
                with_vectors=vectors,
            )
        )
        return records, None if following is None else plain_id(following)

    @cached_property
    def _limits(self) -> Limits:
        return read_limits(self._info())

    def _info(self) -> models.CollectionInfo:
        return self._call(lambda: self._client.get_collection(self._name))

    def _call(self, function: Callable[[], T]) -> T:
        if self._closed:
            raise CsrError(f"{self.location} is closed: open it again")
        with server_errors(self.location, self._client.init_options.get("api_key")):
            return self._retries.call(function)


def _having(vector: str) -> models.Filter:
    return models.Filter(must=[models.HasVectorCondition(has_vector=vector)])
