"""What it takes to write codes into a collection of somebody else's, and nothing besides."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from csr_qdrant.codes import SparseCodes
from csr_qdrant.ids import PointId
from csr_qdrant.stores.base import Datatype, Json, Schema
from csr_qdrant.stores.layout import Layout
from csr_qdrant.stores.records import F32, named_vectors, packed, plain_id

Code = tuple[list[int], list[float]]  # indices and values


class CodedPoint(NamedTuple):
    """A point as the writer sees it; its payload is not read."""

    id: PointId
    dense: F32 | None  # (d,); None: the point has lost the vector meanwhile
    code: Code | None  # None: it has none


class Refused(NamedTuple):
    """A point whose code the engine would not take."""

    id: PointId
    reason: str


class OpenCollection(Protocol):
    """A collection of anybody's that is open for writing. Errors arrive as CsrError."""

    @property
    def location(self) -> str:
        """Where the collection is, for messages and for telling it again; never a key."""

    @property
    def folder(self) -> Path | None:
        """Where an encoder may be kept beside the points; None: nowhere."""

    @property
    def threads(self) -> int:
        """How many threads may write at a time with profit."""

    def layout(self) -> Layout:
        """Return the vectors that the collection holds now."""

    def schema(self) -> Schema | None:
        """Return what csr-qdrant recorded of the collection, None if it never did."""

    def metadata(self) -> Json:
        """Return what csr-qdrant stored beside the points."""

    def write_metadata(self, key: str, value: Any) -> None:
        """Store a JSON value under `key` beside the points, after `record`; None removes it."""

    def insist(self, on: bool) -> None:
        """Go on asking while the engine is busy or away, as at first, or ask only once.

        From any thread: with False, those that wait for another try wake up and make their last.
        """

    def flush(self) -> None:
        """Make everything written so far durable."""

    def optimise(self) -> None:
        """Build the indexes now, where the engine leaves that to its user."""

    def close(self) -> None:
        """Release the engine; nothing else may be called afterwards."""


class CodeWriter(OpenCollection, Protocol):
    """Writes codes into one collection.

    Payloads and other vectors are never written. Ids that are gone are passed over.
    """

    @property
    def exclusive(self) -> bool:
        """Whether nobody else can write to the collection while this is open."""

    def check_features(self) -> None:
        """Raise CsrError if the engine cannot add a vector name to an existing collection."""

    def record(self, schema: Schema, metadata: Json) -> None:
        """Record that the codes of `schema` belong to the collection, with `metadata`."""

    def forget(self) -> None:
        """Remove all that csr-qdrant stored beside the points."""

    def add_name(self, name: str, datatype: Datatype) -> None:
        """Add the sparse vector `name`, which no point has yet; nothing if it is there."""

    def remove_name(self, name: str) -> None:
        """Remove the sparse vector `name` from all points; nothing if it is not there."""

    def count(self, having: str, lacking: str | None = None) -> int:
        """Return the exact number of points with the one vector and without the other."""

    def page(
        self, dense: str, code: str, limit: int, offset: PointId | None, *, lacking: bool
    ) -> tuple[list[CodedPoint], PointId | None]:
        """Return up to `limit` points with `dense` by rising id from `offset` on.

        With `lacking`, only points without `code`. Beside the points stands the next offset, None
        at the end.
        """

    def retrieve(self, dense: str, code: str, ids: Sequence[PointId]) -> list[CodedPoint]:
        """Return the points that exist, in any order."""

    def write(
        self, name: str, ids: Sequence[PointId], codes: SparseCodes, *, only_new: bool
    ) -> list[Refused]:
        """Write codes, (n, h) without empty rows, of points that exist; return those refused.

        With `only_new`, points that have got a code meanwhile keep it.
        """

    def remove(self, name: str, ids: Sequence[PointId]) -> None:
        """Remove the codes of points."""

    def remove_orphans(self, dense: str, name: str) -> None:
        """Remove the codes of points that have no vector `dense`."""


def coded_point(record: Any, dense: str, code: str) -> CodedPoint:
    """Return an engine's record."""
    vectors = named_vectors(record)
    row, stored = vectors.get(dense), vectors.get(code)
    return CodedPoint(
        plain_id(record.id),
        None if row is None else packed(row),
        None if stored is None else (stored.indices, stored.values),
    )
