"""What it takes to copy a collection whole: every vector, the payloads, and how it is set up."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeGuard

from csr_qdrant.ids import PointId
from csr_qdrant.stores.base import Json, Schema
from csr_qdrant.stores.records import plain_id
from csr_qdrant.stores.writing import Code, OpenCollection, Refused

# A dense vector, the rows of a multivector, or indices and values of a sparse one.
Vector = list[float] | list[list[float]] | Code


class WholePoint(NamedTuple):
    """A point with all that it holds."""

    id: PointId
    vectors: Mapping[str, Vector]  # by name, empty for the unnamed one
    payload: Json


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How a collection is configured, in the JSON forms of Qdrant's REST interface."""

    vectors: Mapping[str, Json]  # VectorParams by name, empty for the unnamed one
    sparse: Mapping[str, Json]  # SparseVectorParams by name
    hnsw: Json | None = None
    quantization: Json | None = None
    optimizers: Json | None = None
    server: Json = field(default_factory=dict)  # what only a server has: shards, replicas, log …
    indexes: Mapping[str, Json] = field(default_factory=dict)  # payload indexes by field
    metadata: Json = field(default_factory=dict)  # other people's
    left_out: tuple[str, ...] = ()  # what could not be read or is not taken along, in words


class WholePoints(OpenCollection, Protocol):
    """Reads and writes the points of one collection with all that they hold."""

    def setup(self) -> Setup:
        """Return how the collection is configured."""

    def size(self, vector: str | None = None) -> int:
        """Return the exact number of points, or of those with this vector."""

    def points(self, limit: int, offset: PointId | None) -> tuple[list[WholePoint], PointId | None]:
        """Return up to `limit` points by rising id from `offset` on, and the next offset."""

    def ids(self, limit: int, offset: PointId | None) -> tuple[list[PointId], PointId | None]:
        """Return the ids of such a page, and the next offset."""

    def fetch(self, ids: Sequence[PointId]) -> list[WholePoint]:
        """Return the points that exist, in any order."""

    def existing(self, ids: Sequence[PointId]) -> set[PointId]:
        """Return those of the ids that exist."""

    def upsert(self, points: Sequence[WholePoint]) -> list[Refused]:
        """Write points over what is there; return those that the engine refused."""

    def delete(self, ids: Sequence[PointId]) -> None:
        """Delete points; unknown ids are ignored."""

    def ensure_indexes(self, indexes: Mapping[str, Json]) -> None:
        """Make the payload indexes that are not there yet."""


class NewPlace(Protocol):
    """Where a copy is to be, whether it is there yet or not."""

    @property
    def location(self) -> str:
        """As `WholePoints.location` of the collection, once it is there."""

    def exists(self) -> bool:
        """Tell whether something is there; raises ConfigError for what cannot be a target."""

    def open(self) -> WholePoints:
        """Open what is there."""

    def create(
        self,
        setup: Setup,
        schema: Schema,
        metadata: Json,
        fill: Callable[[Path], object] | None,
    ) -> WholePoints:
        """Make an empty collection whose metadata are there from the first moment on.

        `fill` is given a folder to put more into, where the engine has one.
        """

    def left_out(self, setup: Setup) -> list[str]:
        """Return what the engine cannot take over of a set-up, in words."""

    def alias(self, name: str) -> str | None:
        """Return the location of the collection that an alias stands for, None for a free name.

        Raises ConfigError where there are no aliases, or for the name of a collection.
        """

    def aliases(self) -> list[str]:
        """Return the aliases of the target itself; raises CsrError if they cannot be told."""

    def swap(self, name: str) -> None:
        """Let the alias `name` stand for the target from now on, in one step."""

    def wait_ready(self, seconds: float) -> bool:
        """Wait until the engine has built its indexes; False: it is still at it."""


def setting_name(key: str) -> str:
    """Return what to call a setting of `Setup.server`: not all payloads, but where they are."""
    placed = "memory of " if key in ("payload", "id_tracker") else ""
    return placed + key.removesuffix("_config").replace("_", " ")


def whole_point(record: Any) -> WholePoint:
    """Return an engine's record; engines give a lone unnamed vector bare and others by name."""
    found = record.vector
    named = found if isinstance(found, Mapping) else {} if found is None else {"": found}
    vectors: dict[str, Vector] = {
        name: (list(each.indices), list(each.values)) if hasattr(each, "indices") else each
        for name, each in named.items()
    }
    return WholePoint(plain_id(record.id), vectors, record.payload or {})


def is_sparse(vector: Vector) -> TypeGuard[Code]:
    """Tell a sparse vector from the rows of a multivector."""
    return isinstance(vector, tuple)
