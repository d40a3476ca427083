"""The exact nearest neighbours that every approximate system is held against."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from csr_qdrant.errors import ConfigError

Matrix = npt.NDArray[np.float32]


class Neighbours(NamedTuple):
    """The nearest rows of m queries, best first; equal scores stand by rising row number."""

    rows: npt.NDArray[np.int64]  # (m, k)
    scores: npt.NDArray[np.float32]  # (m, k)


def exact_neighbours(
    queries: Matrix, vectors: Matrix, k: int, *, query_block: int = 256, row_block: int = 16_384
) -> Neighbours:
    """Return the min(k, n) rows of `vectors` (n, d) with the largest cosine to each query (m, d).

    `vectors` may be a memory map: no more than `row_block` rows, and `query_block` x `row_block`
    scores, are held at a time. Zero vectors have cosine 0.
    """
    if k < 1 or not len(vectors):
        raise ConfigError(f"neighbours need k >= 1 and vectors, got k={k}, {len(vectors)} vectors")
    k = min(k, len(vectors))
    unit = unit_rows(queries)
    rows = np.empty((len(unit), 0), np.int64)
    scores = np.empty((len(unit), 0), np.float32)
    for start in range(0, len(vectors), row_block):
        block = unit_rows(vectors[start : start + row_block])
        found = [_best(unit[i : i + query_block] @ block.T, k) for i in _steps(unit, query_block)]
        rows = np.hstack([rows, np.vstack([part.rows for part in found]) + start])
        scores = np.hstack([scores, np.vstack([part.scores for part in found])])
        order = _by_score_and_row(rows, scores)[:, :k]
        rows = np.take_along_axis(rows, order, axis=1)
        scores = np.take_along_axis(scores, order, axis=1)
    return Neighbours(rows, scores)


def unit_rows(vectors: npt.ArrayLike) -> Matrix:
    """Return the rows at L2 norm 1, (n, d) float32; zero rows stay zero."""
    rows = np.asarray(vectors, np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1), np.float32)


def _steps(queries: Matrix, size: int) -> range:
    # One step even without queries, so that the results keep their shapes.
    return range(0, max(len(queries), 1), size)


def _best(scores: Matrix, k: int) -> Neighbours:
    """Return the k best columns of (b, n) scores, unordered among themselves but for ties.

    Of several columns with the k-th score the lowest are taken, as `Neighbours` promises.
    """
    k = min(k, scores.shape[1])
    worst = np.partition(scores, scores.shape[1] - k, axis=1)[:, -k][:, None]
    better, equal = scores > worst, scores == worst
    room = k - better.sum(axis=1, keepdims=True)
    rows = np.nonzero(better | (equal & (np.cumsum(equal, axis=1) <= room)))[1].reshape(-1, k)
    return Neighbours(rows, np.take_along_axis(scores, rows, axis=1))


def _by_score_and_row(rows: npt.NDArray[np.int64], scores: Matrix) -> npt.NDArray[Any]:
    by_row = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(scores, by_row, axis=1)
    by_score = np.argsort(-ordered, axis=1, kind="stable")
    return np.take_along_axis(by_row, by_score, axis=1)
