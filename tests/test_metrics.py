"""Metrics against trec_eval itself and against plain definitions."""

import numpy as np
import numpy.typing as npt
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from csr_qdrant.benchmarks import metrics
from csr_qdrant.benchmarks.neighbours import Neighbours, exact_neighbours, unit_rows
from csr_qdrant.errors import ConfigError

DOCS = st.sampled_from(["d1", "d10", "d2", "D2", "é", "z", "ß", "00", "7", "𝛼", "\uffff"])
QUERIES = st.sampled_from(["q1", "q2", "q3", "q4"])
# Few distinct values, so that most runs hold ties; two differ only beyond float32.
SCORES = st.sampled_from([0.0, -1.5, 0.5, 1.0, 1.0 + 1e-9, 3.25]) | st.floats(-1e6, 1e6, width=32)
RUNS = st.dictionaries(QUERIES, st.dictionaries(DOCS, SCORES), max_size=4)
QRELS = st.dictionaries(
    QUERIES, st.dictionaries(DOCS, st.integers(-1, 4), min_size=1), min_size=1, max_size=4
)


@settings(max_examples=400, deadline=None)
@given(run=RUNS, qrels=QRELS, k=st.sampled_from([1, 2, 3, 5, 10]))
def test_ndcg_is_that_of_trec_eval(
    run: dict[str, dict[str, float]], qrels: dict[str, dict[str, int]], k: int
) -> None:
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {f"ndcg_cut.{k}"})
    theirs = evaluator.evaluate({query: docs for query, docs in run.items() if docs})
    expected = [theirs.get(query, {}).get(f"ndcg_cut_{k}", 0.0) for query in qrels]
    np.testing.assert_allclose(metrics.ndcg(run, qrels, k), expected, rtol=0, atol=1e-9)


def test_ties_go_to_the_larger_document_id() -> None:
    run = {"q": {"a": 1.0, "b": 1.0}}
    assert metrics.ndcg(run, {"q": {"b": 1}}, 1).tolist() == [1.0]
    assert metrics.ndcg(run, {"q": {"a": 1}}, 1).tolist() == [0.0]


def test_missing_queries_count_as_zero_and_foreign_ones_not_at_all() -> None:
    run = {"q1": {"a": 1.0}, "other": {"a": 1.0}}
    qrels = {"q1": {"a": 1}, "q2": {"a": 1}, "q3": {"a": 1}, "q4": {"a": 1}}
    assert metrics.ndcg(run, qrels).tolist() == [1.0, 0.0, 0.0, 0.0]
    assert metrics.mean_ndcg(run, qrels) == 0.25
    with pytest.raises(ConfigError, match="got no judgements"):
        metrics.mean_ndcg(run, {})
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        metrics.ndcg(run, qrels, 0)


def test_run_of_keeps_queries_without_results() -> None:
    rows = np.array([[1, 0], [-1, -1], [0, -1]])
    scores = np.array([[2.0, 1.0], [-np.inf, -np.inf], [0.5, -np.inf]], np.float32)
    run = metrics.run_of(["q1", "q2", "q3"], ["a", "b"], rows, scores)
    assert run == {"q1": {"b": 2.0, "a": 1.0}, "q2": {}, "q3": {"a": 0.5}}
    with pytest.raises(ConfigError, match="3 rows and 3 rows of scores for 1 queries"):
        metrics.run_of(["q1"], ["a", "b"], rows, scores)


def _vectors(n: int, d: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def _in_one_go(
    queries: npt.NDArray[np.float32], vectors: npt.NDArray[np.float32], k: int
) -> npt.NDArray[np.intp]:
    scores = unit_rows(queries).astype(np.float64) @ unit_rows(vectors).astype(np.float64).T
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize(("n", "k", "row_block"), [(1000, 10, 64), (1000, 100, 37), (5, 9, 2)])
def test_blockwise_neighbours_are_those_of_one_product(n: int, k: int, row_block: int) -> None:
    vectors, queries = _vectors(n, 16), _vectors(23, 16, seed=1)
    found = exact_neighbours(queries, vectors, k, query_block=7, row_block=row_block)
    np.testing.assert_array_equal(found.rows, _in_one_go(queries, vectors, k))
    expected = np.take_along_axis(unit_rows(queries) @ unit_rows(vectors).T, found.rows, axis=1)
    np.testing.assert_allclose(found.scores, expected, atol=1e-6)


def test_tied_neighbours_stand_by_row() -> None:
    vectors = np.tile(np.array([[1, 0], [0, 1]], np.float32), (50, 1))
    found = exact_neighbours(np.array([[2, 0]], np.float32), vectors, 7, row_block=9)
    assert found.rows.tolist() == [[0, 2, 4, 6, 8, 10, 12]]
    assert found.scores.tolist() == [[1.0] * 7]


def test_neighbours_of_nothing() -> None:
    assert exact_neighbours(_vectors(0, 4), _vectors(5, 4), 3).rows.shape == (0, 3)
    with pytest.raises(ConfigError, match="got k=3, 0 vectors"):
        exact_neighbours(_vectors(2, 4), _vectors(0, 4), 3)


def test_recall_counts_the_share_of_exact_neighbours() -> None:
    vectors, queries = _vectors(500, 16), _vectors(9, 16, seed=1)
    exact = exact_neighbours(queries, vectors, 20)
    assert metrics.recall(exact.rows, queries, vectors, 10).tolist() == [1.0] * 9
    half = exact.rows[:, [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]]
    assert metrics.recall(half, queries, vectors, 10, exact).tolist() == [0.5] * 9
    beyond = exact.rows[:, 10:]
    assert metrics.recall(beyond, queries, vectors, 10).tolist() == [0.0] * 9
    none = np.full((9, 10), -1)
    assert metrics.recall(none, queries, vectors, 10).tolist() == [0.0] * 9
    repeated = np.repeat(exact.rows[:, :1], 10, axis=1)
    assert metrics.recall(repeated, queries, vectors, 10).tolist() == [0.1] * 9


def test_recall_takes_tied_rows_for_equal() -> None:
    vectors = np.array([[1, 0], [3, 0], [0.5, 0], [0, 1]], np.float32)
    query = np.array([[1, 0]], np.float32)
    for found in ([0, 1], [2, 1], [2, 0]):
        assert metrics.recall(np.array([found]), query, vectors, 2).tolist() == [1.0]
    assert metrics.recall(np.array([[2, 3]]), query, vectors, 2).tolist() == [0.5]
    assert metrics.recall(np.array([[0, 1, 2, 3]]), query, vectors, 10).tolist() == [1.0]


def test_recall_refuses_too_few_exact_neighbours() -> None:
    vectors = _vectors(20, 4)
    few = Neighbours(np.zeros((2, 3), np.int64), np.zeros((2, 3), np.float32))
    with pytest.raises(ConfigError, match="needs 10 exact neighbours"):
        metrics.recall(np.zeros((2, 10), np.int64), vectors[:2], vectors, 10, few)


def test_bootstrap_interval() -> None:
    generator = np.random.default_rng(3)
    baseline = generator.random(400)
    ours = baseline + 0.05 + 0.1 * generator.standard_normal(400)
    found = metrics.bootstrap_difference(ours, baseline)
    error = 1.96 * float(np.std(ours - baseline)) / 20
    assert found.mean == pytest.approx(float(np.mean(ours - baseline)))
    assert found.low == pytest.approx(found.mean - error, abs=0.1 * error)
    assert found.high == pytest.approx(found.mean + error, abs=0.1 * error)
    assert metrics.bootstrap_difference(ours, baseline) == found
    assert metrics.bootstrap_difference(ours, baseline, seed=1) != found


def test_bootstrap_pairs_queries() -> None:
    baseline = np.random.default_rng(0).random(100)
    found = metrics.bootstrap_difference(baseline + 0.25, baseline, resamples=300)
    assert found == pytest.approx((0.25, 0.25, 0.25))
    with pytest.raises(ConfigError, match=r"got \(3,\) and \(2,\)"):
        metrics.bootstrap_difference([1, 2, 3], [1, 2])


def test_judgements_on_documents_not_seen() -> None:
    qrels = {"q1": {"a": 1, "b": 2}, "q2": {"a": 1}}
    assert metrics.unseen_judgements(qrels, {"a"}) == {"q1": {"b": 2}}
    run = {"q1": {"a": 3.0, "c": 2.0, "b": 1.0}, "q2": {"a": 1.0}}
    assert metrics.unseen_results(run, {"a"}) == {"q1": {"c": 2.0, "b": 1.0}, "q2": {}}
