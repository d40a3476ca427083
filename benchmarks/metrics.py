"""Measures of quality: agreement with human judgements, and with exact dense search."""

from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from csr_qdrant.benchmarks.neighbours import Matrix, Neighbours, exact_neighbours, unit_rows
from csr_qdrant.errors import ConfigError

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Qrels = Mapping[str, Mapping[str, int]]  # query id -> document id -> grade
Run = Mapping[str, Mapping[str, float]]  # query id -> document id -> score

# Scores are recomputed here by another summation order than the engine's.
TIE_TOLERANCE = 1e-5


class Interval(NamedTuple):
    """A mean difference and its bootstrap interval."""

    mean: float
    low: float
    high: float


def run_of(query_ids: Sequence[str], doc_ids: Sequence[str], rows: Rows, scores: Matrix) -> Run:
    """Return search results as a run; `rows` (m, limit) are row numbers, -1 where none was found.

    Every query has an entry, so that one without results counts as 0 wherever the run goes.
    """
    if not len(query_ids) == len(rows) == len(scores):
        raise ConfigError(
            f"a run needs one row of results a query, got {len(rows)} rows and "
            f"{len(scores)} rows of scores for {len(query_ids)} queries"
        )
    return {
        query: {doc_ids[row]: score for row, score in zip(found, given, strict=True) if row >= 0}
        for query, found, given in zip(query_ids, rows.tolist(), scores.tolist(), strict=True)
    }


def ndcg(run: Run, qrels: Qrels, k: int = 10) -> Floats:
    """Return nDCG@k of each query of `qrels`, in its order, (m,) in 0..1.

    As trec_eval's `ndcg_cut`: linear gains, discount log2(rank + 1), the ideal ranking made from
    all judgements; scores compared as float32, ties broken by document id, descending. Queries
    that the run lacks, or that have no relevant document, count as 0; others than those of
    `qrels` are ignored.
    """
    if k < 1:
        raise ConfigError(f"k must be at least 1, got {k}")
    values = [_ndcg(run.get(query, {}), grades, k) for query, grades in qrels.items()]
    return np.asarray(values, np.float64)


def mean_ndcg(run: Run, qrels: Qrels, k: int = 10) -> float:
    """Return the mean of `ndcg` over all queries of `qrels`; an error if there are none."""
    if not qrels:
        raise ConfigError("a mean needs judged queries, got no judgements")
    return float(ndcg(run, qrels, k).mean())


def _ndcg(scores: Mapping[str, float], grades: Mapping[str, int], k: int) -> float:
    ideal = _dcg(sorted(grades.values(), reverse=True)[:k])
    ranked = sorted(scores, key=lambda doc: (np.float32(scores[doc]), doc), reverse=True)
    return _dcg([grades.get(doc, 0) for doc in ranked[:k]]) / ideal if ideal else 0.0


def _dcg(grades: Sequence[int]) -> float:
    gains = np.maximum(np.asarray(grades, np.float64), 0)
    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())


def recall(
    found: npt.NDArray[np.integer[Any]],
    queries: Matrix,
    vectors: Matrix,
    k: int = 10,
    neighbours: Neighbours | None = None,
) -> Floats:
    """Return recall@k of each query's found rows against exact dense search, (m,) in 0..1.

    `found` is (m, limit) row numbers, best first, -1 where nothing was found; `queries` (m, d) and
    `vectors` (n, d) are the dense ones. A row counts if its cosine is no worse than that of the
    k-th exact neighbour, so rows tied with it are as good. `neighbours` (at least k of them) saves
    computing them again.
    """
    exact = neighbours or exact_neighbours(queries, vectors, k)
    wanted = min(k, len(vectors))
    if exact.scores.shape[1] < wanted or len(found) != len(queries):
        raise ConfigError(
            f"recall@{k} needs {wanted} exact neighbours and one row of results a query, got "
            f"{exact.scores.shape[1]} neighbours, {len(found)} rows for {len(queries)} queries"
        )
    needed = exact.scores[:, wanted - 1] - TIE_TOLERANCE
    unit = unit_rows(queries)
    return np.asarray(
        [
            _hits(row[:k], unit[i], vectors, float(needed[i])) / wanted
            for i, row in enumerate(found)
        ],
        np.float64,
    )


def _hits(found: Any, query: Matrix, vectors: Matrix, needed: float) -> int:
    rows = np.unique(found[found >= 0])  # a row given twice is found once
    return int((unit_rows(vectors[rows]) @ query >= needed).sum())


def bootstrap_difference(
    ours: npt.ArrayLike,
    baseline: npt.ArrayLike,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the mean of `ours - baseline` (both (m,), paired by query) and its interval.

    The interval holds the share `level` of the means of `resamples` draws of m queries with
    replacement (percentile bootstrap).
    """
    first, second = np.asarray(ours, np.float64), np.asarray(baseline, np.float64)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ConfigError(
            f"paired values need two equal, non-empty arrays, got {first.shape} and {second.shape}"
        )
    if not 0 < level < 1 or resamples < 1:
        raise ConfigError(f"need 0 < level < 1 and resamples >= 1, got {level} and {resamples}")
    means = _resampled_means(first - second, resamples, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float((first - second).mean()), float(low), float(high))


def _resampled_means(values: Floats, resamples: int, generator: np.random.Generator) -> Floats:
    # In blocks: all draws at once would be resamples x m indices.
    sizes = [min(256, resamples - start) for start in range(0, resamples, 256)]
    draws = [generator.integers(0, len(values), (size, len(values))) for size in sizes]
    return np.concatenate([values[draw].mean(axis=1) for draw in draws])


def unseen_judgements(qrels: Qrels, seen: Set[str]) -> Qrels:
    """Return the judgements on documents that are not in `seen`; queries left without any go."""
    kept = {
        query: {doc: grade for doc, grade in grades.items() if doc not in seen}
        for query, grades in qrels.items()
    }
    return {query: grades for query, grades in kept.items() if grades}


def unseen_results(run: Run, seen: Set[str]) -> Run:
    """Return the run without the documents in `seen`, as if the corpus did not hold them.

    Search deeper than the k that is measured, or seen documents crowd out unseen ones.
    """
    return {
        query: {doc: score for doc, score in scores.items() if doc not in seen}
        for query, scores in run.items()
    }
