"""Reads any collection on a Qdrant server or cluster, through `qdrant_client`."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from qdrant_client import QdrantClient, models

from csr_qdrant.errors import CsrError
from csr_qdrant.ids import PointId
from csr_qdrant.stores import server_config as config
from csr_qdrant.stores.checks import check_point_id
from csr_qdrant.stores.layout import Layout
from csr_qdrant.stores.reading import ReadPoint, ScoredId, read_point
from csr_qdrant.stores.records import plain_id
from csr_qdrant.stores.server_errors import RetryPolicy
from csr_qdrant.stores.server_limits import at_most
from csr_qdrant.stores.server_open import OnServer

# A whole collection takes minutes to read: worth waiting for a server that is busy for a while.
PATIENT = RetryPolicy(attempts=8, first_s=0.5, longest_s=30)


class ServerReader(OnServer):
    """One collection on a server, opened for reading. See `PointReader` for the methods."""

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
        if not reader._exists():
            raise CsrError(f"there is no {reader.location}: check the name and the URL")
        return reader

    def layout(self) -> Layout:
        """Return the vectors that the collection holds."""
        return config.layout(self._info())

    def count(self, vector: str) -> int:
        """Return the exact number of points that have this vector."""
        return self._count(_having(vector))

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


def _having(vector: str) -> models.Filter:
    return models.Filter(must=[models.HasVectorCondition(has_vector=vector)])
