"""Several systems on one task: built, searched, and timed in turn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from csr_qdrant.benchmarks.csr_system import CsrSystem
from csr_qdrant.benchmarks.engine import BuildReport, Footprint, Found
from csr_qdrant.benchmarks.measure import Latency, latencies
from csr_qdrant.benchmarks.metrics import Floats, Qrels, ndcg, recall, run_of
from csr_qdrant.benchmarks.neighbours import Matrix, exact_neighbours
from csr_qdrant.benchmarks.systems import System
from csr_qdrant.errors import ConfigError


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A corpus and judged queries, embedded."""

    doc_ids: Sequence[str]
    vectors: Matrix  # (n, d)
    query_ids: Sequence[str]
    queries: Matrix  # (m, d)
    qrels: Qrels  # its queries in the order of `query_ids`

    def __post_init__(self) -> None:
        """Check that ids, vectors and judgements belong together."""
        if len(self.doc_ids) != len(self.vectors) or len(self.query_ids) != len(self.queries):
            raise ConfigError(
                f"a task needs one vector an id, got {len(self.vectors)} vectors for "
                f"{len(self.doc_ids)} documents and {len(self.queries)} for "
                f"{len(self.query_ids)} queries"
            )
        if list(self.qrels) != list(self.query_ids):
            raise ConfigError("a task needs judgements of each query, in the order of the queries")


class Measured(NamedTuple):
    """What was measured of one system."""

    name: str
    found: Found  # (m, k)
    ndcg: Floats  # (m,) nDCG@k
    recall: Floats  # (m,) recall@k of the exact dense neighbours
    build: BuildReport
    footprint: Footprint
    latency: Latency  # of searching, encoding not included
    postings: float | None  # mean of postings touched a query, in multiples of n; codes only


def compare(
    systems: Sequence[System],
    task: Task,
    folder: Path,
    *,
    k: int = 10,
    timed: int = 300,
    progress: Callable[[str], None] = lambda step: None,
) -> list[Measured]:
    """Build all systems in `folder`, and measure them; they stay open.

    Latencies are those of `timed` queries spread over the task's, all systems in turn, once all
    are built. `progress` is told each step before it begins.
    """
    names = [system.name for system in systems]
    if len(set(names)) < len(names):
        raise ConfigError(f"systems need names of their own, got {', '.join(names)}")
    progress("exact neighbours")
    exact = exact_neighbours(task.queries, task.vectors, k)
    built, found = [], []
    for number, system in enumerate(systems):
        progress(system.name)
        built.append(system.build(task.vectors, folder / f"system-{number}"))
        found.append(system.search(task.queries, k))
    progress("latencies")
    timings = latencies(
        {system.name: system.calls(_spread(task.queries, timed), k) for system in systems}
    )
    return [
        Measured(
            system.name,
            results,
            ndcg(run_of(task.query_ids, task.doc_ids, *results), task.qrels, k),
            recall(results.rows, task.queries, task.vectors, k, exact),
            report,
            system.footprint(),
            timings[system.name],
            _postings(system, task.queries),
        )
        for system, report, results in zip(systems, built, found, strict=True)
    ]


def _spread(queries: Matrix, count: int) -> Matrix:
    chosen: npt.NDArray[np.int64] = np.linspace(
        0, len(queries) - 1, min(count, len(queries)), dtype=np.int64
    )
    return queries[chosen]


def _postings(system: System, queries: Matrix) -> float | None:
    return float(system.postings(queries).mean()) if isinstance(system, CsrSystem) else None
