"""From rows to points: what is stored for each row, and which rows are refused."""

import uuid
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from csr_qdrant.codes import SparseCodes
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError, RowError
from csr_qdrant.points import Rows, make_points

D, H, K = 8, 40, 4
UUID = "6d0f9b1e-4c1d-4a57-9b53-0d2f6a8c7e11"


def encoder() -> Encoder:
    rng = np.random.default_rng(0)
    return Encoder(
        weight=rng.standard_normal((H, D)).astype(np.float32),
        latent_bias=rng.standard_normal(H).astype(np.float32) / np.float32(4),
        pre_bias=np.zeros(D, np.float32),
        k=K,
    )


def vectors(n: int = 5) -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((n, D)).astype(np.float32)


def rows(ids: Any = range(5), dense: Any = None, **fields: Any) -> Rows:
    given = vectors(len(ids)) if dense is None and "codes" not in fields else dense
    return Rows(**{"ids": ids, "vectors": given, "codes": None, "payloads": None} | fields)


def test_codes_are_normalised_and_of_k_latents() -> None:
    points = make_points(rows(), encoder(), 3, keep_dense=False)
    raw = encoder().encode(vectors(), 3).to_dense().astype(np.float64)
    expected = raw / np.sqrt((raw**2).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(points.codes.to_dense(), expected, atol=1e-6)
    np.testing.assert_allclose(points.codes.norms(), 1, atol=1e-6)
    assert points.dense is None
    assert list(points.ids) == [0, 1, 2, 3, 4]
    assert list(points.payloads) == [{}] * 5


def test_codes_given_are_truncated_and_normalised_again() -> None:
    codes = encoder().encode(vectors(), 9)
    points = make_points(rows(codes=codes), encoder(), 3, keep_dense=False)
    assert points.codes.equals(codes.truncated(3).normalised())
    scaled = SparseCodes(codes.indptr, codes.indices, codes.values * np.float32(7), H)
    again = make_points(rows(codes=scaled.normalised()), encoder(), 3, keep_dense=False)
    assert again.codes.equals(points.codes, tolerance=1e-6)


def test_dense_vectors_are_kept_as_they_came() -> None:
    points = make_points(rows(dense=vectors().astype(np.float64)), encoder(), K, keep_dense=True)
    assert points.dense is not None and points.dense.dtype == np.float32
    np.testing.assert_array_equal(points.dense, vectors())


def test_ids_that_qdrant_lacks_stand_in_the_payload() -> None:
    ids = [7, "seven", UUID, uuid.UUID(UUID).hex, np.uint64(2**64 - 1), -7]
    payloads: list[dict[str, Any]] = [{"row": row} for row in range(len(ids))]
    points = make_points(rows(ids, payloads=payloads), encoder(), K, keep_dense=False)
    kept = [point.get("_id") for point in points.payloads]
    assert kept == [None, "seven", None, uuid.UUID(UUID).hex, None, -7]
    assert points.ids[0] == 7 and points.ids[2] == UUID and points.ids[4] == 2**64 - 1
    assert len({str(uuid.UUID(str(points.ids[row]))) for row in (1, 2, 3, 5)}) == 4
    assert [point["row"] for point in points.payloads] == list(range(6))
    assert payloads == [{"row": row} for row in range(6)]  # the caller's own are left alone


# --- rows of zeros and rows without latents -------------------------------------------------------


def test_a_row_of_zeros_is_named() -> None:
    dense = vectors()
    dense[3] = 0
    with pytest.raises(RowError, match=r"^row 103 of x\.npy is all zeros, so it has") as got:
        make_points(rows(dense=dense, first=100, name="x.npy"), encoder(), K, keep_dense=False)
    assert got.value.row == 103


def test_a_row_that_float32_turns_into_zeros_is_named() -> None:
    dense = vectors().astype(np.float64)
    dense[2] *= 1e-300
    with pytest.raises(RowError, match="row 2 of the vectors is all zeros"):
        make_points(rows(dense=dense), encoder(), K, keep_dense=False)


def test_rows_of_zeros_are_stored_without_a_code_on_request() -> None:
    dense = vectors()
    dense[[0, 3]] = 0
    assert encoder().encode(dense).lengths.all()  # the biases alone would make codes
    points = make_points(rows(dense=dense), encoder(), K, keep_dense=True, skip_zero=True)
    assert points.codes.lengths.tolist() == [0, K, K, 0, K]
    kept = encoder().encode(dense[[1, 2, 4]]).normalised()
    assert points.codes[[1, 2, 4]].equals(kept, tolerance=1e-6)
    assert len(points) == 5 and points.dense is not None and not points.dense[0].any()


def test_rows_without_active_latents_stay() -> None:
    codes = SparseCodes.from_dense(np.eye(3, H) * [[1], [0], [2]])
    points = make_points(rows(range(3), codes=codes), encoder(), K, keep_dense=False)
    assert points.codes.lengths.tolist() == [1, 0, 1]
    assert list(points.ids) == [0, 1, 2]


# --- refusals -------------------------------------------------------------------------------------


def test_a_row_that_is_not_finite_is_named() -> None:
    dense = vectors()
    dense[4, 7] = np.inf
    with pytest.raises(RowError, match="row 14 of the vectors holds NaN, infinity") as got:
        make_points(rows(dense=dense, first=10), encoder(), K, keep_dense=False, skip_zero=True)
    assert got.value.row == 14


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (rows(range(4), vectors()), "rows need equal counts, got 4 ids, 5 vectors: give one of"),
        (rows(payloads=[{}] * 3), "got 5 ids, 5 vectors, 3 payloads"),
        (rows(codes=SparseCodes.from_dense(np.ones((2, H)))), "got 5 ids, 2 codes"),
        (rows(["a", "b", "a", "c", "d"]), "id 'a' stands twice among the rows: give each row"),
        (rows([1, 2, 3, np.int64(2), 4]), "id 2 stands twice"),
        (rows([1, 2, 3, 4.5, 4]), r"ids must be integers, strings or UUIDs, got float 4\.5"),
        (rows(payloads=[{}, {"_id": 3}, {}, {}, {}]), "payload key '_id' is reserved .* id 1:"),
        (rows(dense=vectors()[:, :7]), r"takes vectors of shape \(n, 8\), got \(5, 7\)"),
    ],
)
def test_rows_that_cannot_be_stored(given: Rows, message: str) -> None:
    with pytest.raises(CsrError, match=message):
        make_points(given, encoder(), K, keep_dense=False)


def test_vectors_or_codes_and_not_both() -> None:
    codes = encoder().encode(vectors())
    for given in (rows(dense=vectors(), codes=codes), Rows(range(5), None, None, None)):
        with pytest.raises(ConfigError, match="give exactly one of vectors and codes"):
            make_points(given, encoder(), K, keep_dense=False)
    with pytest.raises(ConfigError, match="dense vectors are kept here, got codes alone"):
        make_points(rows(codes=codes), encoder(), K, keep_dense=True)


def test_the_rows_before_one() -> None:
    codes = SparseCodes.from_dense(np.eye(5, H))
    given = rows(codes=codes, payloads=[{"row": row} for row in range(5)], first=10, name="x")
    before = given.before(13)
    assert list(before.ids) == [0, 1, 2] and before.first == 10 and before.name == "x"
    assert before.codes is not None and before.codes.equals(codes[:3])
    assert before.payloads == [{"row": 0}, {"row": 1}, {"row": 2}]
    assert before.vectors is None
    assert len(given.before(10).ids) == 0
    np.testing.assert_array_equal(rows(first=3).before(5).vectors, vectors()[:2])
