"""Exact neighbours by FAISS, on a GPU where there is one; in numpy where FAISS is missing.

The ground truth of fidelity, and the evaluator of the papers' nearest-neighbour classification.
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from csr_qdrant.benchmarks.neighbours import Matrix, Neighbours, exact_neighbours, unit_rows
from csr_qdrant.errors import ConfigError

ROWS = 65_536  # of the vectors that are searched at once
QUERIES = 4096

Search = Callable[[Matrix, Matrix, int], tuple[Any, Any]]  # queries, vectors, k -> scores, rows


def ground_truth(queries: Matrix, vectors: Matrix, k: int) -> Neighbours:
    """Return the min(k, n) rows of `vectors` (n, d) with the largest cosine to each query (m, d).

    `vectors` may be a memory map; a block of rows is held at a time. Equal scores stand by rising
    row number; of several rows with the last score any may be left out.
    """
    search = _faiss()
    if search is None:
        return exact_neighbours(queries, vectors, k)
    return blockwise(search, queries, vectors, k)


def blockwise(search: Search, queries: Matrix, vectors: Matrix, k: int) -> Neighbours:
    """Search blocks of `vectors` in turn, and keep the best of all."""
    if k < 1 or not len(vectors):
        raise ConfigError(f"neighbours need k >= 1 and vectors, got k={k}, {len(vectors)} vectors")
    asked, k = unit_rows(queries), min(k, len(vectors))
    best_rows = np.empty((len(asked), 0), np.int64)
    best_scores = np.empty((len(asked), 0), np.float32)
    for start in range(0, len(vectors), ROWS):
        block = unit_rows(vectors[start : start + ROWS])
        found = [
            search(asked[i : i + QUERIES], block, min(k, len(block)))
            for i in range(0, max(1, len(asked)), QUERIES)
        ]
        rows = np.hstack([best_rows, np.vstack([part for _, part in found]) + start])
        scores = np.hstack([best_scores, np.vstack([part for part, _ in found])])
        order = np.lexsort((rows, -scores), axis=1)[:, :k]
        best_rows = np.take_along_axis(rows, order, axis=1)
        best_scores = np.take_along_axis(scores, order, axis=1)
    return Neighbours(best_rows, best_scores)


def _faiss() -> Search | None:
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it tells which instructions it tries
    try:
        import faiss
    except ImportError:  # comes with the extra `bench`, or `gpu`
        return None
    inner_product = faiss.METRIC_INNER_PRODUCT
    if hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus():
        resources = faiss.StandardGpuResources()
        return lambda queries, vectors, k: faiss.knn_gpu(
            resources, queries, vectors, k, metric=inner_product
        )
    return lambda queries, vectors, k: faiss.knn(queries, vectors, k, metric=inner_product)
