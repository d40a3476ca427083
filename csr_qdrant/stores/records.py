"""What both engines' records have in common, as plain values."""

from collections.abc import Mapping
from typing import Any

from csr_qdrant.ids import PointId
from csr_qdrant.stores.base import Schema, StoredPoint


def stored_point(record: Any, schema: Schema) -> StoredPoint:
    """Return an engine's record as a stored point."""
    # Engines give a lone unnamed vector bare and others by name.
    bare = {} if record.vector is None else {"": record.vector}
    vectors = record.vector if isinstance(record.vector, Mapping) else bare
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
