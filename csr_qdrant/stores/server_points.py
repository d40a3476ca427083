"""Points on their way to and from a server: in requests that it accepts."""

from collections.abc import Iterator
from typing import Any

from qdrant_client import models

from csr_qdrant.stores.base import PointBatch, Schema
from csr_qdrant.stores.checks import check_point_id, payload_text
from csr_qdrant.stores.server_limits import at_most

# A server takes 32 MB a request by default and indexes best in small batches.
REQUEST_BYTES = 8 * 2**20
REQUEST_POINTS = 256
# A float32 as JSON has up to 20 digits, sign and comma; an index up to 10 and a comma.
_FLOAT_BYTES = 24
_LATENT_BYTES = _FLOAT_BYTES + 11
_POINT_BYTES = 120  # id and braces


def points_in_requests(
    points: PointBatch, schema: Schema, limit: int | None = None
) -> Iterator[list[models.PointStruct]]:
    """Yield the points in lists that stay below the limits of one request, `limit` points too.

    A point that is larger by itself travels alone. Raises CsrError for an id or a payload
    that cannot be stored, before it yields anything.
    """
    ids = list(map(check_point_id, points.ids))
    # As ASCII, so at least as long as what is sent.
    payload_bytes = [len(payload_text(*row)) for row in zip(ids, points.payloads, strict=True)]
    request: list[models.PointStruct] = []
    size, most = 0, at_most(REQUEST_POINTS, limit)
    for row, (indices, values) in enumerate(points.codes.to_lists()):
        vectors: dict[str, Any] = {}
        if indices:
            # The constructor's checks are guarantees of SparseCodes already.
            code = models.SparseVector.model_construct(indices=indices, values=values)
            vectors[schema.code_name] = code
        if points.dense is not None:
            vectors[schema.dense_name] = points.dense[row].tolist()
        payload = dict(points.payloads[row])
        bytes_more = _POINT_BYTES + _LATENT_BYTES * len(indices) + payload_bytes[row]
        bytes_more += _FLOAT_BYTES * (schema.dense_dim or 0)
        if request and (size + bytes_more > REQUEST_BYTES or len(request) == most):
            yield request
            request, size = [], 0
        request.append(models.PointStruct(id=ids[row], vector=vectors, payload=payload))
        size += bytes_more
    if request:
        yield request
