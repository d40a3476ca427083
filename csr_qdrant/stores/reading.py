"""What it takes to read points of any collection, csr-qdrant's own or not, without changing it."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from csr_qdrant.ids import PointId
from csr_qdrant.stores.base import Json
from csr_qdrant.stores.layout import Layout
from csr_qdrant.stores.records import F32, named_vectors, packed, plain_id


class ReadPoint(NamedTuple):
    """A point as it was read."""

    id: PointId
    vector: F32 | None  # (d,); None where it was not asked for, or the point has none
    payload: Json


class ScoredId(NamedTuple):
    """A point that a search found."""

    id: PointId
    score: float  # in the collection's own measure: for distances, less is better


class PointReader(Protocol):
    """Reads one collection in an engine, and never writes. Errors arrive as CsrError."""

    @property
    def location(self) -> str:
        """Where the collection is, for messages; never a key or a password."""

    def layout(self) -> Layout:
        """Return the vectors that the collection holds."""

    def count(self, vector: str) -> int:
        """Return the exact number of points that have this vector."""

    def page(
        self, vector: str, limit: int, offset: PointId | None, fields: Sequence[str]
    ) -> tuple[list[ReadPoint], PointId | None]:
        """Return up to `limit` points with this vector by rising id from `offset` on.

        Of the payload only `fields` are read. Beside the points stands the next offset, None at
        the end.
        """

    def ids(
        self, vector: str, limit: int, offset: PointId | None
    ) -> tuple[list[PointId], PointId | None]:
        """Return the ids of such a page, and the next offset."""

    def retrieve(
        self, vector: str, ids: Sequence[PointId], fields: Sequence[str]
    ) -> list[ReadPoint]:
        """Return the points that exist, in any order."""

    def nearest(
        self, vector: str, queries: npt.NDArray[np.float32], limit: int
    ) -> list[list[ScoredId]]:
        """Return the exactly nearest points of each of (m, d) queries, best first, from one call.

        No graph is used, so this takes as long as looking at every point.
        """

    def close(self) -> None:
        """Release the engine; the reader cannot be used afterwards."""


def read_point(record: Any, vector: str) -> ReadPoint:
    """Return an engine's record as a point that was read."""
    row = named_vectors(record).get(vector)
    return ReadPoint(
        plain_id(record.id), None if row is None else packed(row), record.payload or {}
    )
