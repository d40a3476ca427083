"""What a trainer reads: rows, their order and split, labels, pairs and the batches made of them."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csr_qdrant.errors import CsrError
from csr_qdrant.trainer import data as data_module
from csr_qdrant.trainer.data import (
    Batch,
    Index,
    Matches,
    Order,
    Split,
    check_vectors,
    gather,
    prefetched,
    spread,
    typical_norm,
)
from csr_qdrant.trainer.sampling import LabelSampler, PairSampler, sampler
from csr_qdrant.trainer.supervision import Labels, Pairs

quick = settings(max_examples=30, deadline=None)


def numbered(n: int, d: int = 2) -> Any:
    """Return rows that tell their number: row i is (i + 1, −i − 1, …)."""
    return ((np.arange(n) + 1)[:, None] * (-1.0) ** np.arange(d)).astype(np.float32)


def numbers(batch: Batch) -> list[int]:
    return [int(x) - 1 for x in batch.x[:, 0]]


# --- order and split ----------------------------------------------------------------------


@quick
@given(st.integers(1, 900), st.integers(0, 400), st.integers(0, 5), st.integers(0, 3))
def test_every_row_comes_once_an_epoch(n: int, batch: int, seed: int, epoch: int) -> None:
    order = Order(n, batch, (seed, 2))
    assert order.steps_per_epoch == -(-n // max(1, batch))
    first = epoch * order.steps_per_epoch
    steps = [order.at(first + i) for i in range(order.steps_per_epoch)]
    sizes = [len(step) for step in steps]
    assert max(sizes) <= max(1, batch) and max(sizes) - min(sizes) <= 1
    assert sorted(np.concatenate(steps).tolist()) == list(range(n))


def test_an_order_depends_on_seed_and_step_alone() -> None:
    order, again = Order(1000, 64, (7, 2)), Order(1000, 64, (7, 2))
    later = again.at(40)
    assert all(order.at(step).tolist() == again.at(step).tolist() for step in (3, 0, 40))
    assert later.tolist() == order.at(40).tolist()
    assert order.at(3).tolist() != Order(1000, 64, (8, 2)).at(3).tolist()
    assert order.at(0).tolist() != order.at(order.steps_per_epoch).tolist()


def test_orders_are_spread_evenly() -> None:
    """Every row is as likely at every place, and neighbours are no likelier to stay so."""
    n, seeds = 16, 4000
    orders = np.stack([Order(n, n, (seed,)).at(0) for seed in range(seeds)])
    expected = seeds / n
    for place in range(n):
        counts = np.bincount(orders[:, place], minlength=n)
        assert ((counts - expected) ** 2 / expected).sum() < 45  # χ² of 15: p ≈ 1e-4
    steps = (orders[:, 1:] - orders[:, :-1]) % n
    assert (steps == 1).mean() == pytest.approx(1 / (n - 1), rel=0.06)
    big = Order(100_000, 100_000, (1,)).at(0)
    assert abs(np.corrcoef(big, np.arange(100_000))[0, 1]) < 0.02


def test_an_order_of_billions_of_rows_takes_no_memory() -> None:
    rows = Order(5_000_000_000, 1000, (0,)).at(4_000_000)
    assert len(set(rows.tolist())) == 1000
    assert rows.min() >= 0 and rows.max() < 5_000_000_000 and rows.max() > 4_000_000_000


@quick
@given(st.integers(1, 500), st.data())
def test_training_rows_are_all_but_the_held_out_ones(n: int, data: st.DataObject) -> None:
    held = data.draw(st.sets(st.integers(0, n - 1), max_size=n))
    split = Split(n, np.array(sorted(held), np.int64))
    rows = split.training(np.arange(split.training_rows))
    assert rows.tolist() == sorted(set(range(n)) - held)
    shuffled = np.random.default_rng(0).permutation(split.training_rows)
    assert split.training(shuffled).tolist() == rows[shuffled].tolist()


@pytest.mark.parametrize(
    ("n", "asked", "held"), [(100, 5, 5), (100, 50, 10), (9, 1, 0), (1, 10, 0), (50, 0, 0)]
)
def test_at_most_a_tenth_is_held_out(n: int, asked: int, held: int) -> None:
    split = Split.random(n, asked, seed=0)
    assert len(np.unique(split.held_out)) == held == n - split.training_rows
    assert split.held_out.tolist() == Split.random(n, asked, seed=0).held_out.tolist()


@quick
@given(st.integers(1, 10_000), st.integers(1, 300))
def test_spread_rows_rise_and_are_different(n: int, count: int) -> None:
    rows = spread(n, count)
    assert len(rows) == min(n, count) and rows[0] == 0 and rows[-1] < n
    assert (np.diff(rows) > 0).all()
    assert n <= count or np.diff(rows, append=n).max() <= n // count + 1


# --- reading ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint16])
def test_rows_come_as_float32_in_the_order_asked_for(dtype: Any, tmp_path: Path) -> None:
    x = (np.arange(60).reshape(20, 3) % 100 + 1).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    rows = np.array([7, 0, 19, 7, 3])
    block = gather(mapped, rows)
    assert block.dtype == np.float32 and block.flags.c_contiguous
    assert block.tolist() == x[rows].astype(np.float32).tolist()


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (0.0, "row 5 of the training vectors is all zeros, so it has no direction: mend or"),
        (np.nan, "row 5 of the training vectors holds NaN or infinity: mend or remove it"),
        (-np.inf, "row 5 of the training vectors holds NaN or infinity"),
        (1e30, "row 5 of the training vectors holds values up to 1.0e+30, which float32 cannot"),
        (1e300, "row 5 of the training vectors holds values up to 1.0e\\+300"),
        (1e-30, "row 5 of the training vectors holds values up to 1.0e-30"),
    ],
)
def test_the_first_row_without_a_direction_is_named(value: float, sentence: str) -> None:
    x = np.ones((10, 3))
    x[5] = x[8] = value
    with pytest.raises(CsrError, match=sentence.replace("+30,", r"\+30,")):
        gather(x, np.array([9, 8, 1, 5]))
    assert gather(x, np.array([9, 1, 0])).shape == (3, 3)


@pytest.mark.parametrize(
    ("vectors", "sentence"),
    [
        (np.ones(4), r"must have shape \(n, d\) with rows in it, got \(4,\)"),
        (np.ones((0, 4)), r"got \(0, 4\)"),
        (np.ones((4, 0)), r"got \(4, 0\)"),
        (np.array([["a", "b"]]), "must be numbers, got <U1"),
        (np.ones((2, 2), complex), "must be numbers, got complex128"),
    ],
)
def test_arrays_that_are_no_vectors_are_refused(vectors: Any, sentence: str) -> None:
    with pytest.raises(CsrError, match=sentence):
        check_vectors(vectors)


def test_small_arrays_are_checked_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    x = numbered(9001)
    norms = np.linalg.norm(x.astype(np.float64), axis=1)
    assert typical_norm(x) == pytest.approx(norms.mean())
    x[8765, 1] = np.nan
    with pytest.raises(CsrError, match="row 8765 "):
        typical_norm(x)
    monkeypatch.setattr(data_module, "CHECKED_BYTES", 1000)
    monkeypatch.setattr(data_module, "SAMPLED_ROWS", 500)
    assert typical_norm(x) == pytest.approx(norms.mean(), rel=0.01)


# --- labels -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["b", "a", "b", "c"], [1, 0, 1, 2]),
        ([10, -3, 10, 7], [2, 0, 2, 1]),
        (np.array([2**40, 5, 5]), [1, 0, 0]),
        ([True, False, True], [1, 0, 1]),
        (["b", "", "b", "a"], [1, -1, 1, 0]),
        (["b", None, "b", "a"], [1, -1, 1, 0]),
        ([1.0, np.nan, 1.0, 0.5], [1, -1, 1, 0]),
    ],
)
def test_labels_are_numbered(labels: Any, expected: list[int]) -> None:
    assert Labels.of(labels, len(expected)).of_row.tolist() == expected


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (["a", "b"], r"labels must be one a row: 3 rows, got labels of shape \(2,\)"),
        (np.zeros((3, 1)), r"got labels of shape \(3, 1\)"),
        ([4, 4, 4], "labels must differ, got a single label"),
        ([4, None, 4], "labels must differ, got a single label"),
        ([None, "", None], "labels must differ, got none at all"),
        ([1, 2, 3], "labels must be shared by rows"),
        (np.array([1, "a", 1], dtype=object), "must be all numbers or all strings"),
    ],
)
def test_labels_that_tell_nothing_are_refused(labels: Any, sentence: str) -> None:
    with pytest.raises(CsrError, match=sentence):
        Labels.of(labels, 3)


@quick
@given(st.integers(2, 400), st.integers(1, 60), st.integers(2, 64), st.integers(0, 1000))
def test_every_row_of_a_batch_has_a_partner_where_there_is_one(
    n: int, classes: int, batch_size: int, step: int
) -> None:
    rng = np.random.default_rng((n, classes))
    of_row = rng.integers(-1, classes, n)
    split = Split.random(n, 40, seed=1)
    made = LabelSampler.of(numbered(n), split, Labels(of_row), batch_size, seed=1)
    training = split.training(np.arange(split.training_rows))
    shared = Counter(of_row[training].tolist())
    anchors = split.training(made.order.at(step))
    partners = made.partners(anchors, step)
    assert np.isin(partners, training).all()
    for row, partner in zip(anchors.tolist(), partners.tolist(), strict=True):
        if of_row[row] >= 0 and shared[of_row[row]] > 1:
            assert of_row[partner] == of_row[row] and partner != row
    batch = made.at(step)
    assert len(batch.x) <= max(2, batch_size)
    assert numbers(batch) == sorted(set(anchors.tolist()) | set(partners.tolist()))
    assert batch.labels is not None and batch.labels.tolist() == of_row[numbers(batch)].tolist()


def test_partners_are_any_other_row_of_the_label_alike() -> None:
    of_row = np.array([0, 1, 0, 0, 1, 0, 2, 0])
    made = LabelSampler.of(numbered(8), Split.random(8, 0, 0), Labels(of_row), 4, seed=0)
    rows = np.array([3])
    found = Counter(int(made.partners(rows, step)[0]) for step in range(2000))
    assert set(found) == {0, 2, 5, 7}
    assert min(found.values()) > 420


# --- pairs --------------------------------------------------------------------------------


def test_pairs_keep_positive_scores() -> None:
    pairs = Pairs.of(numbered(3), [0, 1, 2, 2], [5, 6, 7, 8], [1.0, 0.0, -1.0, 0.5])
    assert pairs.query_rows.tolist() == [0, 2]
    assert pairs.document_rows.tolist() == [5, 8]
    assert pairs.scores.tolist() == [1.0, 0.5]
    assert Pairs.of(numbered(3), [0], [1]).scores.tolist() == [1.0]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda q: Pairs.of(q, [0, 1], [0]), "pairs need equal counts, got 2, 1 and 2"),
        (lambda q: Pairs.of(q, [0], [0], [0.0]), "at least one with a score above 0"),
        (lambda q: Pairs.of(q, [], []), "at least one"),
        (lambda q: Pairs.of(q, [0], [0], [np.nan]), "scores of pairs must be finite"),
        (lambda q: Pairs.of(q[0], [0], [0]), r"the query vectors must have shape \(n, d\)"),
        (lambda q: Pairs.of(q, [0, 3], [0, 0]).check(numbered(4)), "query row 3, but there are 3"),
        (lambda q: Pairs.of(q, [0, -1], [0, 0]).check(numbered(4)), "query row -1, but"),
        (lambda q: Pairs.of(q, [0, 1], [9, 4]).check(numbered(9)), "document row 9, but there a"),
        (lambda q: Pairs.of(q, [0], [0]).check(numbered(4, 3)), "equal dimensions, got 2 and 3"),
    ],
)
def test_pairs_that_cannot_be_are_refused(make: Callable[[Any], Any], sentence: str) -> None:
    with pytest.raises(CsrError, match=sentence):
        make(numbered(3))


@quick
@given(st.integers(1, 60), st.integers(1, 30), st.integers(1, 50), st.data())
def test_a_batch_of_pairs_holds_each_row_once(
    n: int, m: int, batch_size: int, data: st.DataObject
) -> None:
    index = st.tuples(st.integers(0, m - 1), st.integers(0, n - 1))
    judged = np.array(data.draw(st.lists(index, min_size=1, max_size=40)))
    queries = -numbered(m)
    pairs = Pairs.of(queries, judged[:, 0], judged[:, 1], 1 + np.arange(len(judged)))
    split = Split.random(n, 5, 0)
    made = sampler(numbered(n), split, None, pairs, batch_size, 0)
    assert isinstance(made, PairSampler)
    pairs_seen: list[tuple[int, int]] = []
    for step in range(made.pair_order.steps_per_epoch):
        batch = made.at(step)
        assert len({tuple(row) for row in batch.x.tolist()}) == len(batch.x)
        assert isinstance(batch.matches, Matches)
        # Queries are the rows whose first number is negative.
        q = (-batch.x[batch.matches.queries, 0] - 1).astype(int).tolist()
        r = (batch.x[batch.matches.documents, 0] - 1).astype(int).tolist()
        rows = made.pair_order.at(step)
        assert (q, r) == (judged[rows, 0].tolist(), judged[rows, 1].tolist())
        assert batch.matches.weights.tolist() == (1 + rows).tolist()
        assert not batch.matches.known.diagonal().any()
        pairs_seen += zip(q, r, strict=True)
    assert Counter(pairs_seen) == Counter(map(tuple, judged.tolist()))
    rows_seen: list[int] = []
    for step in range(made.order.steps_per_epoch):
        rows_seen += made.order.at(step).tolist()
    assert sorted(rows_seen) == list(range(split.training_rows + m))


# --- reading ahead ------------------------------------------------------------------------


def test_batches_come_in_order_one_ahead() -> None:
    asked: list[int] = []

    def make(step: int) -> Batch:
        asked.append(step)
        return Batch(np.full((1, 1), step))

    batches = prefetched(make, 5)
    assert [int(next(batches).x[0, 0]) for _ in range(4)] == [5, 6, 7, 8]
    batches.close()
    assert asked in ([5, 6, 7, 8], [5, 6, 7, 8, 9])


def test_an_error_in_the_reading_thread_comes_out_as_itself_when_its_step_comes() -> None:
    def make(step: int) -> Batch:
        if step == 2:
            raise CsrError("row 7 is all zeros")
        return Batch(np.zeros((1, 1)))

    batches = prefetched(make, 0)
    next(batches), next(batches)
    with pytest.raises(CsrError, match=r"^row 7 is all zeros$"):
        next(batches)
    with pytest.raises(StopIteration):
        next(batches)


def test_closing_ends_the_reading_thread() -> None:
    import threading

    def threads() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith("batches")]

    batches = prefetched(lambda step: Batch(np.zeros((1, 1))), 0)
    next(batches)
    assert threads()
    batches.close()
    assert not threads()


def test_row_samplers_read_training_rows_only() -> None:
    split = Split(10, np.array([2, 5]))
    made = sampler(numbered(10), split, None, None, 3, 0)
    seen: list[int] = []
    for step in range(3):
        batch = made.at(step)
        assert batch.labels is None and batch.matches is None
        seen += numbers(batch)
    assert sorted(seen) == [0, 1, 3, 4, 6, 7, 8, 9]
    index: Index = np.array([0])
    assert split.training(index).dtype == np.int64
