"""What a benchmark is run on: vectors to search, queries, and what tells good results from bad."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np

from csr_qdrant.benchmarks.collection_task import CollectionTask
from csr_qdrant.benchmarks.compare import Task
from csr_qdrant.benchmarks.metrics import Floats, Qrels, Rows, ndcg, run_of
from csr_qdrant.benchmarks.neighbours import Matrix, Neighbours
from csr_qdrant.errors import CsrError

Kind = Literal["retrieval", "labelled", "image-text", "collection"]
Judge = Callable[[Neighbours], Mapping[str, Floats]]


@dataclass(frozen=True, kw_only=True)
class BenchTask:
    """Vectors, queries and measures. Raises CsrError if they do not belong together."""

    name: str
    kind: Kind
    vectors: Matrix  # (n, d), may be a memory map
    queries: Matrix  # (m, d)
    measure: str | None  # of those that `judge` gives, the one to compare by; None: none
    judge: Judge  # (m, depth) results -> each measure's (m,) values in 0..1
    depth: int = 10  # results of a search
    embedder: str | None = None
    labels: Rows | None = None  # of the vectors, to learn from
    pairs: Any = None  # `trainer.Pairs`, to learn from
    clusters: Rows | None = None  # (m,) queries that hang together, such as an image's captions

    def __post_init__(self) -> None:
        """Check shapes."""
        for name, rows in (("vectors", self.vectors), ("queries", self.queries)):
            if rows.ndim != 2 or not len(rows):
                raise CsrError(f"{self.name} needs some {name} (n, d), got shape {rows.shape}")
        if self.vectors.shape[1] != self.queries.shape[1]:
            raise CsrError(
                f"{self.name}: the vectors have {self.vectors.shape[1]} dimensions and the "
                f"queries {self.queries.shape[1]}: embed both with one model"
            )
        if len(self.vectors) < self.depth:
            raise CsrError(f"{self.name} needs {self.depth} rows at least: {len(self.vectors)}")

    @property
    def supervision(self) -> Literal["labels", "pairs"] | None:
        """What encoders and adapters may learn from beside the vectors."""
        if self.labels is not None:
            return "labels"
        return None if self.pairs is None else "pairs"

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits that name the vectors, from a sample of their rows."""
        return _sampled(f"{self.name} {self.kind}", self.vectors)

    @cached_property
    def query_fingerprint(self) -> str:
        """The same of the queries."""
        return _sampled("queries", self.queries)

    @cached_property
    def supervision_fingerprint(self) -> str:
        """Sixteen hex digits that name the labels or pairs."""
        digest = hashlib.sha256()
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels).tobytes())
        if self.pairs is not None:
            for array in (self.pairs.query_rows, self.pairs.document_rows, self.pairs.scores):
                digest.update(np.ascontiguousarray(array).tobytes())
            digest.update(_sampled("pairs", self.pairs.queries).encode())
        return digest.hexdigest()[:16]


def _sampled(name: str, rows: Matrix) -> str:
    digest = hashlib.sha256(f"{name} {rows.shape}".encode())
    chosen = np.unique(np.linspace(0, len(rows) - 1, 256, dtype=np.int64))
    digest.update(np.ascontiguousarray(rows[chosen], np.float32).data)
    return digest.hexdigest()[:16]


def retrieval(
    name: str, task: Task, *, embedder: str | None = None, pairs: Any = None
) -> BenchTask:
    """Return a task of documents and judged queries; nDCG@10 and recall of the relevant."""
    return BenchTask(
        name=name,
        kind="retrieval",
        vectors=task.vectors,
        queries=task.queries,
        measure="ndcg@10",
        judge=partial(_relevant, task),
        embedder=embedder,
        pairs=pairs,
    )


def _relevant(task: Task, found: Neighbours) -> dict[str, Floats]:
    run = run_of(task.query_ids[: len(found.rows)], task.doc_ids, found.rows, found.scores)
    qrels = {query: task.qrels[query] for query in run}
    return {"ndcg@10": ndcg(run, qrels, 10), "hit@1": _hits(run, qrels)}


def _hits(run: Mapping[str, Mapping[str, float]], qrels: Qrels) -> Floats:
    def hit(query: str) -> bool:
        scores = run[query]
        return bool(scores) and qrels[query].get(max(scores, key=lambda d: (scores[d], d)), 0) > 0

    return np.array([hit(query) for query in qrels], np.float64)


def own_vectors(task: CollectionTask) -> BenchTask:
    """Return a collection's own vectors as a task: what agrees with exact dense search is right."""
    return BenchTask(
        name=task.name,
        kind="collection",
        vectors=task.vectors,
        queries=task.queries,
        measure=None,
        judge=lambda found: {},
    )


def limited(task: BenchTask, queries: int | None) -> BenchTask:
    """Return the task with its first `queries` only."""
    if queries is None or queries >= len(task.queries):
        return task
    clusters = None if task.clusters is None else task.clusters[:queries]
    return replace(task, queries=task.queries[:queries], clusters=clusters)
