"""Labelled search against scikit-learn, FAISS, and answers computed by hand."""

from typing import Literal

import faiss
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier  # type: ignore[import-untyped]

from csr_qdrant.benchmarks import labelled_metrics as measures
from csr_qdrant.benchmarks.metrics import Rows
from csr_qdrant.benchmarks.neighbours import Matrix, Neighbours, exact_neighbours, unit_rows
from csr_qdrant.errors import ConfigError

CLASSES = 7


def _clouds(n: int, seed: int) -> tuple[Matrix, Rows]:
    """Return n vectors of 24 dimensions in overlapping classes, and their labels."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((CLASSES, 24))
    labels = rng.integers(CLASSES, size=n)
    rows = centres[labels] + 1.6 * rng.standard_normal((n, 24))
    return rows.astype(np.float32), labels


GALLERY, LABELS = _clouds(600, 0)
QUERIES, WANTED = _clouds(250, 1)
FOUND = exact_neighbours(QUERIES, GALLERY, 30)


def _found(*rows: list[int], scores: list[list[float]] | None = None) -> Neighbours:
    given = np.array(rows)
    falling = np.tile(np.linspace(1, 0, given.shape[1], dtype=np.float32), (len(rows), 1))
    return Neighbours(given, falling if scores is None else np.array(scores, np.float32))


# --- against other implementations ------------------------------------------------------------


def test_the_first_neighbour_is_that_of_faiss() -> None:
    index = faiss.IndexFlatIP(GALLERY.shape[1])
    index.add(unit_rows(GALLERY))
    _, nearest = index.search(unit_rows(QUERIES), 1)
    theirs = LABELS[nearest[:, 0]] == WANTED
    ours = measures.top1(FOUND, LABELS, WANTED)
    assert 0.3 < theirs.mean() < 0.95  # neither trivial nor hopeless
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("k", [1, 2, 5, 20])
@pytest.mark.parametrize("vote", ["uniform", "distance"])
def test_votes_are_those_of_scikit_learn(k: int, vote: Literal["uniform", "distance"]) -> None:
    model = KNeighborsClassifier(k, weights=vote, metric="cosine", algorithm="brute")
    model.fit(GALLERY.astype(np.float64), LABELS)
    theirs = model.predict(QUERIES.astype(np.float64)) == WANTED
    ours = measures.knn_top1(FOUND, LABELS, WANTED, k, vote=vote)
    np.testing.assert_array_equal(ours, theirs)
    assert ours.mean() == pytest.approx(theirs.mean(), abs=1e-9)


@pytest.mark.parametrize("k", [1, 20])
def test_exponential_votes_are_those_of_a_plain_sum(k: int) -> None:
    cosines = torch.from_numpy(unit_rows(QUERIES)) @ torch.from_numpy(unit_rows(GALLERY)).T
    scores, rows = cosines.double().topk(k, dim=1)
    votes = torch.zeros(len(QUERIES), CLASSES, dtype=torch.float64)
    votes.scatter_add_(1, torch.from_numpy(LABELS)[rows], (scores / 0.07).exp())
    theirs = votes.argmax(dim=1).numpy() == WANTED
    ours = measures.knn_top1(FOUND, LABELS, WANTED, k, vote="exponential")
    np.testing.assert_array_equal(ours, theirs)


def _mrl(rows: npt.NDArray[np.int64], labels: Rows, wanted: Rows, k: int) -> tuple[float, float]:
    """Return mAP@k and P@k by the definitions, a query and a rank at a time."""
    averages, shares = [], []
    for found, want in zip(rows, wanted, strict=True):
        total, right = 0.0, 0
        for rank in range(1, k + 1):
            if labels[found[rank - 1]] == want:
                right += 1
                total += right / rank
        averages.append(total / k)
        shares.append(right / k)
    return sum(averages) / len(rows), sum(shares) / len(rows)


@pytest.mark.parametrize("k", [1, 10, 25])
def test_precisions_are_those_of_a_loop(k: int) -> None:
    mean_average, share = _mrl(FOUND.rows, LABELS, WANTED, k)
    ours = measures.average_precision(FOUND, LABELS, WANTED, k)
    assert ours.mean() == pytest.approx(mean_average, abs=1e-12)
    assert measures.precision(FOUND, LABELS, WANTED, k).mean() == pytest.approx(share, abs=1e-12)


# --- by hand ----------------------------------------------------------------------------------


def test_precisions_by_hand() -> None:
    labels = np.array([3, 3, 5, 3, 5])
    found = _found([0, 2, 1, 4], [2, 4, 0, 1], [2, 4, -1, -1], [-1, -1, -1, -1])
    wanted = np.array([3, 3, 5, 5])
    assert measures.precision(found, labels, wanted, 4).tolist() == [1 / 2, 1 / 2, 1 / 2, 0]
    assert measures.precision(found, labels, wanted, 1).tolist() == [1, 0, 1, 0]
    # right at ranks 1 and 3: (1/1 + 2/3) / 4; at 3 and 4: (1/3 + 2/4) / 4; at 1 and 2 of 4 asked.
    expected = [(1 + 2 / 3) / 4, (1 / 3 + 2 / 4) / 4, 2 / 4, 0]
    assert measures.average_precision(found, labels, wanted, 4).tolist() == pytest.approx(expected)
    # the denominator is k, also where class 5 has but two rows and both were found
    assert measures.average_precision(found, labels, wanted, 4)[2] == 0.5


def test_equal_votes_go_to_the_smallest_label() -> None:
    labels = np.array([9, 2, 2, 9, 4])
    found = _found([0, 1, 2, 3, 4])
    for k, elected in ((1, 9), (2, 2), (3, 2), (4, 2), (5, 2)):
        assert measures.knn_top1(found, labels, np.array([elected]), k).tolist() == [1]
    for k, loser in ((2, 9), (4, 9), (5, 4)):
        assert measures.knn_top1(found, labels, np.array([loser]), k).tolist() == [0]


def test_a_near_neighbour_outvotes_two_far_ones() -> None:
    labels = np.array([1, 0, 0])
    found = _found([0, 1, 2], scores=[[0.9, 0.5, 0.4]])
    one = np.array([1])
    assert measures.knn_top1(found, labels, one, 3).tolist() == [0]
    assert measures.knn_top1(found, labels, one, 3, vote="distance").tolist() == [1]
    assert measures.knn_top1(found, labels, one, 3, vote="exponential").tolist() == [1]
    # 1/0.1 = 10 against 1/0.18 + 1/0.2 = 10.6: at distance it needs more
    found = _found([0, 1, 2], scores=[[0.9, 0.82, 0.8]])
    assert measures.knn_top1(found, labels, one, 3, vote="distance").tolist() == [0]


def test_copies_of_the_query_outvote_all_others() -> None:
    labels = np.array([1, 0, 0, 0])
    rounded = float(np.nextafter(np.float32(1), np.float32(2)))
    for best in (1.0, rounded, 1 - 1e-7):
        found = _found([0, 1, 2, 3], scores=[[best, 0.99, 0.99, 0.99]])
        assert measures.knn_top1(found, labels, np.array([1]), 4, vote="distance").tolist() == [1]


def test_who_is_not_found_has_no_vote() -> None:
    labels = np.array([0, 1])
    found = _found([1, -1, -1], [-1, -1, -1])
    for vote in ("uniform", "distance", "exponential"):
        assert measures.knn_top1(found, labels, np.array([1, 0]), 3, vote=vote).tolist() == [1, 0]
    assert measures.top1(found, labels, np.array([1, 0])).tolist() == [1, 0]


def test_ties_for_the_first_place() -> None:
    labels = np.array([0, 1, 1, 0])
    found = _found(
        [0, 1, 2, 3],
        [1, 0, 2, 3],
        [0, 1, 2, 3],
        [-1, -1, -1, -1],
        scores=[[0.5, 0.5, 0.5, 0.1], [0.5, 0.4, 0.3, 0.2], [0.5] * 4, [0] * 4],
    )
    wanted = np.array([1, 1, 1, 1])
    assert measures.top1(found, labels, wanted).tolist() == [0, 1, 0, 0]
    assert measures.top1(found, labels, wanted, ties="mean") == pytest.approx([2 / 3, 1, 1 / 2, 0])
    assert measures.tied_first(found).tolist() == [True, False, True, False]


# --- properties -------------------------------------------------------------------------------


@st.composite
def searches(draw: st.DrawFn) -> tuple[Neighbours, Rows, Rows, int]:
    n, m, k = draw(st.integers(1, 12)), draw(st.integers(1, 6)), draw(st.integers(1, 8))
    label = st.integers(-3, 3)
    labels = np.array(draw(st.lists(label, min_size=n, max_size=n)))
    wanted = np.array(draw(st.lists(label, min_size=m, max_size=m)))
    rows = draw(
        st.lists(st.lists(st.integers(-1, n - 1), min_size=k, max_size=k), min_size=m, max_size=m)
    )
    return _found(*(sorted(row, key=lambda r: r < 0) for row in rows)), labels, wanted, k


@settings(max_examples=200, deadline=None)
@given(search=searches())
def test_measures_hold_together(search: tuple[Neighbours, Rows, Rows, int]) -> None:
    found, labels, wanted, k = search
    first = measures.top1(found, labels, wanted)
    share = measures.precision(found, labels, wanted, k)
    average = measures.average_precision(found, labels, wanted, k)
    for vote in ("uniform", "distance", "exponential"):
        assert measures.knn_top1(found, labels, wanted, 1, vote=vote).tolist() == first.tolist()
    assert measures.precision(found, labels, wanted, 1).tolist() == first.tolist()
    assert measures.average_precision(found, labels, wanted, 1).tolist() == first.tolist()
    assert (average <= share + 1e-12).all()  # P@i is 1 at most
    assert ((share == 1) == (average > 1 - 1e-12)).all()
    # Relabelling the classes in their order changes nothing.
    again = measures.knn_top1(found, labels * 5 + 40, wanted * 5 + 40, k)
    assert again.tolist() == measures.knn_top1(found, labels, wanted, k).tolist()


def test_votes_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measures.knn_top1(FOUND, LABELS, WANTED, 20, vote="distance")
    monkeypatch.setattr(measures, "VOTE_BLOCK", 7 * 400)
    assert measures.knn_top1(FOUND, LABELS, WANTED, 20, vote="distance").tolist() == whole.tolist()


def test_the_judge_gives_all_measures_of_the_first_queries() -> None:
    options = {"ranks": (10, 25), "knn": (20,)}
    assert measures.depth_of(**options) == 25
    assert measures.depth_of(ranks=()) == 1
    judge = measures.labelled_judge(LABELS, WANTED, vote="distance", **options)
    values = judge(Neighbours(FOUND.rows[:99], FOUND.scores[:99]))
    assert list(values) == ["top1", "knn@20", "map@10", "precision@10", "map@25", "precision@25"]
    expected = measures.average_precision(FOUND, LABELS, WANTED, 25)[:99]
    np.testing.assert_array_equal(values["map@25"], expected)
    expected = measures.knn_top1(FOUND, LABELS, WANTED, 20, vote="distance")[:99]
    np.testing.assert_array_equal(values["knn@20"], expected)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs 31 results a query .*, got 30"):
        measures.precision(FOUND, LABELS, WANTED, 31)
    with pytest.raises(ConfigError, match="needs 0 results"):
        measures.knn_top1(FOUND, LABELS, WANTED, 0)
    with pytest.raises(ConfigError, match="got 250 rows of results and 249 labels"):
        measures.top1(FOUND, LABELS, WANTED[1:])
    with pytest.raises(ConfigError, match="got one a query"):
        measures.tied_first(_found([0]))
    with pytest.raises(ConfigError, match="votes are uniform, distance, exponential with"):
        measures.knn_top1(FOUND, LABELS, WANTED, 3, vote="nearest")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"above 0, got 'exponential' and 0\.0"):
        measures.knn_top1(FOUND, LABELS, WANTED, 3, vote="exponential", temperature=0.0)
