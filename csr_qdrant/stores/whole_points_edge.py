"""Whole points of a collection of Qdrant Edge: a folder of csr-qdrant's own, or a bare shard."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import qdrant_edge as engine

from csr_qdrant.atomic import replaced_folder
from csr_qdrant.errors import ConfigError
from csr_qdrant.ids import PointId
from csr_qdrant.stores.base import Json, Schema
from csr_qdrant.stores.checks import check_point_id
from csr_qdrant.stores.disk import require_space
from csr_qdrant.stores.edge_folder import (
    DESCRIPTION,
    plain_errors,
    read_user_metadata,
    write_description,
    write_user_metadata,
)
from csr_qdrant.stores.edge_points import known_ids
from csr_qdrant.stores.edge_writer import EdgeCodeWriter
from csr_qdrant.stores.records import plain_id
from csr_qdrant.stores.whole_points import (
    Setup,
    WholePoint,
    is_sparse,
    whole_point,
)
from csr_qdrant.stores.whole_points_edge_setup import (
    edge_config,
    edge_index,
    left_out,
    read_setup,
)
from csr_qdrant.stores.writing import Refused

UPSERT_POINTS = 256  # larger calls gain nothing and hold more of them in memory
VALUE_BYTES = 8  # a number in the log, and in the storage


class EdgePoints(EdgeCodeWriter):
    """One collection in a folder, open in one process at a time. See `WholePoints`."""

    @property
    def location(self) -> str:
        """The whole path of the folder, so that it is told again from anywhere."""
        return str(self._folder.resolve())

    def setup(self) -> Setup:
        """Return how the shard is configured."""
        with plain_errors(self._folder):
            indexes = self._shard.info().payload_schema
        return read_setup(self._shard_folder, indexes, read_user_metadata(self._folder))

    def size(self, vector: str | None = None) -> int:
        """Return the exact number of points, or of those with this vector."""
        if vector is not None:
            return self.count(vector)
        with plain_errors(self._folder):
            return int(self._shard.count(engine.CountRequest(exact=True)))

    def points(self, limit: int, offset: PointId | None) -> tuple[list[WholePoint], PointId | None]:
        """Return up to `limit` points by rising id from `offset` on, and the next offset."""
        records, following = self._scroll(limit, offset, content=True)
        return [whole_point(record) for record in records], following

    def ids(self, limit: int, offset: PointId | None) -> tuple[list[PointId], PointId | None]:
        """Return the ids of such a page, and the next offset."""
        records, following = self._scroll(limit, offset, content=False)
        return [plain_id(record.id) for record in records], following

    def fetch(self, ids: Sequence[PointId]) -> list[WholePoint]:
        """Return the points that exist, in any order."""
        return [whole_point(record) for record in self._retrieve(ids, content=True)]

    def existing(self, ids: Sequence[PointId]) -> set[PointId]:
        """Return those of the ids that exist."""
        return {plain_id(record.id) for record in self._retrieve(ids, content=False)}

    def upsert(self, points: Sequence[WholePoint]) -> list[Refused]:
        """Write points over what is there; return those that the engine cannot hold."""
        refused: list[Refused] = []
        for start in range(0, len(points), UPSERT_POINTS):
            some = points[start : start + UPSERT_POINTS]
            require_space(self._shard_folder, sum(map(_bytes, some)))
            made = []
            for point in some:
                try:
                    made.append(_engine_point(point))
                except (TypeError, ValueError, OverflowError) as error:
                    refused.append(Refused(point.id, str(error)))
            self._update(engine.UpdateOperation.upsert_points(made))
        return refused

    def delete(self, ids: Sequence[PointId]) -> None:
        """Delete points; unknown ids are ignored."""
        self._update(engine.UpdateOperation.delete_points(known_ids(ids)))

    def ensure_indexes(self, indexes: Mapping[str, Json]) -> None:
        """Make the payload indexes that are not there yet."""
        with plain_errors(self._folder):
            there = self._shard.info().payload_schema
        for name, settings in indexes.items():
            if name not in there:
                self._update(engine.UpdateOperation.create_field_index(name, edge_index(settings)))

    def _scroll(
        self, limit: int, offset: PointId | None, *, content: bool
    ) -> tuple[list[Any], PointId | None]:
        request = engine.ScrollRequest(
            offset=None if offset is None else check_point_id(offset),
            limit=limit,
            with_payload=content,
            with_vector=content,
        )
        with plain_errors(self._folder):
            records, following = self._shard.scroll(request)
        return records, None if following is None else plain_id(following)

    def _retrieve(self, ids: Sequence[PointId], *, content: bool) -> list[Any]:
        with plain_errors(self._folder):
            found: list[Any] = self._shard.retrieve(
                known_ids(ids), with_payload=content, with_vector=content
            )
        return found


class EdgePlace:
    """A folder for a copy. See `NewPlace`."""

    def __init__(self, folder: str | Path) -> None:
        """Name the folder; nothing is looked at yet."""
        self._folder = Path(folder)

    @property
    def location(self) -> str:
        """The whole path of the folder."""
        return str(self._folder.resolve())

    def exists(self) -> bool:
        """Tell whether the folder is there; raises ConfigError if it is no collection of ours."""
        if not self._folder.exists():
            return False
        if not (self._folder / DESCRIPTION).is_file():
            raise ConfigError(
                f"{self._folder} exists and is not a collection of csr-qdrant: choose a new folder"
            )
        return True

    def open(self) -> EdgePoints:
        """Open the folder."""
        return EdgePoints.open(self._folder)

    def create(
        self, setup: Setup, schema: Schema, metadata: Json, fill: Callable[[Path], object] | None
    ) -> EdgePoints:
        """Make the folder, which appears whole or not at all."""
        config = edge_config(setup)
        with plain_errors(self._folder), replaced_folder(self._folder) as temporary:
            require_space(temporary.parent)
            (temporary / "shard").mkdir()
            shard = engine.EdgeShard.create(str(temporary / "shard"), config)
            shard.flush()
            shard.close()
            write_description(temporary, schema, metadata)
            write_user_metadata(temporary, setup.metadata)
            if fill is not None:
                fill(temporary)
        return self.open()

    def left_out(self, setup: Setup) -> list[str]:
        """Return what Edge does not have, in words."""
        return left_out(setup)

    def alias(self, name: str) -> str | None:
        """Raise ConfigError: the embedded engine has no aliases."""
        raise ConfigError(f"{self._folder} is a folder, which has no aliases: leave {name!r} out")

    def aliases(self) -> list[str]:
        """Return none."""
        return []

    def swap(self, name: str) -> None:
        """Raise ConfigError as `alias` does."""
        self.alias(name)

    def wait_ready(self, seconds: float) -> bool:
        """Return True: `optimise` blocks until the indexes are built."""
        return True


def _engine_point(point: WholePoint) -> Any:
    vectors: dict[str, Any] = {
        name: engine.SparseVector(*each) if is_sparse(each) else each
        for name, each in point.vectors.items()
    }
    return engine.Point(check_point_id(point.id), vectors, point.payload)


def _bytes(point: WholePoint) -> int:
    """Return about how much disk a point takes at most: the log, and the storage."""
    values = 0
    for vector in point.vectors.values():
        rows: Any = vector
        nested = bool(rows) and isinstance(rows[0], list)
        values += sum(map(len, rows)) if nested else len(rows)
    return 2 * VALUE_BYTES * values + 8 * len(str(point.payload))
