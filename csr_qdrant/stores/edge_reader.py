"""Reads any collection of Qdrant Edge: a folder of csr-qdrant's own, or one with a bare shard."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import qdrant_edge as engine

from csr_qdrant.errors import CsrError
from csr_qdrant.ids import PointId
from csr_qdrant.json_files import read_json
from csr_qdrant.stores.checks import check_point_id
from csr_qdrant.stores.edge_folder import any_shard_folder, plain_errors
from csr_qdrant.stores.edge_open import OpenShard
from csr_qdrant.stores.edge_points import known_ids
from csr_qdrant.stores.layout import DenseVector, Layout
from csr_qdrant.stores.reading import ReadPoint, ScoredId, read_point
from csr_qdrant.stores.records import plain_id

# What reading another's description raises where it holds anything else.
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, StopIteration)


class EdgeReader(OpenShard):
    """One collection in a folder, opened for reading. See `PointReader` for the methods.

    The engine locks its write-ahead log, so the folder must not be open elsewhere; on opening it
    may put its own journals away and complete its own description, which changes no point.
    """

    def __init__(self, folder: Path, shard: Any, layout: Layout) -> None:
        """Wrap an open shard; use `open`."""
        super().__init__(folder, shard)
        self._layout = layout

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open the collection in `folder`.

        Raises CsrError if there is none, or if it is open elsewhere.
        """
        path = Path(folder)
        shard = any_shard_folder(path)
        layout = read_layout(path, shard)
        with plain_errors(path):
            return cls(path, engine.EdgeShard.load(str(shard)), layout)

    def layout(self) -> Layout:
        """Return the vectors that the collection holds."""
        return self._layout

    def count(self, vector: str) -> int:
        """Return the exact number of points that have this vector."""
        request = engine.CountRequest(exact=True, filter=_having(vector))
        with plain_errors(self._folder):
            return int(self._shard.count(request))

    def page(
        self, vector: str, limit: int, offset: PointId | None, fields: Sequence[str]
    ) -> tuple[list[ReadPoint], PointId | None]:
        """Return up to `limit` points by rising id from `offset` on, and the next offset."""
        records, following = self._scroll(vector, limit, offset, [vector], fields)
        return [read_point(record, vector) for record in records], following

    def ids(
        self, vector: str, limit: int, offset: PointId | None
    ) -> tuple[list[PointId], PointId | None]:
        """Return the ids of up to `limit` points from `offset` on, and the next offset."""
        records, following = self._scroll(vector, limit, offset, False, ())
        return [plain_id(record.id) for record in records], following

    def retrieve(
        self, vector: str, ids: Sequence[PointId], fields: Sequence[str]
    ) -> list[ReadPoint]:
        """Return the points that exist, in any order."""
        with plain_errors(self._folder):
            records = self._shard.retrieve(
                known_ids(ids), with_payload=list(fields) or False, with_vector=[vector]
            )
        return [read_point(record, vector) for record in records]

    def nearest(
        self, vector: str, queries: npt.NDArray[np.float32], limit: int
    ) -> list[list[ScoredId]]:
        """Return the exactly nearest points of each of (m, d) queries, best first."""
        requests = [
            engine.QueryRequest(
                limit=limit,
                query=engine.Query.Nearest(row.tolist(), using=vector),
                params=engine.SearchParams(exact=True),
            )
            for row in queries
        ]
        with plain_errors(self._folder):
            found = self._shard.query_batch(engine.QueryBatchRequest(requests))
        return [[ScoredId(plain_id(each.id), each.score) for each in row] for row in found]

    def _scroll(
        self,
        vector: str,
        limit: int,
        offset: PointId | None,
        vectors: Any,
        fields: Sequence[str],
    ) -> tuple[list[Any], PointId | None]:
        request = engine.ScrollRequest(
            offset=None if offset is None else check_point_id(offset),
            limit=limit,
            filter=_having(vector),
            with_payload=list(fields) or False,
            with_vector=vectors,
        )
        with plain_errors(self._folder):
            records, following = self._shard.scroll(request)
        return records, None if following is None else plain_id(following)


def _having(vector: str) -> Any:
    return engine.Filter(must=[engine.HasVectorCondition(vector)])


def read_layout(folder: Path, shard: Path) -> Layout:
    """Read the vectors from the engine's own description, which its handle does not tell.

    Raises CsrError if it cannot be read.
    """
    try:
        if (shard / "edge_config.json").is_file():
            described = read_json(shard / "edge_config.json")
            dense, sparse = described.get("vectors") or {}, described.get("sparse_vectors") or {}
        else:  # a server's snapshot that no one has opened yet
            segment = next((shard / "segments").glob("*/segment.json"))
            described = read_json(segment)["config"]
            dense, sparse = described["vector_data"], described.get("sparse_vector_data") or {}
        return _layout_of(dense, sparse)
    except (OSError, *_DAMAGED) as error:
        raise CsrError(
            f"cannot tell which vectors {folder} holds ({type(error).__name__}: {error}): "
            "it is damaged, or not a collection of Qdrant Edge"
        ) from error


def _layout_of(dense: Mapping[str, Any], sparse: Mapping[str, Any]) -> Layout:
    multi = tuple(name for name, each in dense.items() if each.get("multivector_config"))
    plain = {
        name: DenseVector(name, int(each["size"]), str(each["distance"]))
        for name, each in dense.items()
        if name not in multi
    }
    return Layout(plain, multi, tuple(sparse))
