"""Codes on their way into a server's points, whatever single points it finds fault with."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from qdrant_client import QdrantClient, models

from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import CsrError
from csr_qdrant.ids import PointId
from csr_qdrant.stores.checks import check_point_id
from csr_qdrant.stores.records import plain_id
from csr_qdrant.stores.server_errors import is_gone, is_worth_splitting, reason
from csr_qdrant.stores.server_limits import at_most
from csr_qdrant.stores.server_points import REQUEST_BYTES, REQUEST_POINTS
from csr_qdrant.stores.writing import Refused

POINT_BYTES = 120  # id, name and braces
LATENT_BYTES = 35  # a float32 and an index as JSON, at most
GONE_ROUNDS = 10  # points of one request that are deleted again and again while it is sent


class _Split(CsrError):
    """A request that is too large, or that holds something the server finds fault with."""


class _Gone(CsrError):
    """A request with points that are not there any more."""


class CodeUpdates:
    """Writes codes of existing points, split where the server asks for it.

    A request that is too large is halved; one whose content is refused, too, down to the point at
    fault; one with points that are gone is sent again without them.
    """

    def __init__(
        self,
        client: QdrantClient,
        collection: str,
        name: str,
        call: Callable[[Callable[[], Any]], Any],
        *,
        only_new: bool,
        limit: int | None = None,
    ) -> None:
        """Write under the vector `name`, at most `limit` points a request.

        `call` runs a function until it succeeds or fails for good.
        """
        self.gone = 0  # points that were not there, so far
        self._limit = at_most(REQUEST_POINTS, limit)
        self._client = client
        self._collection = collection
        self._name = name
        self._call = call
        self._condition: models.Filter | None = None
        if only_new:  # whoever wrote a code since it was found lacking knew better
            having = models.HasVectorCondition(has_vector=name)
            self._condition = models.Filter(must_not=[having])

    def write(self, ids: Sequence[PointId], codes: SparseCodes) -> list[Refused]:
        """Write the codes; return the points that the server refused by themselves."""
        refused: list[Refused] = []
        for request in self._requests(ids, codes):
            refused += self._send(request)
        return refused

    def _requests(
        self, ids: Sequence[PointId], codes: SparseCodes
    ) -> Iterator[list[models.PointVectors]]:
        request: list[models.PointVectors] = []
        size = 0
        for point, (indices, values) in zip(ids, codes.to_lists(), strict=True):
            more = POINT_BYTES + LATENT_BYTES * len(indices)
            if request and (size + more > REQUEST_BYTES or len(request) == self._limit):
                yield request
                request, size = [], 0
            # The constructors' checks are guarantees of SparseCodes already.
            code = models.SparseVector.model_construct(indices=indices, values=values)
            vector: Any = {self._name: code}
            request.append(models.PointVectors(id=check_point_id(point), vector=vector))
            size += more
        if request:
            yield request

    def _send(self, points: list[models.PointVectors]) -> list[Refused]:
        for _ in range(GONE_ROUNDS):
            if not points:
                return []
            try:
                self._call(lambda sent=points: self._update(sent))  # type: ignore[misc]
                return []
            except _Split as error:
                return self._halves(points, str(error))
            except _Gone:
                existing = self._existing(points)
                self.gone += len(points) - len(existing)
                points = existing
        return [Refused(plain_id(each.id), "it comes and goes") for each in points]

    def _halves(self, points: list[models.PointVectors], reason: str) -> list[Refused]:
        if len(points) == 1:
            return [Refused(plain_id(points[0].id), reason)]
        middle = len(points) // 2
        return self._send(points[:middle]) + self._send(points[middle:])

    def _update(self, points: list[models.PointVectors]) -> None:
        try:
            self._client.update_vectors(
                self._collection, points, wait=True, update_filter=self._condition
            )
        except Exception as error:  # each part of the client raises types of its own
            if is_gone(error):
                raise _Gone from None
            if is_worth_splitting(error):
                key = self._client.init_options.get("api_key")
                raise _Split(reason(error, key)) from None
            raise

    def _existing(self, points: list[models.PointVectors]) -> list[models.PointVectors]:
        ids = [each.id for each in points]
        found = self._call(
            lambda: self._client.retrieve(
                self._collection, ids, with_payload=False, with_vectors=False
            )
        )
        known = {plain_id(record.id) for record in found}
        return [each for each in points if plain_id(each.id) in known]
