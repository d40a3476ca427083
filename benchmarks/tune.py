"""How to ask a collection: query k and candidates to rescore, for a recall or a latency.

Queries are points of the collection itself, each left out of its own answers, or vectors that are
given. What is right is what the engine finds by the dense vectors when it looks at every point.
Every setting of the grid answers every query; a setting is chosen on the first half of the queries
and reported on the second, so that the figures aren't those of a lucky pick.
"""

import math
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from csr_qdrant.benchmarks.matrix.statistics import mean_interval
from csr_qdrant.benchmarks.measure import Latency, latency_of
from csr_qdrant.benchmarks.metrics import Floats, Interval
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.benchmarks.tune_codes import Postings, check_norms
from csr_qdrant.collection import Collection
from csr_qdrant.errors import ConfigError
from csr_qdrant.ids import PointId
from csr_qdrant.sources.collection_points import CollectionVectors
from csr_qdrant.stores.base import Search
from csr_qdrant.stores.reading import ScoredId

DOCUMENTS = 1000  # points whose codes tell how long the posting lists are, at least
TIES = 20  # further neighbours that are looked at, for some may be as near as the last that counts
TIMINGS = 5  # searches at most until one needs no second try
MANY_TIES = 1000  # where even these are all as near, as copies of one document are
WARM_UP = 5  # queries asked once more beforehand, untimed
FEWEST = 20  # queries that can be halved and still say something
SHARES_OF_K = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1, 2)
TIMES_LIMIT = (0, 2, 5, 10, 20, 50)


class Setting(NamedTuple):
    """One way to ask."""

    k: int  # active latents of the query
    candidates: int  # hits scored anew by their dense vectors; 0: none


class Questions(NamedTuple):
    """Queries with the neighbours that are right, and points that stand for the collection."""

    vectors: Matrix  # (m, d)
    own: list[PointId | None]  # the point that a query is, which does not count
    right: list[frozenset[PointId]]  # the nearest, and those as near as the last of them
    wanted: list[int]  # how many of `right` there are to find
    documents: list[PointId]  # (n,)
    points: int  # of the collection


class Measured(NamedTuple):
    """What a setting gave, query by query."""

    setting: Setting
    recalls: Floats  # (m,)
    seconds: Floats  # (m,): encoding and the call to the engine
    postings: float  # entries of the index that a query touches, estimated

    def half(self, which: int) -> "Figures":
        """Return the figures of the even (0) or odd (1) queries."""
        recalls, seconds = self.recalls[which::2], self.seconds[which::2]
        seconds = seconds[np.isfinite(seconds)]
        if not len(seconds):
            return Figures(mean_interval(recalls), Latency(math.inf, math.inf, math.inf))
        return Figures(mean_interval(recalls), latency_of(seconds.tolist()))


class Figures(NamedTuple):
    """Recall with its 95 % interval, and latency, over some queries."""

    recall: Interval
    latency: Latency


def questions(
    points: CollectionVectors, m: int, limit: int, *, given: Matrix | None = None, seed: int = 0
) -> Questions:
    """Return `m` sampled points, or the `given` vectors (m, d), as queries with their neighbours.

    Raises ConfigError for fewer than 20 queries.
    """
    sample = points.sample(max(DOCUMENTS, m), seed)
    vectors = sample.vectors[:m] if given is None else given
    if len(vectors) < FEWEST:
        raise ConfigError(
            f"tuning needs at least {FEWEST} queries, half to choose by and half to report, got "
            f"{len(vectors)}: give more of them"
        )
    own: list[PointId | None] = [None] * len(vectors)
    if given is None:
        own = [*sample.ids[:m]]
    right, wanted = [], []
    for row, found, itself in zip(
        range(len(vectors)), points.nearest(vectors, limit + 1 + TIES), own, strict=True
    ):
        if len(found) > limit + TIES and _tied(found[limit - 1], found[-1]):
            (found,) = points.nearest(vectors[row : row + 1], limit + 1 + MANY_TIES)
        others = [each for each in found if each.id != itself]
        right.append(_right(others, limit))
        wanted.append(min(limit, len(others)))
    return Questions(vectors, own, right, wanted, sample.ids, points.count)


def _right(others: Sequence[ScoredId], limit: int) -> frozenset[PointId]:
    if not others:
        return frozenset()
    last = others[:limit][-1]
    near = [each.id for each in others[limit:] if _tied(last, each)]
    return frozenset([each.id for each in others[:limit]] + near)


def _tied(one: ScoredId, other: ScoredId) -> bool:
    return abs(one.score - other.score) <= 1e-6 * abs(one.score)


def grid(
    collection: Collection, limit: int, ks: Sequence[int] = (), candidates: Sequence[int] = ()
) -> list[Setting]:
    """Return the settings to try; without `ks` and `candidates`, a range around what is usual."""
    k, h = collection.identity.k, collection.encoder.h
    chosen_ks = ks or [min(h, max(1, round(share * k))) for share in SHARES_OF_K]
    chosen = candidates or [times * limit for times in TIMES_LIMIT]
    for each in chosen_ks:
        if not 1 <= each <= h:
            raise ConfigError(f"k must be in 1..{h} (the number of latents), got {each}")
    if min(chosen) < 0:
        raise ConfigError(f"candidates must be at least 0, got {min(chosen)}")
    # So many candidates at least bring the hits themselves.
    sizes = sorted({max(each, limit) if each else 0 for each in chosen})
    return [Setting(k, size) for k in sorted(set(chosen_ks)) for size in sizes]


def measured(
    collection: Collection,
    asked: Questions,
    settings: Sequence[Setting],
    limit: int,
    *,
    seed: int = 0,
    progress: Callable[[], None] = lambda: None,
) -> list[Measured]:
    """Ask every query with every setting, in random order so that noise hits all alike.

    `progress` is called after each query. Raises ConfigError if sampled points cannot stand for
    queries, see `check_norms`.
    """
    check_norms(collection, asked.own, asked.vectors)
    # Before the searches: what comes after thousands of them must not fail any more.
    lengths = Postings.of(collection, asked.documents, asked.vectors, asked.points)
    order = random.Random(seed)
    recalls = np.zeros((len(settings), len(asked.vectors)))
    seconds = np.zeros_like(recalls)
    for row in [*range(min(WARM_UP, len(asked.vectors))), *range(len(asked.vectors))]:
        for place in order.sample(range(len(settings)), len(settings)):
            found, seconds[place, row] = _timed(
                collection, partial(_ask, collection, asked, row, settings[place], limit)
            )
            recalls[place, row] = _recall(asked, row, found, limit)
        progress()
    return [
        Measured(setting, recalls[i], seconds[i], lengths.touched(setting.k))
        for i, setting in enumerate(settings)
    ]


def _timed(collection: Collection, ask: Callable[[], list[PointId]]) -> tuple[list[PointId], float]:
    """Return what a search finds, and the seconds that it took at the first try.

    A search that had to be repeated took the pauses between its tries, too, so it is asked again
    for its time; NaN if it comes through at once in none of a few.
    """
    store = collection.store
    for _ in range(TIMINGS):
        repeats, started = getattr(store, "repeats", 0), time.perf_counter()
        found = ask()
        seconds = time.perf_counter() - started
        if getattr(store, "repeats", 0) == repeats:
            return found, seconds
    return found, math.nan


def _ask(
    collection: Collection, asked: Questions, row: int, setting: Setting, limit: int
) -> list[PointId]:
    """Return the ids that a search finds; a query's own point comes on top of `limit`."""
    more = asked.own[row] is not None
    vector = asked.vectors[row : row + 1]
    codes = collection.encode(vector, setting.k, name="the queries").normalised()
    if not codes.lengths[0]:
        return []
    request = Search(
        codes=codes,
        limit=limit + more,
        dense=vector if setting.candidates else None,
        candidates=setting.candidates + more if setting.candidates else 0,
        payload=False,
    )
    return [hit.id for hit in collection.store.search(request)[0]]


def _recall(asked: Questions, row: int, found: Sequence[PointId], limit: int) -> float:
    others = [each for each in found if each != asked.own[row]][:limit]
    if not asked.wanted[row]:
        return 1.0
    return min(1.0, len(asked.right[row].intersection(others)) / asked.wanted[row])
