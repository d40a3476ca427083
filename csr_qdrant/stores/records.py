"""What both engines' records have in common, as plain values."""

from collections.abc import Mapping, Sequence
from functools import cache
from struct import Struct
from typing import Any

import numpy as np
import numpy.typing as npt

from csr_qdrant.ids import PointId
from csr_qdrant.stores.base import Schema, StoredPoint

F32 = npt.NDArray[np.float32]


def stored_point(record: Any, schema: Schema) -> StoredPoint:
    """Return an engine's record as a stored point."""
    vectors = named_vectors(record)
    code = vectors.get(schema.code_name)
    return StoredPoint(
        plain_id(record.id),
        record.payload or {},
        None if code is None else (code.indices, code.values),
        vectors.get(schema.dense_name),
    )


def named_vectors(record: Any) -> Mapping[str, Any]:
    """Return a record's vectors by name; engines give a lone unnamed one bare."""
    found = record.vector  # once: the embedded engine makes new lists at each access
    if found is None:
        return {}
    return found if isinstance(found, Mapping) else {"": found}


def packed(values: Sequence[float]) -> F32:
    """Return numbers as a float32 row, four times as fast as numpy makes one of a list.

    A list of Python's numbers takes eight times as much memory, so it should not live for long.
    """
    try:
        return np.frombuffer(_floats(len(values)).pack(*values), np.float32)
    except OverflowError:  # beyond float32: an infinity, as numpy has it
        with np.errstate(over="ignore"):
            return np.array(values, np.float64).astype(np.float32)


@cache
def _floats(count: int) -> Struct:
    return Struct(f"{count}f")


def plain_id(point: Any) -> PointId:
    """Return ids as they are everywhere else: UUIDs are canonical strings."""
    return point if isinstance(point, int) else str(point)
