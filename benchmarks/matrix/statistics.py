"""Is a difference more than chance? Intervals, paired tests and their correction.

After Smucker et al. (CIKM 2007) for the randomisation test, and Holm (1979) for many comparisons
with one baseline. Queries that hang together, such as the captions of one image, are resampled and
flipped together.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from csr_qdrant.benchmarks.metrics import Floats, Interval, Rows
from csr_qdrant.errors import ConfigError

RESAMPLES = 10_000
BLOCK = 256  # resamples at a time
KEPT = 2**27  # draws at most that are kept for the next system
LEVEL = 0.95


Draws: TypeAlias = npt.NDArray[np.uint8]


class Comparison(NamedTuple):
    """One system held against a baseline, query by query."""

    difference: Interval  # mean of ours − baseline's
    p: float  # of a randomisation test that flips signs, two-sided
    wins: int
    losses: int
    ties: int
    d_z: float | None  # mean difference over its standard deviation (Cohen); None without one

    @property
    def better(self) -> bool:
        """Whether the interval lies above 0."""
        return self.difference.low > 0


def mean_interval(values: Floats, clusters: Rows | None = None, *, seed: int = 0) -> Interval:
    """Return the mean of (m,) values with its 95 % percentile bootstrap interval.

    `clusters` (m,) numbers what is resampled together; None: each value alone.
    """
    sums, counts = _clustered(values, clusters)
    means = np.concatenate([s / c for s, c in _resampled(sums, counts, seed)])
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(np.mean(values)), float(low), float(high))


def compared(
    ours: Floats, baseline: Floats, clusters: Rows | None = None, *, seed: int = 0
) -> Comparison:
    """Compare two systems on the same queries, (m,) values each.

    Raises ConfigError if the values do not belong together.
    """
    if np.shape(ours) != np.shape(baseline):
        raise ConfigError(
            f"paired values need equal arrays, got {np.shape(ours)} and {np.shape(baseline)}"
        )
    gaps = np.asarray(ours, np.float64) - np.asarray(baseline, np.float64)
    sums, _ = _clustered(gaps, clusters)
    deviation = float(gaps.std(ddof=1)) if len(gaps) > 1 else 0.0
    return Comparison(
        mean_interval(gaps, clusters, seed=seed),
        _flipped(sums, seed),
        int((gaps > 0).sum()),
        int((gaps < 0).sum()),
        int((gaps == 0).sum()),
        float(gaps.mean() / deviation) if deviation else None,
    )


def holm(ps: Mapping[str, float]) -> dict[str, float]:
    """Return Holm's adjusted p of each comparison of a family, in the order given."""
    adjusted, least = {}, 0.0
    for rank, (name, p) in enumerate(sorted(ps.items(), key=lambda item: item[1])):
        least = max(least, min(1.0, p * (len(ps) - rank)))
        adjusted[name] = least
    return {name: adjusted[name] for name in ps}


def _clustered(values: Floats, clusters: Rows | None) -> tuple[Floats, Floats]:
    """Return the sum and the number of values of each cluster."""
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not len(array):
        raise ConfigError(f"statistics need values of some queries, got shape {array.shape}")
    if clusters is None:
        return array, np.ones(len(array))
    if np.shape(clusters) != array.shape:
        raise ConfigError(f"clusters must be one a value, got {np.shape(clusters)}")
    _, places = np.unique(clusters, return_inverse=True)
    sums: Floats = np.bincount(places, weights=array).astype(np.float64)
    return sums, np.bincount(places).astype(np.float64)


def _resampled(sums: Floats, counts: Floats, seed: int) -> Iterator[tuple[Floats, Floats]]:
    both = np.stack([sums, counts], axis=1)
    blocks = _kept_draws if RESAMPLES * len(sums) <= KEPT else _draws
    for drawn in blocks(len(sums), seed):
        found = drawn.astype(np.float64) @ both
        yield found[:, 0], found[:, 1]


def _draws(m: int, seed: int) -> Iterator[Draws]:
    """Yield how often each resample draws each of m clusters, (up to BLOCK, m) at a time."""
    # A count follows a Poisson distribution of mean 1, or is at most m: it fits into a byte.
    random = np.random.default_rng((seed, 1))
    for start in range(0, RESAMPLES, BLOCK):
        rows = min(BLOCK, RESAMPLES - start)
        places = random.integers(0, m, (rows, m)) + np.arange(rows)[:, None] * m
        yield np.bincount(places.ravel(), minlength=rows * m).reshape(rows, m).astype(np.uint8)


@lru_cache(maxsize=1)
def _kept_draws(m: int, seed: int) -> list[Draws]:
    """Return the same, kept: all systems of a benchmark resample the same queries."""
    return list(_draws(m, seed))


def _flipped(sums: Floats, seed: int) -> float:
    """Return how often signs flipped at random give as large a difference, (hits + 1) / (n + 1)."""
    random, hits = np.random.default_rng((seed, 2)), 0
    observed = abs(sums.sum())
    for start in range(0, RESAMPLES, BLOCK):
        rows = min(BLOCK, RESAMPLES - start)
        signs: npt.NDArray[np.int8] = random.integers(0, 2, (rows, len(sums)), np.int8) * 2 - 1
        # Rounding must not make equal sums differ.
        hits += int((np.abs(signs @ sums) >= observed * (1 - 1e-12)).sum())
    return (hits + 1) / (RESAMPLES + 1)


def ordered(names: Sequence[str], baseline: str) -> list[str]:
    """Return the names of what is compared with `baseline`; raises ConfigError if it is missing."""
    if baseline not in names:
        raise ConfigError(f"no system is called {baseline!r}: choose one of {', '.join(names)}")
    return [name for name in names if name != baseline]
