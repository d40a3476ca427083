"""Points on their way to and from the embedded engine."""

from collections.abc import Sequence
from typing import Any

import qdrant_edge as engine

from csr_qdrant.errors import CsrError
from csr_qdrant.ids import PointId
from csr_qdrant.stores.base import Hit, PointBatch, Schema
from csr_qdrant.stores.checks import check_point_id, payload_text
from csr_qdrant.stores.records import plain_id


def engine_points(points: PointBatch, rows: slice, schema: Schema) -> list[Any]:
    """Return some of the points as the engine's; a row without latents goes without a code.

    Raises CsrError for an id or a payload that cannot be stored.
    """
    sparse, name = engine.SparseVector, schema.code_name
    vectors: list[dict[str, Any]] = [
        {name: sparse(indices, values)} if indices else {}
        for indices, values in points.codes[rows].to_lists()
    ]
    if points.dense is not None:
        for named, row in zip(vectors, points.dense[rows].tolist(), strict=True):
            named[schema.dense_name] = row
    ids = points.ids[rows]
    payloads = [p if type(p) is dict else dict(p) for p in points.payloads[rows]]
    try:
        return list(map(engine.Point, ids, vectors, payloads))
    except Exception as error:
        # The engine's words name neither point nor fault: look again, now point by point.
        for point, payload in zip(ids, payloads, strict=True):
            check_point_id(point)
            payload_text(point, payload)
        raise CsrError(f"points cannot be stored: {error}") from error


def bytes_to_write(points: PointBatch) -> int:
    """Return about how much disk an upsert takes at most: the log, and the storage of each part."""
    text = sum(_text_length(value) for payload in points.payloads for value in payload.values())
    dense = 0 if points.dense is None else 4 * points.dense.size
    return 8 * text + 4 * dense + 32 * len(points.codes.values)


def _text_length(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    return len(str(value)) if isinstance(value, list | dict) else 0


def known_ids(ids: Sequence[PointId]) -> list[Any]:
    """Return ids that the engine can look up; raises CsrError for others."""
    return [check_point_id(point) for point in ids]


def hits(found: Sequence[Any]) -> list[Hit]:
    """Return the engine's scored points as hits."""
    # Made as plain tuples are: the named tuple's own constructor takes three times as long, which
    # every search would pay for each of its hits.
    make = tuple.__new__
    return [make(Hit, (plain_id(p.id), p.score, p.payload or {})) for p in found]
