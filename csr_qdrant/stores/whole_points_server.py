"""Whole points of a collection on a Qdrant server or cluster, and the place for a copy on one."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from qdrant_client import QdrantClient, models

from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.ids import PointId
from csr_qdrant.stores import server_config as config
from csr_qdrant.stores.base import Json, Schema
from csr_qdrant.stores.checks import check_point_id
from csr_qdrant.stores.records import plain_id
from csr_qdrant.stores.server_errors import RetryPolicy, server_errors
from csr_qdrant.stores.server_limits import at_most
from csr_qdrant.stores.server_writer import PATIENT, ServerCodeWriter
from csr_qdrant.stores.whole_points import Setup, WholePoint, whole_point
from csr_qdrant.stores.whole_points_server_setup import (
    creation,
    index_settings,
    left_out,
    read_setup,
)
from csr_qdrant.stores.whole_points_updates import write_points
from csr_qdrant.stores.writing import Refused

T = TypeVar("T")
POLL_SECONDS = 1.0


class ServerPoints(ServerCodeWriter):
    """One collection on a server, by its own name even if opened by an alias.

    See `WholePoints`. Every request may be repeated without harm, and is while the server is busy
    or away.
    """

    @property
    def threads(self) -> int:
        """Some: each waits for answers most of the time; local mode bears only one."""
        local = config.address(self._client) == "in local mode"
        return 1 if local else super().threads

    def setup(self) -> Setup:
        """Return how the collection is configured."""
        return read_setup(self._info(), self.location)

    def size(self, vector: str | None = None) -> int:
        """Return the exact number of points, or of those with this vector."""
        having = None
        if vector is not None:
            having = models.Filter(must=[models.HasVectorCondition(has_vector=vector)])
        return self._count(having)

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
        """Write points over what is there; return those that the server refused."""
        return write_points(self._client, self._name, points, self._call, self._limits.update)

    def delete(self, ids: Sequence[PointId]) -> None:
        """Delete points; unknown ids are ignored."""
        known = models.PointIdsList(points=[check_point_id(point) for point in ids])
        self._call(lambda: self._client.delete(self._name, known, wait=True))

    def ensure_indexes(self, indexes: Mapping[str, Json]) -> None:
        """Make the payload indexes that are not there yet."""
        there = self._info().payload_schema or {}
        for name, settings in indexes.items():
            if name not in there:
                self._make_index(name, index_settings(settings))

    def _make_index(self, name: str, settings: Any) -> None:
        self._call(
            lambda: self._client.create_payload_index(
                self._name, name, field_schema=settings, wait=True
            )
        )

    def _scroll(
        self, limit: int, offset: PointId | None, *, content: bool
    ) -> tuple[list[Any], PointId | None]:
        start = None if offset is None else check_point_id(offset)
        records, following = self._call(
            lambda: self._client.scroll(
                self._name,
                limit=at_most(limit, self._limits.page),
                offset=start,
                with_payload=content,
                with_vectors=content,
            )
        )
        return records, None if following is None else plain_id(following)

    def _retrieve(self, ids: Sequence[PointId], *, content: bool) -> list[Any]:
        known = [check_point_id(point) for point in ids]
        return self._call(
            lambda: self._client.retrieve(
                self._name, known, with_payload=content, with_vectors=content
            )
        )


class ServerPlace:
    """A name on a server for a copy. See `NewPlace`."""

    def __init__(self, client: QdrantClient, name: str, retries: RetryPolicy = PATIENT) -> None:
        """Name the collection; nothing is asked yet. The client stays its caller's."""
        self._client, self._name, self._retries = client, name, retries

    @property
    def location(self) -> str:
        """Name of the collection and the server's address, without a password."""
        return self._located(self._name)

    def exists(self) -> bool:
        """Tell whether the collection is there; raises ConfigError for the name of an alias."""
        self._call(lambda: config.refuse_old(self._client))
        if not self._call(lambda: self._client.collection_exists(self._name)):
            return False
        names = [each.name for each in self._call(self._client.get_collections).collections]
        if self._name not in names:
            raise ConfigError(
                f"{self._name!r} {config.address(self._client)} is an alias: give the copy a name "
                "of its own"
            )
        return True

    def open(self) -> ServerPoints:
        """Open the collection."""
        return ServerPoints.open(self._client, self._name, retries=self._retries)

    def create(
        self,
        setup: Setup,
        schema: Schema,
        metadata: Json,
        fill: Callable[[Path], object] | None,
    ) -> ServerPoints:
        """Make the collection; a server has no folder to fill."""
        arguments = creation(setup, schema, metadata)
        try:
            self._call(lambda: self._client.create_collection(self._name, **arguments))
        except CsrError:
            # An answer may be lost on its way, and then the second try finds it there already.
            if not self.exists() or self.open().metadata() != metadata:
                raise
        return self.open()

    def left_out(self, setup: Setup) -> list[str]:
        """Return what a server does not have, in words."""
        return left_out(setup)

    def alias(self, name: str) -> str | None:
        """Return the location of what an alias stands for; ConfigError for a collection's name."""
        names = [each.name for each in self._call(self._client.get_collections).collections]
        if name in names or name == self._name:
            raise ConfigError(
                f"{name!r} {config.address(self._client)} is the name of a collection and cannot "
                "be an alias: choose another one"
            )
        found = self._aliases().get(name)
        return None if found is None else self._located(found)

    def aliases(self) -> list[str]:
        """Return the aliases of the target.

        Raises CsrError where the key may not list them: a copy in use would be taken for unused.
        """
        return [name for name, each in self._aliases().items() if each == self._name]

    def swap(self, name: str) -> None:
        """Let the alias `name` stand for the target from now on, in one step."""
        operations: list[Any] = []
        if name in self._aliases():
            operations.append(
                models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=name))
            )
        create = models.CreateAlias(collection_name=self._name, alias_name=name)
        operations.append(models.CreateAliasOperation(create_alias=create))
        self._call(lambda: self._client.update_collection_aliases(operations))

    def wait_ready(self, seconds: float) -> bool:
        """Wait until the server has built its indexes; False: it is still at it.

        Raises CsrError if its optimiser failed, which more waiting does not mend.
        """
        until = time.monotonic() + seconds
        while True:
            info = self._call(lambda: self._client.get_collection(self._name))
            if info.status == models.CollectionStatus.GREEN:
                return True
            if info.status == models.CollectionStatus.RED:
                raise CsrError(
                    f"{self.location} is red, as the server says ({info.optimizer_status}): look "
                    "at the server's log, mend what is wrong there and run it again"
                )
            if time.monotonic() >= until:
                return False
            time.sleep(POLL_SECONDS)

    def _aliases(self) -> dict[str, str]:
        found = self._call(self._client.get_aliases).aliases
        return {each.alias_name: each.collection_name for each in found}

    def _located(self, name: str) -> str:
        return f"collection {name!r} {config.address(self._client)}"

    def _call(self, function: Callable[[], T]) -> T:
        with server_errors(self.location, self._client.init_options.get("api_key")):
            return self._retries.call(function)
