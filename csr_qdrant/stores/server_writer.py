"""Writes codes into any collection on a Qdrant server or cluster, beside what it holds."""

from collections.abc import Sequence
from typing import Any, Self

from qdrant_client import QdrantClient, models

from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import CsrError
from csr_qdrant.ids import PointId
from csr_qdrant.stores import server_config as config
from csr_qdrant.stores.base import Datatype, Json, Schema
from csr_qdrant.stores.checks import check_point_id
from csr_qdrant.stores.layout import Layout
from csr_qdrant.stores.records import plain_id
from csr_qdrant.stores.server_errors import RetryPolicy
from csr_qdrant.stores.server_limits import at_most, portions
from csr_qdrant.stores.server_open import OnServer
from csr_qdrant.stores.server_updates import CodeUpdates
from csr_qdrant.stores.writing import CodedPoint, Refused, coded_point

# A collection takes minutes or hours to go through: worth waiting for a busy server, for minutes.
PATIENT = RetryPolicy(attempts=12, first_s=0.5, longest_s=30)


class ServerCodeWriter(OnServer):
    """One collection on a server, by its own name even if opened by an alias. See `CodeWriter`.

    Every request may be repeated without harm, and is while the server is busy or away. May be
    used from several threads at once.
    """

    @classmethod
    def open(
        cls,
        client: QdrantClient,
        name: str,
        *,
        retries: RetryPolicy = PATIENT,
        owns_client: bool = False,
    ) -> Self:
        """Open the collection `name`, or the one that the alias `name` stands for now.

        `owns_client` says that `close` closes the client too. Raises CsrError if there is none, or
        for a server below 1.16.
        """
        writer = cls(client, name, retries, owns_client=owns_client)
        writer._call(lambda: config.refuse_old(client))
        writer._name = writer._named()
        if not writer._call(lambda: client.collection_exists(writer._name)):
            raise CsrError(f"there is no {writer.location}: check the name and the URL")
        return writer

    def _named(self) -> str:
        """Return what the alias stands for; an alias may move while this collection is written."""
        try:
            aliases = self._call(self._client.get_aliases).aliases
        except CsrError:  # a key for one collection may not list them
            return self._name
        names = {each.alias_name: each.collection_name for each in aliases}
        return names.get(self._name, self._name)

    @property
    def folder(self) -> None:
        """A server keeps no encoder."""
        return None

    @property
    def threads(self) -> int:
        """Some: each waits for answers most of the time."""
        return 4

    @property
    def exclusive(self) -> bool:
        """False: a server takes writes from everybody."""
        return False

    def check_features(self) -> None:
        """Raise CsrError for a server below 1.18, which cannot add a vector name."""
        version = self._call(lambda: self._client.info().version)
        if config.is_older(version, config.NAMED_VECTORS):
            raise CsrError(
                f"the Qdrant server {config.address(self._client)} has version {version} and can "
                "add no vectors to an existing collection, which takes 1.18: upgrade it, or copy "
                "the collection into one with codes with `csr migrate`"
            )

    def layout(self) -> Layout:
        """Return the vectors that the collection holds now."""
        return config.layout(self._info())

    def schema(self) -> Schema | None:
        """Return what csr-qdrant recorded of the collection, None if it never did."""
        return config.recorded_schema(self._info(), self.location)

    def metadata(self) -> Json:
        """Return what csr-qdrant stored beside the points."""
        return config.own_metadata(self._info())

    def record(self, schema: Schema, metadata: Json) -> None:
        """Record that the codes of `schema` belong to the collection, with `metadata`."""
        self._change_metadata(config.first_metadata(schema, metadata))

    def write_metadata(self, key: str, value: Any) -> None:
        """Store a JSON value under `key` beside the points, after `record`; None removes it."""
        self._change_metadata({f"{config.META_KEY}.{key}": value})

    def forget(self) -> None:
        """Remove all that csr-qdrant stored beside the points; other metadata stay."""
        keys = [f"{config.META_KEY}.{key}" for key in self.metadata()]
        self._change_metadata(dict.fromkeys([*keys, config.META_KEY]))

    def add_name(self, name: str, datatype: Datatype) -> None:
        """Add the sparse vector `name`, which no point has yet; nothing if it is there."""
        if name in self.layout().sparse:
            return
        settings = models.SparseVectorNameConfig(
            sparse=models.SparseVectorConfig(
                datatype=models.VectorStorageDatatype(config.DATATYPES[datatype].value)
            )
        )
        self._call(lambda: self._client.create_vector_name(self._name, name, settings))

    def remove_name(self, name: str) -> None:
        """Remove the sparse vector `name` from all points; nothing if it is not there."""
        if name in self.layout().sparse:
            self._call(lambda: self._client.delete_vector_name(self._name, name))

    def count(self, having: str, lacking: str | None = None) -> int:
        """Return the exact number of points with the one vector and without the other."""
        return self._count(_filter(having, lacking))

    def page(
        self, dense: str, code: str, limit: int, offset: PointId | None, *, lacking: bool
    ) -> tuple[list[CodedPoint], PointId | None]:
        """Return up to `limit` points with `dense` by rising id from `offset` on."""
        start = None if offset is None else check_point_id(offset)
        records, following = self._call(
            lambda: self._client.scroll(
                self._name,
                scroll_filter=_filter(dense, code if lacking else None),
                limit=at_most(limit, self._limits.page),
                offset=start,
                with_payload=False,
                with_vectors=[dense] if lacking else [dense, code],
            )
        )
        points = [coded_point(record, dense, code) for record in records]
        return points, None if following is None else plain_id(following)

    def retrieve(self, dense: str, code: str, ids: Sequence[PointId]) -> list[CodedPoint]:
        """Return the points that exist, in any order."""
        known = [check_point_id(point) for point in ids]
        records = self._call(
            lambda: self._client.retrieve(
                self._name, known, with_payload=False, with_vectors=[dense, code]
            )
        )
        return [coded_point(record, dense, code) for record in records]

    def write(
        self, name: str, ids: Sequence[PointId], codes: SparseCodes, *, only_new: bool
    ) -> list[Refused]:
        """Write codes of points that exist; return those that the server refused by themselves."""
        return self.updates(name, only_new=only_new).write(ids, codes)

    def updates(self, name: str, *, only_new: bool) -> CodeUpdates:
        """Return what `write` writes with, which counts the points that are gone."""
        limit = self._limits.update
        return CodeUpdates(
            self._client, self._name, name, self._call, only_new=only_new, limit=limit
        )

    def remove(self, name: str, ids: Sequence[PointId]) -> None:
        """Remove the codes of points."""
        # By filter, since an id that is gone would make the server answer 404.
        for some in portions(ids, self._limits.condition):
            self._remove(name, models.Filter(must=[models.HasIdCondition(has_id=list(some))]))

    def remove_orphans(self, dense: str, name: str) -> None:
        """Remove the codes of points that have no vector `dense`."""
        self._remove(name, _filter(name, dense))

    def insist(self, on: bool) -> None:
        """Ask again while the server is busy or away, as at first, or from now on only once."""
        if on:
            self._hurry.clear()
        else:
            self._hurry.set()

    def flush(self) -> None:
        """Do nothing: a write returns only when the server keeps it."""

    def optimise(self) -> None:
        """Do nothing: a server builds its indexes by itself."""

    def _remove(self, name: str, chosen: models.Filter) -> None:
        self._call(lambda: self._client.delete_vectors(self._name, [name], chosen))

    def _change_metadata(self, change: Json) -> None:
        # The server merges by key and drops nulls.
        self._call(lambda: self._client.update_collection(self._name, metadata=change))


def _filter(having: str, lacking: str | None) -> models.Filter:
    must: list[Any] = [models.HasVectorCondition(has_vector=having)]
    must_not: list[Any] = [models.HasVectorCondition(has_vector=lacking)] if lacking else []
    return models.Filter(must=must, must_not=must_not)
