"""Writes codes into any collection of Qdrant Edge, beside what it holds.

What csr-qdrant records goes into FOLDER/collection.json and FOLDER/encoder/; the engine pays no
attention to them, also where its own files lie in FOLDER itself.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import qdrant_edge as engine

from csr_qdrant.atomic import remove_whole
from csr_qdrant.codes import SparseCodes
from csr_qdrant.ids import PointId
from csr_qdrant.stores.base import Datatype, Json, Schema
from csr_qdrant.stores.checks import check_point_id
from csr_qdrant.stores.disk import require_space
from csr_qdrant.stores.edge import DATATYPES
from csr_qdrant.stores.edge_folder import (
    DESCRIPTION,
    any_shard_folder,
    plain_errors,
    read_description,
    write_description,
)
from csr_qdrant.stores.edge_open import WritableShard
from csr_qdrant.stores.edge_points import known_ids
from csr_qdrant.stores.edge_reader import read_layout
from csr_qdrant.stores.edge_repair import load_shard
from csr_qdrant.stores.layout import Layout
from csr_qdrant.stores.records import plain_id
from csr_qdrant.stores.writing import CodedPoint, Refused, coded_point

UPDATE_POINTS = 256  # larger calls gain nothing and hold more of them in memory
# An update moves its points out of finished segments, all their vectors with them.
BYTES_PER_POINT = 64 * 2**10


class EdgeCodeWriter(WritableShard):
    """One collection in a folder, open in one process at a time. See `CodeWriter`."""

    def __init__(self, folder: Path, shard_folder: Path, shard: Any) -> None:
        """Wrap an open shard; use `open`."""
        super().__init__(folder, shard)
        self._shard_folder = shard_folder
        self._described: tuple[Schema, Json] | None = None
        if (folder / DESCRIPTION).exists():
            self._described = read_description(folder)

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open the collection in `folder`, csr-qdrant's own or a bare shard.

        One that was killed while it got a name for codes, or lost it, is mended first. Raises
        CsrError if there is none, or if it is open elsewhere.
        """
        path = Path(folder)
        shard_folder = any_shard_folder(path)
        shard = load_shard(path, shard_folder)
        try:
            return cls(path, shard_folder, shard)
        except BaseException:
            shard.close()
            raise

    @property
    def folder(self) -> Path:
        """Where a copy of the encoder is kept beside the points."""
        return self._folder

    @property
    def threads(self) -> int:
        """One: the engine takes updates one after the other."""
        return 1

    @property
    def exclusive(self) -> bool:
        """True: the engine locks the folder."""
        return True

    def check_features(self) -> None:
        """Do nothing: the engine is part of this process, and new enough."""

    def layout(self) -> Layout:
        """Return the vectors that the collection holds now."""
        return read_layout(self._folder, self._shard_folder)

    def schema(self) -> Schema | None:
        """Return what csr-qdrant recorded of the collection, None if it never did."""
        return None if self._described is None else self._described[0]

    def metadata(self) -> Json:
        """Return a copy of what csr-qdrant stored beside the points."""
        copy: Json = json.loads(json.dumps(self._described[1] if self._described else {}))
        return copy

    def record(self, schema: Schema, metadata: Json) -> None:
        """Record that the codes of `schema` belong to the collection, with `metadata`."""
        with plain_errors(self._folder):
            write_description(self._folder, schema, metadata)
        self._described = schema, metadata

    def write_metadata(self, key: str, value: Any) -> None:
        """Store a JSON value under `key` beside the points, after `record`; None removes it."""
        assert self._described is not None
        schema, metadata = self._described
        changed = {**metadata, key: value}
        if value is None:
            del changed[key]
        self.record(schema, changed)

    def forget(self) -> None:
        """Remove what csr-qdrant stored beside the points; the encoder is its caller's."""
        with plain_errors(self._folder):
            remove_whole(self._folder / DESCRIPTION)
        self._described = None

    def add_name(self, name: str, datatype: Datatype) -> None:
        """Add the sparse vector `name`, which no point has yet; nothing if it is there."""
        if name not in self.layout().sparse:
            self._update(
                engine.UpdateOperation.create_sparse_vector(name, None, DATATYPES[datatype])
            )
            self.flush()

    def remove_name(self, name: str) -> None:
        """Remove the sparse vector `name` from all points; nothing if it is not there."""
        if name in self.layout().sparse:
            self._update(engine.UpdateOperation.delete_vector_name(name))
            self.flush()

    def count(self, having: str, lacking: str | None = None) -> int:
        """Return the exact number of points with the one vector and without the other."""
        request = engine.CountRequest(exact=True, filter=_filter(having, lacking))
        with plain_errors(self._folder):
            return int(self._shard.count(request))

    def page(
        self, dense: str, code: str, limit: int, offset: PointId | None, *, lacking: bool
    ) -> tuple[list[CodedPoint], PointId | None]:
        """Return up to `limit` points with `dense` by rising id from `offset` on."""
        request = engine.ScrollRequest(
            offset=None if offset is None else check_point_id(offset),
            limit=limit,
            filter=_filter(dense, code if lacking else None),
            with_payload=False,
            with_vector=[dense] if lacking else [dense, code],
        )
        with plain_errors(self._folder):
            records, following = self._shard.scroll(request)
        points = []
        for number, record in enumerate(records):
            if number % 16 == 0:  # else other threads wait for the interpreter 5 ms at a time
                time.sleep(1e-5)
            points.append(coded_point(record, dense, code))
        return points, None if following is None else plain_id(following)

    def retrieve(self, dense: str, code: str, ids: Sequence[PointId]) -> list[CodedPoint]:
        """Return the points that exist, in any order."""
        with plain_errors(self._folder):
            records = self._shard.retrieve(
                known_ids(ids), with_payload=False, with_vector=[dense, code]
            )
        return [coded_point(record, dense, code) for record in records]

    def write(
        self, name: str, ids: Sequence[PointId], codes: SparseCodes, *, only_new: bool
    ) -> list[Refused]:
        """Write codes of points that exist; return those refused, which is none here."""
        require_space(self._shard_folder, BYTES_PER_POINT * min(len(ids), UPDATE_POINTS))
        vectors = codes.to_edge()
        refused: list[Refused] = []
        for start in range(0, len(ids), UPDATE_POINTS):
            part = slice(start, start + UPDATE_POINTS)
            some = [
                engine.PointVectors(point, {name: vector})
                for point, vector in zip(ids[part], vectors[part], strict=True)
            ]
            refused += self._write(name, some, only_new=only_new)
        return refused

    def _write(self, name: str, points: list[Any], *, only_new: bool) -> list[Refused]:
        # Nobody else has the folder open, so no point is gone and none has got a code.
        self._update(engine.UpdateOperation.update_vectors(points))
        return []

    def remove(self, name: str, ids: Sequence[PointId]) -> None:
        """Remove the codes of points."""
        # By filter, since an id that is gone would be an error.
        chosen = engine.Filter(must=[engine.HasIdCondition(set(known_ids(ids)))])
        self._update(engine.UpdateOperation.delete_vectors_by_filter(chosen, [name]))

    def remove_orphans(self, dense: str, name: str) -> None:
        """Remove the codes of points that have no vector `dense`."""
        operation = engine.UpdateOperation.delete_vectors_by_filter
        self._update(operation(_filter(name, dense), [name]))

    def insist(self, on: bool) -> None:
        """Do nothing: an engine in this process is never away."""


def _filter(having: str, lacking: str | None) -> Any:
    must: list[Any] = [engine.HasVectorCondition(having)]
    must_not: list[Any] = [] if lacking is None else [engine.HasVectorCondition(lacking)]
    return engine.Filter(must=must, must_not=must_not)
