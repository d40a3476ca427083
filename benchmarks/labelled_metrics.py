"""Measures of search among labelled vectors: do the nearest rows carry the query's label?

Each function takes the results of one search, the gallery's labels and those that the queries want,
and returns one value a query, (m,) in 0..1, so that systems can be compared query by query. Scores
are cosines. A result that was not found (row -1) carries no label.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from csr_qdrant.benchmarks.metrics import Floats, Rows
from csr_qdrant.benchmarks.neighbours import Neighbours
from csr_qdrant.errors import ConfigError

Vote = Literal["uniform", "distance", "exponential"]
Bools = npt.NDArray[np.bool_]

SAME_SCORE = 1e-6  # cosines in float32 are not known any better
TEMPERATURE = 0.07  # of exponential votes (arXiv 1805.01978, section 3.4)
VOTE_BLOCK = 1 << 22  # pairs of neighbours that are held at a time


def top1(
    found: Neighbours, labels: Rows, wanted: Rows, *, ties: Literal["first", "mean"] = "first"
) -> Floats:
    """Return whether the first result has the wanted label: 1-NN classification.

    The papers' measure of ImageNet (arXiv 2205.13147; 2503.01776, table 4). Short
    codes have few different scores: where several rows share the best one, `"first"` takes the
    one that the search put first, and `"mean"` the share of them with the label, the expectation
    over their order as far as the results reach.
    """
    right = matches(found, labels, wanted, found.rows.shape[1] if ties == "mean" else 1)
    if ties == "first":
        return right[:, 0].astype(np.float64)
    best = (found.rows >= 0) & (found.scores >= found.scores[:, :1] - SAME_SCORE)
    return np.asarray((right & best).sum(axis=1) / np.maximum(best.sum(axis=1), 1), np.float64)


def tied_first(found: Neighbours) -> Bools:
    """Return for which queries the second result scores as high as the first, (m,)."""
    if found.rows.shape[1] < 2:
        raise ConfigError("ties for the first place show in two results or more, got one a query")
    close = found.scores[:, 1] >= found.scores[:, 0] - SAME_SCORE
    return np.asarray((found.rows[:, 1] >= 0) & close, np.bool_)


def knn_top1(
    found: Neighbours,
    labels: Rows,
    wanted: Rows,
    k: int,
    *,
    vote: Vote = "uniform",
    temperature: float = TEMPERATURE,
) -> Floats:
    """Return whether the vote of the `k` first results elects the wanted label.

    Args:
        found: results of a search, at least k a query.
        labels: of the gallery, (n,).
        wanted: of the queries, (m,).
        k: voters.
        vote: their weights. `"uniform"`: all the same; `"distance"`: 1 / (1 − cosine), as
            scikit-learn's `weights="distance", metric="cosine"`; `"exponential"`:
            exp(cosine / temperature), usual for image features (arXiv 1805.01978).
        temperature: of exponential votes.

    Of labels with equally many votes the smallest is elected, as in scikit-learn.
    """
    matches(found, labels, wanted, k)  # for its checks
    rows, scores = found.rows[:, :k], found.scores[:, :k].astype(np.float64)
    weights = np.where(rows >= 0, _weights(scores, vote, temperature), 0)
    cast = np.asarray(labels)[np.maximum(rows, 0)]
    step = max(1, VOTE_BLOCK // k**2)
    parts = [slice(at, at + step) for at in range(0, max(1, len(rows)), step)]
    elected = np.concatenate([_elected(cast[part], weights[part]) for part in parts])
    return np.asarray((elected == wanted) & (rows >= 0).any(axis=1), np.float64)


def _weights(scores: Floats, vote: Vote, temperature: float) -> Floats:
    if vote == "uniform":
        return np.ones_like(scores)
    if vote == "distance":
        return np.asarray(1 / np.maximum(1 - scores, SAME_SCORE), np.float64)
    if vote == "exponential" and temperature > 0:
        return np.asarray(np.exp((scores - 1) / temperature), np.float64)
    raise ConfigError(
        f"votes are {', '.join(get_args(Vote))} with a temperature above 0, got {vote!r} and "
        f"{temperature}"
    )


def _elected(cast: Rows, weights: Floats) -> Rows:
    """Return the label with the most votes of each row of (b, k) labels and weights, (b,)."""
    same = cast[:, :, None] == cast[:, None, :]  # (b, k, k)
    votes = np.where(same, weights[:, None, :], 0).sum(axis=2)
    leading = votes >= votes.max(axis=1, keepdims=True)
    return np.asarray(np.where(leading, cast, np.iinfo(np.int64).max).min(axis=1), np.int64)


def precision(found: Neighbours, labels: Rows, wanted: Rows, k: int) -> Floats:
    """Return P@k: the share of the `k` first results that have the wanted label.

    The denominator is k, whatever was found (arXiv 2205.13147; RAIVNLab/MRL at 23d9b52,
    `retrieval/compute_metrics.py`).
    """
    return np.asarray(matches(found, labels, wanted, k).sum(axis=1) / k, np.float64)


def average_precision(found: Neighbours, labels: Rows, wanted: Rows, k: int) -> Floats:
    """Return AP@k as Matryoshka Representation Learning reports it; its mean is mAP@k.

    AP@k = 1/k · Σ_{i ≤ k} P@i · [result i has the wanted label]

    The denominator is k (arXiv 2205.13147; RAIVNLab/MRL at 23d9b52,
    `retrieval/compute_metrics.py`). Definitions that divide by min(k, relevant rows), or by the
    relevant rows found, give more where a class has fewer than k rows, or where results are wrong.
    """
    right = matches(found, labels, wanted, k)
    precisions = right.cumsum(axis=1) / np.arange(1, k + 1)
    return np.asarray(np.where(right, precisions, 0).sum(axis=1) / k, np.float64)


def matches(found: Neighbours, labels: Rows, wanted: Rows, k: int) -> Bools:
    """Return which of the `k` first results have the label that their query wants, (m, k).

    Raises ConfigError if there are fewer results a query, or not one label a query.
    """
    if not 1 <= k <= found.rows.shape[1]:
        raise ConfigError(
            f"this measure needs {k} results a query (at least 1, at most the gallery's rows), "
            f"got {found.rows.shape[1]}"
        )
    if len(found.rows) != len(wanted):
        raise ConfigError(
            f"results need one wanted label a query, got {len(found.rows)} rows of results and "
            f"{len(wanted)} labels"
        )
    rows = found.rows[:, :k]
    labels = np.asarray(labels)
    return np.asarray((rows >= 0) & (labels[np.maximum(rows, 0)] == wanted[:, None]), np.bool_)


def depth_of(*, ranks: Sequence[int] = (10,), knn: Sequence[int] = ()) -> int:
    """Return how many results a query the measures of `labelled_judge` need."""
    return max(1, *ranks, *knn) if (*ranks, *knn) else 1


def labelled_judge(
    labels: Rows,
    wanted: Rows,
    *,
    ranks: Sequence[int] = (10,),
    knn: Sequence[int] = (),
    vote: Vote = "uniform",
) -> Callable[[Neighbours], dict[str, Floats]]:
    """Return a function from results to all measures by name.

    They are `top1`, `knn@K` for each of `knn`, and `map@K` and `precision@K` for each of `ranks`
    (the papers': 10, 25, 50, 100). Results of the first queries only are judged by their labels.
    """

    def judge(found: Neighbours) -> dict[str, Floats]:
        asked = wanted[: len(found.rows)]
        values = {"top1": top1(found, labels, asked)}
        for k in knn:
            values[f"knn@{k}"] = knn_top1(found, labels, asked, k, vote=vote)
        for k in ranks:
            values[f"map@{k}"] = average_precision(found, labels, asked, k)
            values[f"precision@{k}"] = precision(found, labels, asked, k)
        return values

    return judge
