"""What a store is: points with codes, kept and searched by one of Qdrant's engines."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import ConfigError
from csr_qdrant.ids import PointId

Datatype = Literal["f32", "f16", "u8"]
Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Schema:
    """The vectors of a collection: codes always, dense vectors if they are kept for rescoring.

    An attached collection is somebody else's, to which codes were added: it may hold more vectors
    than are named here, and only the codes may be written.
    """

    h: int
    datatype: Datatype = "f32"  # of the values in the sparse index
    dense_dim: int | None = None  # None: no dense vectors are kept
    dense_datatype: Literal["f32", "f16"] = "f32"
    code_name: str = "csr"
    dense_name: str = "dense"  # empty, in an attached collection: the unnamed vector
    attached: bool = False
    unit_norm: bool = False  # codes are of vectors at norm 1, as a collection by cosine keeps them

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.datatype not in ("f32", "f16", "u8"):
            raise ConfigError(f"datatype must be f32, f16 or u8, got {self.datatype!r}")
        unnamed = not self.dense_name and not self.attached
        if self.code_name == self.dense_name or not self.code_name or unnamed:
            raise ConfigError("codes and dense vectors need two different, non-empty vector names")

    def to_json(self) -> Json:
        """Return plain values; older releases know all that stand in a collection of our own."""
        values = asdict(self)
        if not self.attached:
            del values["attached"], values["unit_norm"]
        return values

    @property
    def vector_names(self) -> list[str]:
        """Names of the codes and of the dense vectors, if they are kept."""
        return [self.code_name, *([self.dense_name] if self.dense_dim is not None else [])]


@dataclass(frozen=True, slots=True)
class PointBatch:
    """Points to write; ids repeated within a batch are the caller's mistake."""

    ids: Sequence[PointId]
    codes: SparseCodes  # (n, h), normalised; a row without latents is stored without a code
    dense: npt.NDArray[np.float32] | None  # (n, d)
    payloads: Sequence[Mapping[str, Any]]

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.ids)


class StoredPoint(NamedTuple):
    """A point as it is stored."""

    id: PointId
    payload: Json
    code: tuple[list[int], list[float]] | None  # (indices, values)
    dense: list[float] | None  # as the engine keeps it for cosine: at L2 norm 1


class Hit(NamedTuple):
    """One search result."""

    id: PointId
    score: float
    payload: Json


class StoreInfo(NamedTuple):
    """An engine's own counts, for reports; None where an engine does not tell."""

    points: int
    segments: int | None
    indexed_vectors: int | None  # vectors of any name that an index holds


class Group(NamedTuple):
    """Search results that share a value of a payload field."""

    key: Any
    hits: list[Hit]  # best first


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """Another vector of the collection, whose hits are fused with those by code."""

    method: Literal["rrf", "dbsf"]
    name: str  # of the vector; empty: the unnamed one
    queries: npt.NDArray[np.float32] | SparseCodes  # one for each query by code
    candidates: int  # hits that each part brings


@dataclass(frozen=True, kw_only=True)
class Search:
    """Queries that share their settings; all of them are answered by one call to the engine.

    With `dense` queries, the `candidates` best hits by code are scored anew by the cosine of the
    dense vectors, within the same call.
    """

    codes: SparseCodes  # (m, h), normalised, every row with at least one latent
    limit: int
    filter: Json | None = None  # Qdrant's filter in its JSON form, on stored payload and point ids
    dense: npt.NDArray[np.float32] | None = None  # (m, d)
    candidates: int = 0
    fusion: Fusion | None = None  # with what comes of codes and dense vectors
    payload: bool | list[str] = True  # True: all keys; a list: these keys


class Store(Protocol):
    """One collection in an engine. Errors of the engine arrive as CsrError."""

    @property
    def location(self) -> str:
        """Where the collection is, for messages."""

    @property
    def schema(self) -> Schema:
        """The vectors that the collection holds."""

    def metadata(self) -> Json:
        """Return what was stored beside the points."""

    def write_metadata(self, key: str, value: Any) -> None:
        """Store a JSON value under `key` beside the points; None removes the key."""

    def upsert(self, points: PointBatch) -> None:
        """Write points; those with a known id are replaced."""

    def search(self, request: Search) -> list[list[Hit]]:
        """Return the hits of each query, best first, at most `limit`."""

    def search_groups(self, request: Search, field: str, size: int) -> list[list[Group]]:
        """Return each query's `limit` best groups of at most `size` hits, one call a query.

        Points without the payload `field` are left out. Raises ConfigError where the engine
        cannot group.
        """

    def delete(self, ids: Sequence[PointId]) -> None:
        """Delete points; unknown ids are ignored."""

    def count(self, filter: Json | None = None) -> int:
        """Return the exact number of points."""

    def retrieve(self, ids: Sequence[PointId]) -> list[StoredPoint]:
        """Return the points that exist, with payload and vectors, in any order."""

    def scroll(
        self, limit: int, offset: PointId | None = None
    ) -> tuple[list[StoredPoint], PointId | None]:
        """Return up to `limit` points by rising id from `offset` on, and the next offset."""

    def info(self) -> StoreInfo:
        """Return the engine's own counts."""

    def flush(self) -> None:
        """Make everything written so far durable."""

    def optimise(self) -> None:
        """Build the indexes now, where the engine leaves that to its user."""

    def close(self) -> None:
        """Release the engine; the store cannot be used afterwards."""
