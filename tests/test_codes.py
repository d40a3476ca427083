"""SparseCodes: its guarantees, and each operation against a plain loop or a dense matrix."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from qdrant_client import models
from qdrant_edge import SparseVector
from scipy.sparse import coo_array, csr_array

from csr_qdrant import CsrError, SparseCodes

Matrix = npt.NDArray[np.float32]

# Few distinct magnitudes, so that ties are common; wide ones, so that squares leave float32.
VALUES = st.sampled_from([0.0, 0.0, 0.0, 1.0, -1.0, 2.0, 0.5, -0.5, 3.25, 1e-30, 1e30])
MATRICES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 6), st.integers(1, 9)),
    elements=VALUES.map(np.float32).map(float),
)


def codes(*rows: list[float]) -> SparseCodes:
    return SparseCodes.from_dense(np.array(rows, np.float32))


def made(indptr: list[int], indices: list[int], values: list[float], h: int) -> SparseCodes:
    return SparseCodes(
        np.array(indptr, np.int64), np.array(indices, np.uint32), np.array(values, np.float32), h
    )


# --- the guarantees ---------------------------------------------------------------------------


def test_valid_arrays_are_accepted() -> None:
    batch = made([0, 2, 2, 3], [1, 4, 0], [0.5, -2.0, 1.0], 5)
    assert len(batch) == 3
    assert batch.lengths.tolist() == [2, 0, 1]
    assert [row.indices.tolist() for row in batch.rows()] == [[1, 4], [], [0]]
    assert [row.values.tolist() for row in batch.rows()] == [[0.5, -2.0], [], [1.0]]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: made([0, 1], [0], [1.0], 0), "hidden size must be in 1..4294967296, got 0"),
        (lambda: made([0, 1], [0], [1.0], 2**32 + 1), "hidden size must be in"),
        (lambda: made([0, 1], [5], [1.0], 5), "latents must be below h=5, got 5"),
        (lambda: made([0, 2], [2, 1], [1.0, 1.0], 5), "unsorted or twice"),
        (lambda: made([0, 2], [1, 1], [1.0, 1.0], 5), "unsorted or twice"),
        (lambda: made([0, 1, 3], [4, 3, 3], [1.0, 1.0, 1.0], 5), "unsorted or twice"),
        (lambda: made([0, 1], [0], [np.nan], 5), "finite"),
        (lambda: made([0, 1], [0], [np.inf], 5), "finite"),
        (lambda: made([0, 1], [0], [0.0], 5), "zeros"),
        (lambda: made([0, 1], [0], [-0.0], 5), "zeros"),
        (lambda: made([0, 2], [0, 1], [1.0], 5), "as many values as indices, got 1 and 2"),
        (lambda: made([], [], [], 5), "indptr must rise"),
        (lambda: made([1, 2], [0, 1], [1.0, 1.0], 5), "indptr must rise"),
        (lambda: made([0, 1], [0, 1], [1.0, 1.0], 5), "indptr must rise"),
        (lambda: made([0, 2, 1, 2], [0, 1], [1.0, 1.0], 5), "indptr must rise"),
        (
            lambda: SparseCodes(np.array([0]), np.zeros(0, np.int64), np.zeros(0, np.float32), 5),
            "indices must be one-dimensional uint32, got 1-dimensional int64",
        ),
        (
            lambda: SparseCodes(np.array([0]), np.zeros(0, np.uint32), np.zeros(0), 5),  # type: ignore[arg-type]
            "values must be one-dimensional float32, got 1-dimensional float64",
        ),
        (
            lambda: SparseCodes(
                np.zeros((1, 1), np.int64), np.zeros(0, np.uint32), np.zeros(0, np.float32), 5
            ),
            "indptr must be one-dimensional int64, got 2-dimensional int64",
        ),
    ],
)
def test_every_broken_guarantee_is_refused(build: Callable[[], object], words: str) -> None:
    with pytest.raises(CsrError) as caught:
        build()
    assert words in str(caught.value)


def test_a_fall_is_allowed_where_a_row_starts_and_empty_rows_do_not_hide_one() -> None:
    assert len(made([0, 0, 2, 2, 4, 4], [3, 4, 0, 1], [1.0] * 4, 5)) == 5
    with pytest.raises(CsrError, match="unsorted or twice"):
        made([0, 0, 4, 4, 4], [3, 4, 0, 1], [1.0] * 4, 5)


def test_the_largest_latent_of_u32_is_kept() -> None:
    batch = made([0, 2], [0, 2**32 - 1], [1.0, 2.0], 2**32)
    assert list(batch.to_lists()) == [([0, 4294967295], [1.0, 2.0])]


# --- making -----------------------------------------------------------------------------------


def topk_by_loop(indices: npt.NDArray[np.int64], values: Matrix, h: int) -> SparseCodes:
    rows = [
        sorted((int(i), float(v)) for i, v in zip(*pair, strict=True) if v > 0)
        for pair in zip(indices, values, strict=True)
    ]
    bounds = np.cumsum([0, *(len(row) for row in rows)]).tolist()
    flat = [entry for row in rows for entry in row]
    return made(bounds, [i for i, _ in flat], [v for _, v in flat], h)


@given(st.integers(0, 8), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_from_topk_equals_a_plain_loop(n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    h = 12
    indices = np.array([rng.permutation(h)[:k] for _ in range(n)], np.int64).reshape(n, k)
    values = rng.normal(size=(n, k)).astype(np.float32)
    values[rng.random((n, k)) < 0.2] = 0
    expected = topk_by_loop(indices, values, h)
    for dtype in (np.int64, np.int32, np.uint32):
        assert SparseCodes.from_topk(indices.astype(dtype), values, h).equals(expected)


def test_from_topk_takes_strided_arrays_and_leaves_them_alone() -> None:
    indices = np.array([[3, 9, 1], [0, 9, 2]])[:, ::2]
    values = np.array([[1.0, 9.0, 2.0], [-1.0, 9.0, 4.0]], np.float32)[:, ::2]
    batch = SparseCodes.from_topk(indices, values, 10)
    assert list(batch.to_lists()) == [([1, 3], [2.0, 1.0]), ([2], [4.0])]
    assert indices.tolist() == [[3, 1], [0, 2]]
    assert values.tolist() == [[1.0, 2.0], [-1.0, 4.0]]


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf])
def test_from_topk_refuses_values_that_are_not_finite(bad: float) -> None:
    with pytest.raises(CsrError, match="finite"):
        SparseCodes.from_topk(np.array([[0, 1]]), np.array([[1.0, bad]], np.float32), 5)


def test_from_topk_refuses_a_latent_given_twice() -> None:
    with pytest.raises(CsrError, match="unsorted or twice"):
        SparseCodes.from_topk(np.array([[2, 2]]), np.array([[1.0, 2.0]], np.float32), 5)


def test_from_dense_refuses_other_shapes() -> None:
    with pytest.raises(CsrError, match=r"shape \(n, h\), got shape \(3,\)"):
        SparseCodes.from_dense(np.ones(3))


@given(MATRICES)
def test_dense_round_trip(dense: Matrix) -> None:
    batch = SparseCodes.from_dense(dense)
    assert batch.h == dense.shape[1]
    np.testing.assert_array_equal(batch.to_dense(), dense)


@given(MATRICES)
def test_scipy_round_trip(dense: Matrix) -> None:
    batch = SparseCodes.from_dense(dense)
    matrix = batch.to_scipy()
    assert isinstance(matrix, csr_array)
    np.testing.assert_array_equal(matrix.toarray(), dense)
    assert SparseCodes.from_scipy(matrix).equals(batch)


def test_from_scipy_sorts_sums_and_drops_zeros_in_a_copy() -> None:
    data = np.array([1.0, 2.0, 3.0, 1e-60, -3.0, 3.0])
    indices, indptr = np.array([4, 1, 4, 0, 2, 2]), np.array([0, 3, 6])
    matrix = csr_array((data, indices, indptr), shape=(2, 5))
    assert list(SparseCodes.from_scipy(matrix).to_lists()) == [([1, 4], [2.0, 4.0]), ([], [])]
    assert matrix.indices.tolist() == [4, 1, 4, 0, 2, 2]
    assert matrix.data.tolist() == [1.0, 2.0, 3.0, 1e-60, -3.0, 3.0]


def test_from_scipy_takes_other_formats() -> None:
    matrix = coo_array((np.array([1.0, 2.0, 5.0]), ([1, 1, 0], [3, 3, 0])), shape=(2, 4))
    assert list(SparseCodes.from_scipy(matrix).to_lists()) == [([0], [5.0]), ([3], [3.0])]
    assert list(SparseCodes.from_scipy(matrix.tocsc()).to_lists()) == [([0], [5.0]), ([3], [3.0])]


@given(st.lists(hnp.arrays(np.float32, st.tuples(st.integers(0, 4), st.just(7)), elements=VALUES)))
def test_concatenate_is_vstack(parts: list[Matrix]) -> None:
    if not parts:
        return
    joined = SparseCodes.concatenate([SparseCodes.from_dense(part) for part in parts])
    np.testing.assert_array_equal(joined.to_dense(), np.vstack(parts))


def test_concatenate_refuses_nothing_and_unequal_hidden_sizes() -> None:
    with pytest.raises(CsrError, match="at least one batch"):
        SparseCodes.concatenate([])
    with pytest.raises(CsrError, match=r"got \[2, 3\]"):
        SparseCodes.concatenate([codes([1, 0, 1]), codes([1, 0])])


# --- reading ----------------------------------------------------------------------------------


@given(MATRICES, st.slices(6))
def test_slices_are_those_of_the_dense_matrix(dense: Matrix, rows: slice) -> None:
    batch = SparseCodes.from_dense(dense)
    np.testing.assert_array_equal(batch[rows].to_dense(), dense[rows])


@given(MATRICES, st.data())
def test_rows_are_taken_as_numpy_takes_them(dense: Matrix, data: st.DataObject) -> None:
    n = len(dense)
    batch = SparseCodes.from_dense(dense)
    wanted = data.draw(st.lists(st.integers(-n, n - 1)) if n else st.just([]))
    expected = dense[np.array(wanted, np.int64)]
    np.testing.assert_array_equal(batch[wanted].to_dense(), expected)
    np.testing.assert_array_equal(batch[np.array(wanted, np.int64)].to_dense(), expected)
    mask = data.draw(hnp.arrays(bool, n))
    np.testing.assert_array_equal(batch[mask].to_dense(), dense[mask])


def test_single_rows_are_refused_with_the_way_that_works() -> None:
    with pytest.raises(CsrError, match=r"use codes\[i : i \+ 1\]"):
        codes([1.0, 0.0])[0]  # type: ignore[index]


def test_equals_sees_every_difference() -> None:
    batch = codes([1, 0, 2], [0, 0, 0])
    assert batch.equals(codes([1, 0, 2], [0, 0, 0]))
    assert batch.equals(codes([1.25, 0, 2], [0, 0, 0]), tolerance=0.25)
    assert not batch.equals(codes([1.25, 0, 2], [0, 0, 0]), tolerance=0.125)
    assert not batch.equals(codes([1, 2, 0], [0, 0, 0]))
    assert not batch.equals(codes([1, 0, 0], [0, 0, 2]))
    assert not batch.equals(codes([1, 0, 2]))
    assert not batch.equals(codes([1, 0, 2, 0], [0, 0, 0, 0]))


# --- changing ---------------------------------------------------------------------------------


@given(MATRICES)
def test_normalised_rows_have_norm_one_and_keep_their_direction(dense: Matrix) -> None:
    batch = SparseCodes.from_dense(dense).normalised()
    wide = dense.astype(np.float64)
    norms = np.sqrt((wide**2).sum(axis=1))
    np.testing.assert_allclose(batch.norms()[norms > 0], 1.0, rtol=1e-6)
    assert (batch.norms()[norms == 0] == 0).all()
    expected = wide / np.where(norms > 0, norms, 1)[:, None]
    np.testing.assert_allclose(batch.to_dense(), expected, rtol=1e-6, atol=1e-37)


def test_normalised_divides_by_the_euclidean_norm() -> None:
    batch = codes([3, 0, 4], [0, 0, 0], [0, -2, 0])
    np.testing.assert_allclose(batch.normalised().to_dense()[0], [0.6, 0, 0.8], rtol=1e-7)
    np.testing.assert_array_equal(batch.normalised().to_dense()[2], [0, -1, 0])
    assert batch.to_dense()[0].tolist() == [3, 0, 4]
    assert batch.norms().tolist() == [5, 0, 2]


def test_normalised_makes_dot_products_cosines() -> None:
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((20, 30)) < 0.3, rng.exponential(size=(20, 30)), 0)
    unit = SparseCodes.from_dense(dense).normalised().to_scipy()
    lengths = np.linalg.norm(dense, axis=1)
    cosines = (dense @ dense.T) / np.outer(lengths, lengths)
    np.testing.assert_allclose((unit @ unit.T).toarray(), cosines, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1.0, 1e20, 1e38])
def test_normalised_survives_values_whose_squares_leave_float32(scale: float) -> None:
    unit = codes([3 * scale, 0, 2 * scale]).normalised()
    np.testing.assert_allclose(unit.norms(), 1, rtol=1e-6)
    np.testing.assert_allclose(unit.to_dense()[0, 0] / unit.to_dense()[0, 2], 1.5, rtol=1e-6)


def test_normalised_drops_what_underflows_to_zero() -> None:
    unit = codes([1e30, 1e-30, 0], [0, 0, 1]).normalised()
    assert list(unit.to_lists()) == [([0], [1.0]), ([2], [1.0])]


def truncated_by_sorting(dense: Matrix, k: int) -> Matrix:
    cut = np.zeros_like(dense)
    for row, kept in zip(dense, cut, strict=True):
        for column in sorted(np.flatnonzero(row), key=lambda c: (-abs(row[c]), c))[:k]:
            kept[column] = row[column]
    return cut


@given(MATRICES, st.integers(1, 10))
def test_truncated_keeps_the_strongest_with_ties_to_the_lower_index(dense: Matrix, k: int) -> None:
    batch = SparseCodes.from_dense(dense)
    np.testing.assert_array_equal(batch.truncated(k).to_dense(), truncated_by_sorting(dense, k))


def test_truncated_by_hand() -> None:
    batch = codes([1, -3, 2, 2], [0, 0, 0, 5], [0, 0, 0, 0])
    assert list(batch.truncated(2).to_lists()) == [([1, 2], [-3.0, 2.0]), ([3], [5.0]), ([], [])]
    with pytest.raises(CsrError, match="k must be at least 1, got 0"):
        batch.truncated(0)


# --- to other forms ---------------------------------------------------------------------------


def test_to_qdrant_and_to_edge_hold_the_same_values() -> None:
    batch = codes([0, 0.1, 0, 0.2], [0, 0, 0, 0], [7, 0, 0, 0])
    tenth, fifth = float(np.float32(0.1)), float(np.float32(0.2))
    expected: list[tuple[list[int], list[float]]] = [
        ([1, 3], [tenth, fifth]),
        ([], []),
        ([0], [7.0]),
    ]
    assert batch.to_qdrant() == [models.SparseVector(indices=i, values=v) for i, v in expected]
    assert all(type(index) is int for vector in batch.to_qdrant() for index in vector.indices)
    edge = batch.to_edge()
    assert all(isinstance(vector, SparseVector) for vector in edge)
    assert [(list(v.indices), list(v.values)) for v in edge] == expected
