"""What every system of the benchmarks stands on: vectors as points of a Qdrant engine.

`Index` says what systems ask of an engine. `edge_engine` answers with a shard of the embedded
engine, `server_engine` with a collection on a server; both use it directly, without this package's
stores, so that baselines owe them nothing. All indexes are set up alike: one segment, everything
indexed, ids are row numbers, no payload.
"""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import CsrError
from csr_qdrant.stores.base import Datatype

Quantisation = Literal["binary", "int8", "turbo1", "turbo1.5", "turbo2", "turbo4", "turbo8"]

# The vectors that are searched, and the untouched ones that some systems keep for rescoring.
SEARCHED, FULL = "searched", "full"
UPLOAD_BATCH = 256
QUERY_BATCH = 128


class BuildReport(NamedTuple):
    """How long a system took to build, in seconds."""

    upload_s: float  # making points and writing them, with a flush
    optimise_s: float  # building the index
    encode_s: float = 0.0  # making what is stored from the dense vectors

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.upload_s + self.optimise_s + self.encode_s


class Footprint(NamedTuple):
    """Bytes a vector, measured from the files of the segments."""

    searched: float  # what a search reads: index or graph, and the vectors that it scores with
    rescoring: float  # full-precision vectors that are read for rescoring only
    disk: float  # all blocks that the segments occupy


class Found(NamedTuple):
    """Results of m queries, best first; missing ones have row -1 and score -inf."""

    rows: npt.NDArray[np.int64]  # (m, limit)
    scores: Matrix  # (m, limit)


# --- what is stored, and what is asked ----------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DenseVectors:
    """How dense vectors are stored; they are compared by cosine."""

    size: int
    m: int = 0  # links a node of the graph; 0: none, every vector is scored
    ef_construct: int = 100
    quantisation: Quantisation | None = None
    on_disk: bool = False  # read for rescoring at most


@dataclass(frozen=True, kw_only=True)
class SparseVectors:
    """How codes are stored; they are compared by dot product."""

    datatype: Datatype = "f32"


Layout: TypeAlias = Mapping[str, DenseVectors | SparseVectors]  # by name
Columns: TypeAlias = Mapping[str, Matrix | SparseCodes]  # rows of some points, by the same names
Rows: TypeAlias = Callable[[int, int], Columns]  # start, stop -> those rows


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of an index: the `limit` best points of each of m queries."""

    queries: Matrix | SparseCodes  # (m, ...), of the vectors called `using`
    limit: int
    using: str = SEARCHED
    exact: bool = False  # every vector is scored, even where there is a graph
    ef: int | None = None  # breadth of a search in a graph
    rescore: bool | None = None  # of quantised vectors: with their own originals; None: not asked
    oversampling: float | None = None  # hits that are rescored then, in multiples of `limit`
    full: Matrix | None = None  # (m, d) vectors called FULL, which score the first hits anew
    depth: int = 0  # first hits that `full` scores


class Sizes(NamedTuple):
    """What the vectors of one name take in all."""

    index_bytes: int  # the graph, or the inverted index
    quantised_bytes: int  # the quantised vectors
    vector_bytes: int  # the vectors as they were given


# --- engines ------------------------------------------------------------------------------------


class Index(ABC):
    """Points in an engine, written by `build`; `close` releases it, and leaves what is stored."""

    name: str  # where it is, for messages
    rows: int = 0
    batch: int = UPLOAD_BATCH  # points that are written at once, at most UPLOAD_BATCH

    def build(self, n: int, rows: Rows) -> BuildReport:
        """Write points 0..n-1, whose vectors `rows(start, stop)` gives, and index them.

        Raises CsrError if not all of them are there in the end.
        """
        self.rows = n
        started = time.perf_counter()
        for start in range(0, n, self.batch):
            self._write(start, rows(start, min(start + self.batch, n)))
        self._flush()
        uploaded = time.perf_counter()
        optimised_s = self._optimise()
        if (found := self._count()) != n:
            raise CsrError(f"{self.name} holds {found} of {n} rows")
        return BuildReport(uploaded - started, optimised_s)

    def search(self, requests: Sequence[Any | None], limit: int) -> Found:
        """Return the results of many requests, in blocks of one call; None finds nothing.

        Blocks go side by side, one a core, since nothing here is timed.
        """
        found = Found(
            np.full((len(requests), limit), -1, np.int64),
            np.full((len(requests), limit), -np.inf, np.float32),
        )
        askable = [i for i, request in enumerate(requests) if request is not None]
        blocks = [askable[at : at + QUERY_BATCH] for at in range(0, len(askable), QUERY_BATCH)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            answers = pool.map(lambda asked: self._answers([requests[i] for i in asked]), blocks)
            for asked, answered in zip(blocks, answers, strict=True):
                for i, points in zip(asked, answered, strict=True):
                    found.rows[i, : len(points)] = [point.id for point in points]
                    found.scores[i, : len(points)] = [point.score for point in points]
        return found

    def footprint(self, searched: int, rescoring: int) -> Footprint:
        """Return the bytes a row, of `searched` and `rescoring` bytes in all."""
        return Footprint(searched / self.rows, rescoring / self.rows, self.disk_bytes() / self.rows)

    @abstractmethod
    def requests(self, asked: Asked) -> list[Any | None]:
        """Return the engine's own request of each query; None for a code without latents."""

    @abstractmethod
    def query(self, request: Any) -> list[Any]:
        """Return the engine's scored points of one request."""

    @abstractmethod
    def sizes(self, name: str) -> Sizes:
        """Return what the vectors called `name` take; CsrError where that cannot be known."""

    @abstractmethod
    def disk_bytes(self) -> int:
        """Return the bytes of all blocks on disk; CsrError where that cannot be known."""

    @abstractmethod
    def close(self) -> None:
        """Release the engine."""

    @abstractmethod
    def _answers(self, requests: list[Any]) -> list[list[Any]]:
        """Return the scored points of several requests."""

    @abstractmethod
    def _write(self, start: int, columns: Columns) -> None:
        """Write the points that begin with row `start`."""

    @abstractmethod
    def _flush(self) -> None:
        """Return when all that was written is kept."""

    @abstractmethod
    def _optimise(self) -> float:
        """Index everything; return how long that took, in seconds."""

    @abstractmethod
    def _count(self) -> int:
        """Return the number of points."""


class Place(Protocol):
    """Where one index is, or is to be."""

    def create(self, layout: Layout) -> Index:
        """Make an empty index."""

    def open(self, n: int) -> Index:
        """Open the index of `n` rows that is there; CsrError if there is none."""

    def exists(self) -> bool:
        """Tell whether there is something, finished or not."""

    def clear(self) -> None:
        """Remove what a killed run left."""

    def beside(self, ending: str) -> Path:
        """Return where this machine keeps a file that belongs to the index."""


class Engine(Protocol):
    """Where a benchmark puts its indexes."""

    @property
    def name(self) -> str:
        """What it is."""

    @property
    def version(self) -> str:
        """Its version."""

    @property
    def identity(self) -> str:
        """What tells it from engines whose figures must not meet its own."""

    @property
    def embedded(self) -> bool:
        """Whether it runs in this process, so that its bytes and memory can be measured."""

    def place(self, folder: Path) -> Place:
        """Return the place of the index that `folder` stands for."""

    def lacks(self, quantisation: str) -> str | None:
        """Say in a sentence why it cannot quantise so; None if it can."""

    def memory_bytes(self) -> Mapping[str, int] | None:
        """Return what all of it takes now, None where each index is measured or nobody knows."""

    def finished(self) -> None:
        """Take note that the run is over and its indexes have served."""
