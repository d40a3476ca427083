"""An index in a collection on a server: written, waited for, searched."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qdrant_client import QdrantClient, models

from csr_qdrant.benchmarks import server_types as types
from csr_qdrant.benchmarks.engine import UPLOAD_BATCH, Asked, Columns, Index, Sizes
from csr_qdrant.errors import CsrError
from csr_qdrant.stores.server_config import address
from csr_qdrant.stores.server_errors import RetryPolicy, server_errors
from csr_qdrant.stores.server_points import REQUEST_BYTES

FLOAT_BYTES = 24  # a float32 as JSON, at most
WRITES = RetryPolicy(attempts=10, first_s=0.5, longest_s=30)
READS = RetryPolicy(attempts=3, first_s=0.25, longest_s=2)
ONCE = RetryPolicy(attempts=1)  # what is timed is not repeated


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """How to wait for a server's optimiser, in seconds."""

    first_s: float = 0.05  # between two looks; grows up to `longest_s`
    longest_s: float = 0.5
    rest_s: float = 1.0  # without work, before that is believed
    settled_s: float = 10.0  # without work nor change, while not all vectors count as indexed
    still_s: float = 600.0  # of a server that is at work, without any change


class ServerIndex(Index):
    """A collection of this benchmark."""

    def __init__(
        self,
        client: QdrantClient,
        collection: str,
        waiting: Waiting,
        *,
        wide: int = 0,
        graph: bool = False,
    ) -> None:
        """Wrap a collection that exists, of `wide` dense dimensions, with a `graph` or not."""
        self._client, self._collection, self._waiting = client, collection, waiting
        self._graph, self._vectors = graph, 0
        self._local = client.init_options.get("location") == ":memory:"
        self.name = f"collection {collection!r} {address(client)}"
        row_bytes = FLOAT_BYTES * max(wide, 1)
        self.batch = min(UPLOAD_BATCH, _power_of_two(REQUEST_BYTES // row_bytes))

    def requests(self, asked: Asked) -> list[Any | None]:
        """Return the client's request of each query; None for a code without latents."""
        return list(types.requests(asked, with_params=not self._local))

    def query(self, request: Any) -> list[Any]:
        """Return the scored points of one request, as the client gives them."""
        return self._asked(ONCE, [request])[0]

    def sizes(self, name: str) -> Sizes:
        """Raise CsrError: a server does not tell what its indexes weigh."""
        raise CsrError(f"{self.name}: bytes of a server's index are not known from outside")

    def disk_bytes(self) -> int:
        """Raise CsrError: a server does not tell what its segments occupy."""
        raise CsrError(f"{self.name}: a server's bytes on disk are not known from outside")

    def count(self) -> int:
        """Return the exact number of points."""
        return int(
            self._call(READS, lambda: self._client.count(self._collection, exact=True)).count
        )

    def close(self) -> None:
        """Nothing is held: the client belongs to the engine."""

    def _answers(self, requests: list[Any]) -> list[list[Any]]:
        return self._asked(READS, requests)

    def _asked(self, policy: RetryPolicy, requests: list[Any]) -> list[list[Any]]:
        answers = self._call(
            policy, lambda: self._client.query_batch_points(self._collection, requests)
        )
        return [answer.points for answer in answers]

    def _write(self, start: int, columns: Columns) -> None:
        vectors: dict[int, dict[str, Any]] = {}
        for name, column in columns.items():
            for row, vector in enumerate(types.rows(column), start):
                own = vectors.setdefault(row, {})
                if vector is not None:
                    own[name] = vector
                    self._vectors += 1
        points = [models.PointStruct(id=row, vector=own) for row, own in vectors.items()]
        self._call(WRITES, lambda: self._client.upsert(self._collection, points, wait=True))

    def _flush(self) -> None:
        """Do nothing: a write returns only when the server keeps it."""

    def _optimise(self) -> float:
        """Let the server index, and wait until it has nothing left to do."""
        started = time.perf_counter()
        change = types.indexing()
        self._call(
            WRITES,
            lambda: self._client.update_collection(self._collection, optimizers_config=change),
        )
        if self._local:  # where every search is exact
            return time.perf_counter() - started
        return self._idle_since() - started

    def _idle_since(self) -> float:
        """Return when the server came to rest; CsrError if that leaves a graph unbuilt."""
        waiting, pause = self._waiting, self._waiting.first_s
        rested: float | None = None  # since when
        seen: tuple[Any, ...] | None = None
        changed = time.perf_counter()
        while True:
            info = self._call(READS, lambda: self._client.get_collection(self._collection))
            now, indexed = time.perf_counter(), info.indexed_vectors_count or 0
            _refuse_broken(info, self.name)
            state = (info.status, indexed, info.points_count, info.segments_count)
            if state != seen:
                seen, changed = state, now
            idle = info.status == models.CollectionStatus.GREEN
            whole = indexed >= self._vectors
            least = waiting.rest_s if whole else waiting.settled_s
            if idle and rested is not None and now - max(rested, changed) >= least:
                if not whole and self._graph:
                    raise CsrError(
                        f"{self.name} has come to rest with {indexed:,} of {self._vectors:,} "
                        "vectors indexed: look at the server's log"
                    )
                return rested
            rested = (now if rested is None else rested) if idle else None
            if now - changed > waiting.still_s:
                raise CsrError(
                    f"{self.name} has been {info.status.value} for {waiting.still_s:.0f} s without "
                    "any change: look at the server's log, and run again"
                )
            time.sleep(pause)
            pause = min(2 * pause, waiting.longest_s)

    def _count(self) -> int:
        return self.count()

    def _call(self, policy: RetryPolicy, function: Callable[[], Any]) -> Any:
        with server_errors(self.name, self._client.init_options.get("api_key")):
            return policy.call(function)


def _refuse_broken(info: models.CollectionInfo, name: str) -> None:
    failed = info.optimizer_status
    error = failed.error if isinstance(failed, models.OptimizersStatusOneOf1) else "status red"
    if info.status == models.CollectionStatus.RED or error != "status red":
        raise CsrError(f"{name}: the server cannot index it ({error}): look at the server's log")


def _power_of_two(most: int) -> int:
    """Return the largest power of two up to `most`, at least 1: batches share blocks of rows."""
    return 1 << max(0, most.bit_length() - 1)
