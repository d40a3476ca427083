"""The dense vectors of an existing collection, in a folder or on a server, whoever made it.

Points come by rising id, page by page; a reader that was interrupted goes on at the offset that it
kept, and points that are written meanwhile shift nothing. Points without the vector are left out.
Where the collection compares by cosine its engine keeps vectors at L2 norm 1, and that is what
comes back, not what was once written.
"""

import hashlib
import heapq
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from csr_qdrant.closing import Closing
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.ids import PointId
from csr_qdrant.stores.layout import choose_dense
from csr_qdrant.stores.reading import PointReader, ReadPoint, ScoredId

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

ID_PAGE = 10_000
EXACT_QUERIES = 16  # a call: a server's answer must not take longer than its client waits
# A server answers in JSON, about a dozen bytes a number: pages stay under ten megabytes or so.
PAGE_VALUES = 2**19


class PointBlock(NamedTuple):
    """Consecutive points of a collection."""

    ids: list[PointId]
    vectors: npt.NDArray[np.float32]  # (n, d)
    payloads: list[Mapping[str, Any]]  # the fields that were asked for
    following: PointId | None  # the offset of the next block; None: this is the last


class CollectionVectors(Closing):
    """One dense vector of every point of a collection; nothing is ever written."""

    def __init__(self, reader: PointReader, vector: str | None = None) -> None:
        """Read the vector called `vector` (None: the only dense one) through `reader`."""
        chosen = choose_dense(reader.layout(), vector, reader.location)
        self._reader = reader
        self.vector = chosen.name
        self.dimension = chosen.dimension
        self.distance = chosen.distance
        self.count = reader.count(chosen.name)

    @classmethod
    def open(cls, folder: str | Path, vector: str | None = None) -> Self:
        """Open the collection of Qdrant Edge in `folder`: one of csr-qdrant's, or a bare shard.

        Raises CsrError if there is none or if it is open elsewhere, ConfigError unless `vector`
        names a dense vector of it; None means the only one there is, the empty text the unnamed.
        """
        from csr_qdrant.stores.edge_reader import EdgeReader

        return cls._of(EdgeReader.open(folder), vector)

    @classmethod
    def open_on(
        cls,
        client: "QdrantClient",
        name: str,
        vector: str | None = None,
        *,
        owns_client: bool = False,
    ) -> Self:
        """Open the collection `name` on a server; `owns_client`: closing closes the client too.

        Requests are repeated while the server is busy or away. Raises CsrError if there is no such
        collection, ConfigError unless `vector` names a dense vector of it, as in `open`.
        """
        from csr_qdrant.stores.server_reader import ServerReader

        return cls._of(ServerReader.open(client, name, owns_client=owns_client), vector)

    @classmethod
    def _of(cls, reader: PointReader, vector: str | None) -> Self:
        try:
            return cls(reader, vector)
        except BaseException:
            reader.close()
            raise

    @property
    def location(self) -> str:
        """Where the collection is, for messages; never a key or a password."""
        return self._reader.location

    @property
    def normalised(self) -> bool:
        """Whether the engine keeps the vectors at L2 norm 1 (all but zero vectors)."""
        return self.distance == "Cosine"

    def __len__(self) -> int:
        """Return the number of points with the vector, as counted when this was opened."""
        return self.count

    def blocks(
        self, size: int = 4096, offset: PointId | None = None, fields: Sequence[str] = ()
    ) -> Iterator[PointBlock]:
        """Yield all points from id `offset` on, at most `size` a block, with payload `fields`.

        Blocks of long vectors are smaller. To go on later, pass a block's `following`.
        Raises CsrError, with the point's id, for a vector with NaN or an infinity.
        """
        if size < 1:
            raise ConfigError(f"blocks need at least 1 point, got {size}")
        limit = min(size, self._page_rows)
        while True:
            points, following = self._reader.page(self.vector, limit, offset, fields)
            if points:
                yield self._block(points, following)
            if following is None:
                return
            offset = following

    def sample_ids(self, n: int, seed: int = 0) -> list[PointId]:
        """Return the ids of `n` points (all, if there are fewer) drawn at random.

        Every set of n points is equally likely, as far as a hash looks random: each id is hashed
        with the seed as key, and the n least hashes win. So the draw depends on the ids and the
        seed alone, not on the engine, its shards or their order, and it comes in random order.
        Costs one pass over all ids, without vectors, and memory for n of them. (The engines' own
        random query takes no seed and so could not be repeated.)
        """
        if n < 1:
            raise ConfigError(f"a sample needs at least 1 point, got {n}")
        key = seed.to_bytes(16, "little", signed=True)
        best: list[tuple[int, PointId]] = []  # a heap of the least hashes, negated: largest first
        for point in self._ids():
            digest = hashlib.blake2b(str(point).encode(), digest_size=8, key=key).digest()
            entry = (-int.from_bytes(digest, "little"), point)
            if len(best) < n:
                heapq.heappush(best, entry)
            elif entry[0] > best[0][0]:
                heapq.heapreplace(best, entry)
        return [point for _, point in sorted(best, key=lambda entry: -entry[0])]

    def sample(self, n: int, seed: int = 0, fields: Sequence[str] = ()) -> PointBlock:
        """Return `n` points drawn as by `sample_ids`, in its order."""
        return self.retrieve(self.sample_ids(n, seed), fields)

    def retrieve(self, ids: Sequence[PointId], fields: Sequence[str] = ()) -> PointBlock:
        """Return the points `ids` in this order; those that are gone are left out."""
        found: dict[PointId, ReadPoint] = {}
        for start in range(0, len(ids), self._page_rows):
            some = ids[start : start + self._page_rows]
            found |= {p.id: p for p in self._reader.retrieve(self.vector, some, fields)}
        return self._block([found[point] for point in ids if point in found], None)

    def nearest(self, queries: npt.NDArray[np.float32], limit: int) -> Iterator[list[ScoredId]]:
        """Yield the exactly nearest points of each of (m, d) queries, by the engine's own measure.

        Every point is looked at, a few queries a call.
        """
        for start in range(0, len(queries), EXACT_QUERIES):
            some = queries[start : start + EXACT_QUERIES]
            yield from self._reader.nearest(self.vector, some, limit)

    def close(self) -> None:
        """Release the engine; nothing else may be called afterwards."""
        self._reader.close()

    @property
    def _page_rows(self) -> int:
        return max(1, PAGE_VALUES // self.dimension)

    def _ids(self) -> Iterator[PointId]:
        offset: PointId | None = None
        while True:
            ids, offset = self._reader.ids(self.vector, ID_PAGE, offset)
            yield from ids
            if offset is None:
                return

    def _block(self, points: Sequence[ReadPoint], following: PointId | None) -> PointBlock:
        # A point can lose its vector between the engine's filter and its answer.
        kept = [point for point in points if point.vector is not None]
        vectors = np.zeros((len(kept), self.dimension), np.float32)
        for row, point in enumerate(kept):
            vectors[row] = point.vector
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            broken = kept[int(np.argmin(finite))].id
            raise CsrError(
                f"point {broken} of {self.location} has a vector with NaN or an infinity: "
                "write it anew or delete it"
            )
        return PointBlock([p.id for p in kept], vectors, [p.payload for p in kept], following)
