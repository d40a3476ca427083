"""Requests of whole points that servers accept: past single bad points, and strict modes."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from qdrant_client import QdrantClient, models

from csr_qdrant.errors import CsrError
from csr_qdrant.stores.checks import check_point_id
from csr_qdrant.stores.server_errors import is_worth_splitting, reason
from csr_qdrant.stores.server_limits import at_most
from csr_qdrant.stores.server_points import REQUEST_BYTES, REQUEST_POINTS
from csr_qdrant.stores.whole_points import Vector, WholePoint, is_sparse
from csr_qdrant.stores.writing import Refused

POINT_BYTES = 120  # id, names and braces
FLOAT_BYTES = 24  # a float32 as JSON with sign and comma, at most
LATENT_BYTES = FLOAT_BYTES + 11


class _Split(CsrError):
    """A request that is too large, or that holds something the server finds fault with."""


def write_points(
    client: QdrantClient,
    collection: str,
    points: Sequence[WholePoint],
    call: Callable[[Callable[[], Any]], Any],
    limit: int | None = None,
) -> list[Refused]:
    """Write points over what is there; return those that the server refused by themselves.

    A request holds `limit` points at most. `call` runs a function until it succeeds or fails for
    good. A request that is too large or whose content is refused is halved, down to the point at
    fault.
    """

    def send(some: Sequence[WholePoint]) -> list[Refused]:
        try:
            call(lambda: _upsert(client, collection, some))
            return []
        except _Split as error:
            if len(some) == 1:
                return [Refused(some[0].id, str(error))]
        middle = len(some) // 2
        return send(some[:middle]) + send(some[middle:])

    requests = _requests(points, at_most(REQUEST_POINTS, limit))
    return [each for request in requests for each in send(request)]


def _requests(points: Sequence[WholePoint], most: int) -> Iterator[list[WholePoint]]:
    """Yield the points in lists that stay below the limits of one request."""
    request: list[WholePoint] = []
    size = 0
    for point in points:
        more = (
            POINT_BYTES + len(json.dumps(point.payload)) + sum(map(_bytes, point.vectors.values()))
        )
        if request and (size + more > REQUEST_BYTES or len(request) == most):
            yield request
            request, size = [], 0
        request.append(point)
        size += more
    if request:
        yield request


def _bytes(vector: Vector) -> int:
    if isinstance(vector, tuple):
        return LATENT_BYTES * len(vector[0])
    rows: Any = vector if vector and isinstance(vector[0], list) else [vector]
    return FLOAT_BYTES * sum(map(len, rows))


def _upsert(client: QdrantClient, collection: str, points: Sequence[WholePoint]) -> None:
    try:
        client.upsert(collection, [_struct(point) for point in points], wait=True)
    except Exception as error:  # each part of the client raises types of its own
        if is_worth_splitting(error):
            raise _Split(reason(error, client.init_options.get("api_key"))) from None
        raise


def _struct(point: WholePoint) -> models.PointStruct:
    vectors: Any = {
        name: models.SparseVector(indices=each[0], values=each[1]) if is_sparse(each) else each
        for name, each in point.vectors.items()
    }
    return models.PointStruct(id=check_point_id(point.id), vector=vectors, payload=point.payload)
