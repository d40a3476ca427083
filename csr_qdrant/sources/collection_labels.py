"""Labels in the payload of points: a line of JSON a row, and numbers made of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from csr_qdrant.errors import CsrError
from csr_qdrant.ids import PointId


def written_labels(
    ids: Sequence[PointId], payloads: Sequence[Mapping[str, Any]], field: str, location: str
) -> bytes:
    """Return one line a point: its label in `field`, `null` where it has none.

    A field that is missing, null or an empty text is no label. Raises CsrError, with the point's
    id, for a label that is neither an integer nor a text.
    """
    lines: list[str] = []
    for point, payload in zip(ids, payloads, strict=True):
        label = _label(payload, field)
        if label is not None and (not isinstance(label, str | int) or isinstance(label, bool)):
            raise CsrError(
                f"point {point} of {location} has {label!r} in {field!r}, labels are integers or "
                "texts: choose another field"
            )
        lines.append(json.dumps(None if label == "" else label) + "\n")
    return "".join(lines).encode()


def _label(payload: Mapping[str, Any], field: str) -> Any:
    """Return the value of a field, which may be nested: `meta.topic`, as Qdrant writes it."""
    if field in payload:
        return payload[field]
    value: Any = payload
    for part in field.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def read_numbered(path: Path, rows: int) -> npt.NDArray[np.float64]:
    """Return a number for each label in the order in which they appear, NaN for none, (rows,)."""
    numbers: dict[Any, int] = {}
    labels = np.full(rows, np.nan)
    with path.open("rb") as file:
        for row, line in zip(range(rows), file, strict=False):
            label = json.loads(line)
            if label is not None:
                labels[row] = numbers.setdefault(label, len(numbers))
    return labels
