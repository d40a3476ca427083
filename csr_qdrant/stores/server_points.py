"""Points on their way to and from a server: in requests that it accepts."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from qdrant_client import models

from csr_qdrant.errors import CsrError
from csr_qdrant.ids import PointId
from csr_qdrant.stores.base import PointBatch, Schema, StoredPoint

# A server takes 32 MB a request by default and indexes best in small batches.
REQUEST_BYTES = 8 * 2**20
REQUEST_POINTS = 256
# A float32 as JSON has up to 20 digits, sign and comma; an index up to 10 and a comma.
_FLOAT_BYTES = 24
_LATENT_BYTES = _FLOAT_BYTES + 11
_POINT_BYTES = 120  # id and braces


def points_in_requests(points: PointBatch, schema: Schema) -> Iterator[list[models.PointStruct]]:
    """Yield the points in lists that stay below the limits of one request.

    A point that is larger by itself travels alone. Raises CsrError for a payload that is no JSON,
    before it yields anything.
    """
    payload_bytes = list(map(_json_bytes, points.ids, points.payloads))
    request: list[models.PointStruct] = []
    size = 0
    for row, (indices, values) in enumerate(points.codes.to_lists()):
        vectors: dict[str, Any] = {}
        if indices:
            # The constructor's checks are guarantees of SparseCodes already.
            code = models.SparseVector.model_construct(indices=indices, values=values)
            vectors[schema.code_name] = code
        if points.dense is not None:
            vectors[schema.dense_name] = points.dense[row].tolist()
        point, payload = points.ids[row], dict(points.payloads[row])
        bytes_more = _POINT_BYTES + _LATENT_BYTES * len(indices) + payload_bytes[row]
        bytes_more += _FLOAT_BYTES * (schema.dense_dim or 0)
        if request and (size + bytes_more > REQUEST_BYTES or len(request) == REQUEST_POINTS):
            yield request
            request, size = [], 0
        request.append(models.PointStruct(id=point, vector=vectors, payload=payload))
        size += bytes_more
    if request:
        yield request


def stored_point(record: models.Record, schema: Schema) -> StoredPoint:
    """Return a server's record as a stored point."""
    vectors: Any = record.vector if isinstance(record.vector, Mapping) else {}
    code = vectors.get(schema.code_name)
    return StoredPoint(
        plain_id(record.id),
        record.payload or {},
        None if code is None else (code.indices, code.values),
        vectors.get(schema.dense_name),
    )


def plain_id(point: Any) -> PointId:
    """Return ids as they are everywhere else: UUIDs are canonical strings."""
    return point if isinstance(point, int) else str(point)


def _json_bytes(point: PointId, payload: Mapping[str, Any]) -> int:
    if not payload:
        return 2
    try:
        # Escaped to ASCII, so at least as long as what is sent.
        return len(json.dumps(dict(payload), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise CsrError(f"point {point!r} cannot be stored: {error}") from error
