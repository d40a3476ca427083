"""Intervals and paired tests, against scipy and by their properties."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from csr_qdrant.benchmarks.matrix.statistics import compared, holm, mean_interval
from csr_qdrant.errors import ConfigError

RANDOM = np.random.default_rng(0)
OURS = RANDOM.random(300)
BASELINE = np.clip(OURS - 0.03 + 0.2 * RANDOM.standard_normal(300), 0, 1)


def test_an_interval_is_the_percentile_bootstraps() -> None:
    found = mean_interval(OURS)
    expected: Any = stats.bootstrap(
        (OURS,), np.mean, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.mean == pytest.approx(OURS.mean())
    assert found.low == pytest.approx(expected.low, abs=0.003)
    assert found.high == pytest.approx(expected.high, abs=0.003)


def test_the_test_is_a_paired_randomisation() -> None:
    found = compared(OURS, BASELINE)
    expected: Any = stats.permutation_test(
        (OURS, BASELINE),
        lambda a, b: np.mean(a - b),
        permutation_type="samples",
        n_resamples=9999,
        rng=np.random.default_rng(1),
    )
    assert found.p == pytest.approx(expected.pvalue, abs=0.01)
    assert found.better
    gaps = OURS - BASELINE
    assert found.d_z == pytest.approx(gaps.mean() / gaps.std(ddof=1))
    assert (found.wins, found.losses, found.ties) == (
        (gaps > 0).sum(),
        (gaps < 0).sum(),
        (gaps == 0).sum(),
    )


def test_equal_systems_are_not_told_apart() -> None:
    found = compared(OURS, OURS)
    assert (found.p, found.d_z, found.ties) == (1.0, None, 300)
    assert found.difference == (0, 0, 0) and not found.better


def test_clusters_are_drawn_whole() -> None:
    # Five captions of an image that agree say no more than one.
    one = RANDOM.random(60)
    five, images = np.repeat(one, 5), np.repeat(np.arange(60), 5)
    alone, together = mean_interval(five), mean_interval(five, images)
    single = mean_interval(one)
    assert together.high - together.low == pytest.approx(single.high - single.low, rel=0.05)
    assert together.high - together.low > 1.8 * (alone.high - alone.low)
    base = np.repeat(np.clip(one - 0.1, 0, 1), 5)
    assert compared(five, base, images).p >= compared(five, base).p


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.0001, 1), min_size=1, max_size=12))
def test_holm(ps: list[float]) -> None:
    found = holm({str(i): p for i, p in enumerate(ps)})
    assert list(found) == [str(i) for i in range(len(ps))]
    order = np.argsort(ps, kind="stable")
    adjusted = np.array([found[str(i)] for i in order])
    expected = np.minimum(1, np.maximum.accumulate(np.array(ps)[order] * np.arange(len(ps), 0, -1)))
    np.testing.assert_allclose(adjusted, expected)


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(ConfigError, match="paired values need equal arrays"):
        compared(OURS, OURS[1:])
    with pytest.raises(ConfigError, match="clusters must be one a value"):
        mean_interval(OURS, np.zeros(3, np.int64))
    with pytest.raises(ConfigError, match="values of some queries"):
        mean_interval(OURS[:0])
