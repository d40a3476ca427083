"""How many points to read at a time: as many as memory bears."""

from collections.abc import Sequence
from typing import Any

from csr_qdrant.deployment.attach_passes import PAGE_VALUES
from csr_qdrant.stores.whole_points import Vector, WholePoint

FIRST = 32  # points of a first page, before it is known how large they are
FIRST_MULTI = 16  # of multivectors, which have 1000 rows for a page of text
PAYLOAD_BYTES = 8  # of payload as text take about as much memory as a number of a vector


class PageSize:
    """The size of pages of points, by what those before them held."""

    def __init__(self, most: int, *, multi: bool) -> None:
        """Begin small; no page is to have more than `most` points."""
        self._most = most
        self.limit = min(most, FIRST_MULTI if multi else FIRST)

    def saw(self, points: Sequence[WholePoint]) -> None:
        """Adapt to the points of a page; pages shrink at once and grow step by step."""
        if points:
            fitting = PAGE_VALUES * len(points) // max(1, sum(map(_values, points)))
            self.limit = max(1, min(self._most, fitting, 2 * self.limit))


def _values(point: WholePoint) -> int:
    payload = len(str(point.payload)) // PAYLOAD_BYTES
    return payload + sum(map(_count, point.vectors.values()))


def _count(vector: Vector) -> int:
    rows: Any = vector  # the two lists of a sparse vector are rows here, too
    return sum(map(len, rows)) if rows and not isinstance(rows[0], float) else len(rows)
