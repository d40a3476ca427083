"""Every store must answer alike: the same suite over each engine."""

import uuid
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest

from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.ids import PointId
from csr_qdrant.stores.base import Datatype, Hit, PointBatch, Schema, Search, Store

MakeStore = Callable[..., Store]

H, K, D, N = 64, 6, 8, 200
SCHEMA = Schema(h=H)
DENSE_SCHEMA = Schema(h=H, dense_dim=D)


def random_codes(n: int, seed: int, k: int = K) -> SparseCodes:
    rng = np.random.default_rng(seed)
    latents = np.argsort(rng.random((n, H)), axis=1)[:, :k]
    strengths = rng.random((n, k), dtype=np.float32) + 0.1
    return SparseCodes.from_topk(latents, strengths, H).normalised()


def random_dense(n: int, seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)


def batch(
    codes: SparseCodes,
    ids: list[PointId] | None = None,
    dense: npt.NDArray[np.float32] | None = None,
    payloads: list[dict[str, Any]] | None = None,
) -> PointBatch:
    n = len(codes)
    return PointBatch(ids or list(range(n)), codes, dense, payloads or [{} for _ in range(n)])


def filled(make_store: MakeStore, schema: Schema = SCHEMA) -> Store:
    store = make_store(schema)
    dense = random_dense(N, 2) if schema.dense_dim else None
    payloads: list[dict[str, Any]] = [{"row": row, "even": row % 2 == 0} for row in range(N)]
    store.upsert(batch(random_codes(N, 1), dense=dense, payloads=payloads))
    return store


def one_hot(*latents: int) -> SparseCodes:
    return SparseCodes.from_dense(np.eye(H, dtype=np.float32)[list(latents)])


EMPTY = SparseCodes.from_dense(np.zeros((1, H), np.float32))


# --- searching ----------------------------------------------------------------------------------


def expected(queries: SparseCodes, documents: SparseCodes) -> npt.NDArray[np.float64]:
    left, right = queries.to_dense(), documents.to_dense()
    return left.astype(np.float64) @ right.astype(np.float64).T


def check_hits(hits: list[Hit], scores: npt.NDArray[np.float64], tolerance: float) -> None:
    """Check ids and scores against exact ones; equal scores may come in any order."""
    assert len({hit.id for hit in hits}) == len(hits)
    for hit in hits:
        assert hit.score == pytest.approx(scores[int(hit.id)], abs=tolerance)
    best = np.sort(scores[scores > 0])[::-1][: len(hits)]
    np.testing.assert_allclose([hit.score for hit in hits], best, atol=tolerance)


@pytest.mark.parametrize("optimise", [False, True])
def test_hits_have_the_exact_dot_products(make_store: MakeStore, optimise: bool) -> None:
    store, queries = filled(make_store), random_codes(7, 3)
    if optimise:
        store.optimise()
    scores = expected(queries, random_codes(N, 1))
    found = store.search(Search(codes=queries, limit=10))
    assert [len(hits) for hits in found] == [10] * 7
    for hits, row in zip(found, scores, strict=True):
        check_hits(hits, row, 1e-5)
    assert found[0][0].payload == {"row": found[0][0].id, "even": int(found[0][0].id) % 2 == 0}


def test_one_query_is_answered_as_in_a_batch(make_store: MakeStore) -> None:
    store, queries = filled(make_store), random_codes(4, 4)
    together = store.search(Search(codes=queries, limit=5))
    alone = [store.search(Search(codes=queries[i : i + 1], limit=5))[0] for i in range(4)]
    assert together == alone
    assert store.search(Search(codes=queries[:0], limit=5)) == []


@pytest.mark.parametrize("datatype", get_args(Datatype))
def test_datatypes_stay_close_to_the_exact_scores(
    make_store: MakeStore, datatype: Datatype
) -> None:
    store, queries = filled(make_store, Schema(h=H, datatype=datatype)), random_codes(5, 3)
    store.optimise()
    tolerance = {"f32": 1e-5, "f16": 2e-3, "u8": 2e-2}[datatype]
    scores = expected(queries, random_codes(N, 1))
    for hits, row in zip(store.search(Search(codes=queries, limit=8)), scores, strict=True):
        check_hits(hits, row, tolerance)


def test_only_points_that_share_a_latent_are_found(make_store: MakeStore) -> None:
    store = make_store(SCHEMA)
    store.upsert(batch(one_hot(3, 4, 3), payloads=[{"n": 0}, {"n": 1}, {"n": 2}]))
    (hits,) = store.search(Search(codes=one_hot(3), limit=100))
    assert {(hit.id, hit.score) for hit in hits} == {(0, 1.0), (2, 1.0)}
    assert store.search(Search(codes=one_hot(9), limit=100)) == [[]]


def test_a_query_may_use_fewer_or_more_latents_than_the_documents(make_store: MakeStore) -> None:
    store = filled(make_store)
    for k in (1, 2, 20):
        query = random_codes(1, 5, k)
        (hits,) = store.search(Search(codes=query, limit=5))
        check_hits(hits, expected(query, random_codes(N, 1))[0], 1e-5)


def test_filters_hold_in_search(make_store: MakeStore) -> None:
    store, query = filled(make_store), random_codes(1, 3)
    wanted = {"must": [{"key": "even", "match": {"value": True}}]}
    (hits,) = store.search(Search(codes=query, limit=N, filter=wanted))
    scores = expected(query, random_codes(N, 1))[0]
    assert {hit.id for hit in hits} == {i for i in range(0, N, 2) if scores[i] > 0}
    assert store.count(wanted) == N // 2


def test_payload_of_hits_can_be_chosen(make_store: MakeStore) -> None:
    store, query = filled(make_store), random_codes(1, 3)

    def first(payload: bool | list[str]) -> dict[str, Any]:
        return store.search(Search(codes=query, limit=1, payload=payload))[0][0].payload

    assert set(first(True)) == {"row", "even"}
    assert set(first(["row"])) == {"row"}
    assert first(False) == {}


# --- rescoring ----------------------------------------------------------------------------------


def cosines(
    query: npt.NDArray[np.float32], documents: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    left, right = query.astype(np.float64), documents.astype(np.float64)
    scaled: npt.NDArray[np.float64] = (right @ left) / np.linalg.norm(right, axis=1)
    return scaled / np.linalg.norm(left)


@pytest.mark.parametrize("dense_datatype", ["f32", "f16"])
def test_candidates_are_rescored_by_the_exact_cosine(
    make_store: MakeStore, dense_datatype: Any
) -> None:
    schema = Schema(h=H, dense_dim=D, dense_datatype=dense_datatype)
    store, codes, dense = filled(make_store, schema), random_codes(3, 3), random_dense(3, 4)
    store.optimise()
    found = store.search(Search(codes=codes, limit=10, dense=dense, candidates=40))
    by_code = expected(codes, random_codes(N, 1))
    for hits, query, scores in zip(found, dense, by_code, strict=True):
        candidates = np.argsort(-scores, kind="stable")[:40]
        exact = cosines(query, random_dense(N, 2))
        best = candidates[np.argsort(-exact[candidates])][:10]
        tolerance = 1e-5 if dense_datatype == "f32" else 2e-3
        np.testing.assert_allclose([hit.score for hit in hits], exact[best], atol=tolerance)
        if dense_datatype == "f32":  # half precision may swap neighbours
            assert [hit.id for hit in hits] == best.tolist()
        for hit in hits:
            assert hit.score == pytest.approx(exact[int(hit.id)], abs=tolerance)
        assert hits[0].payload["row"] == hits[0].id


def test_rescoring_keeps_to_the_filter_and_to_the_candidates(make_store: MakeStore) -> None:
    store, codes, dense = filled(make_store, DENSE_SCHEMA), random_codes(1, 3), random_dense(1, 4)
    wanted = {"must_not": [{"key": "even", "match": {"value": True}}]}
    request = Search(codes=codes, limit=50, filter=wanted, dense=dense, candidates=7)
    (hits,) = store.search(request)
    scores = expected(codes, random_codes(N, 1))[0]
    odd = np.arange(1, N, 2)
    assert {hit.id for hit in hits} == set(odd[np.argsort(-scores[odd])][:7].tolist())


# --- writing and reading back -------------------------------------------------------------------


def test_points_come_back_as_they_were_written(make_store: MakeStore) -> None:
    store, codes, dense = make_store(DENSE_SCHEMA), random_codes(2, 6), random_dense(2, 6)
    payload = {"text": "Ærøskøbing 東京 🦀", "nested": {"a": [1, 2.5, None, True]}, "empty": None}
    store.upsert(batch(codes, [7, 8], dense, [payload, {}]))
    points = {point.id: point for point in store.retrieve([7, 8, 99])}
    assert points.keys() == {7, 8}
    assert points[7].payload == payload and points[8].payload == {}
    for point, (indices, values), vector in zip(
        (points[7], points[8]), codes.to_lists(), dense, strict=True
    ):
        assert point.code is not None and point.dense is not None
        assert point.code[0] == indices
        np.testing.assert_allclose(point.code[1], values, atol=1e-7)
        np.testing.assert_allclose(point.dense, vector / np.linalg.norm(vector), atol=1e-6)


def test_ids_of_both_kinds_survive(make_store: MakeStore) -> None:
    store, name = make_store(SCHEMA), str(uuid.uuid5(uuid.NAMESPACE_DNS, "example"))
    ids: list[PointId] = [0, 2**63, 2**64 - 1, name]
    store.upsert(batch(one_hot(1, 1, 1, 1), ids))
    assert {point.id for point in store.retrieve(ids)} == set(ids)
    assert {hit.id for hit in store.search(Search(codes=one_hot(1), limit=9))[0]} == set(ids)
    assert store.scroll(10)[0][-1].id == name
    store.delete([2**64 - 1, name])
    assert {point.id for point in store.scroll(10)[0]} == {0, 2**63}


def test_upsert_replaces_the_whole_point(make_store: MakeStore) -> None:
    store = make_store(DENSE_SCHEMA)
    store.upsert(batch(one_hot(1, 2), dense=random_dense(2, 1), payloads=[{"a": 1}, {"b": 2}]))
    store.upsert(batch(one_hot(5), [0], random_dense(1, 9), [{"c": 3}]))
    (point,) = store.retrieve([0])
    assert point.payload == {"c": 3} and point.code == ([5], [1.0])
    assert store.count() == 2
    assert store.search(Search(codes=one_hot(1), limit=5)) == [[]]
    store.upsert(batch(EMPTY, [0], random_dense(1, 9), [{}]))  # it loses its code as well
    (point,) = store.retrieve([0])
    assert point.code is None and point.payload == {}
    assert store.search(Search(codes=one_hot(5), limit=5)) == [[]]


def test_points_without_latents_are_kept_and_not_found(make_store: MakeStore) -> None:
    store = make_store(SCHEMA)
    store.upsert(batch(SparseCodes.concatenate([one_hot(1), EMPTY]), payloads=[{}, {"x": "y"}]))
    assert store.count() == 2
    (point,) = store.retrieve([1])
    assert point.code is None and point.payload == {"x": "y"}
    assert [hit.id for hit in store.search(Search(codes=one_hot(1), limit=5))[0]] == [0]
    assert store.count({"must": [{"has_vector": "csr"}]}) == 1


def test_deleted_points_are_gone(make_store: MakeStore) -> None:
    store = filled(make_store)
    store.delete([1, 2, 3, 100_000])
    store.delete([])
    assert store.count() == N - 3
    assert [point.id for point in store.retrieve([1, 2, 4])] == [4]
    (hits,) = store.search(Search(codes=random_codes(N, 1)[1:2], limit=N))
    assert not {1, 2, 3} & {hit.id for hit in hits}


def test_scroll_walks_all_points_by_rising_id(make_store: MakeStore) -> None:
    store = make_store(SCHEMA)
    ids: list[PointId] = [int(i) for i in np.random.default_rng(0).permutation(25) * 3]
    store.upsert(batch(random_codes(25, 1), ids))
    seen: list[PointId] = []
    offset: PointId | None = None
    while True:
        points, offset = store.scroll(10, offset)
        seen += [point.id for point in points]
        if offset is None:
            break
    assert seen == sorted(ids, key=int)
    points, _ = store.scroll(2, 4)
    assert [point.id for point in points] == [6, 9]
    assert points[0].code is not None


def test_more_points_than_one_call_takes_all_arrive(make_store: MakeStore) -> None:
    store, n = make_store(SCHEMA), 1000
    store.upsert(batch(random_codes(n, 8)))
    assert store.count() == n
    assert store.info().points == n
    assert store.retrieve([n - 1])[0].code is not None


# --- metadata -----------------------------------------------------------------------------------


def test_metadata_come_back(make_store: MakeStore) -> None:
    store = make_store(SCHEMA, {"encoder": {"h": H, "names": ["a", "ü"]}, "n": 1})
    assert store.metadata() == {"encoder": {"h": H, "names": ["a", "ü"]}, "n": 1}
    store.write_metadata("encoder", {"k": 2})  # replaced whole, not merged
    store.write_metadata("progress", [1, 2, {"x": None}])
    store.write_metadata("n", None)
    store.write_metadata("never there", None)
    assert store.metadata() == {"encoder": {"k": 2}, "progress": [1, 2, {"x": None}]}


def test_metadata_that_were_given_out_are_copies(make_store: MakeStore) -> None:
    store = make_store(SCHEMA, {"list": [1]})
    store.metadata()["list"].append(2)
    assert store.metadata() == {"list": [1]}


# --- refusals -----------------------------------------------------------------------------------


def wide(n: int) -> SparseCodes:
    return SparseCodes.from_dense(np.ones((n, H + 1), np.float32))


def test_points_that_do_not_fit_are_refused_and_nothing_is_written(make_store: MakeStore) -> None:
    store, codes, dense = make_store(DENSE_SCHEMA), random_codes(2, 1), random_dense(2, 1)
    broken = dense.copy()
    broken[1, 3] = np.nan
    bad: list[tuple[PointBatch, str]] = [
        (batch(wide(2), dense=dense), "64 latents, got codes over 65"),
        (batch(codes, dense=dense[:, :5]), r"shape \(n, 8\), got \(2, 5\)"),
        (batch(codes, dense=broken), "NaN or infinity in row 1"),
        (batch(codes, dense=dense[:1]), "1 dense vectors"),
        (batch(codes), "dense vectors of 8 dimensions"),
        (batch(codes, [1], dense), "got 1 ids, 2 codes"),
        (PointBatch([1, 2], codes, dense, [{}]), "1 payloads"),
    ]
    for points, message in bad:
        with pytest.raises(CsrError, match=message):
            store.upsert(points)
    assert store.count() == 0


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}])
def test_a_payload_that_is_no_json_names_its_point_and_stops_the_batch(
    make_store: MakeStore, value: Any
) -> None:
    store, n = make_store(SCHEMA), 600
    payloads: list[dict[str, Any]] = [{} for _ in range(n)]
    payloads[n - 1] = {"bad": value}
    with pytest.raises(CsrError, match=f"point {n - 1} cannot be stored"):
        store.upsert(batch(random_codes(n, 1), payloads=payloads))
    assert store.count() == 0


def test_dense_vectors_are_refused_where_none_are_kept(make_store: MakeStore) -> None:
    store = make_store(SCHEMA)
    with pytest.raises(CsrError, match="keeps no dense vectors: write"):
        store.upsert(batch(random_codes(2, 1), dense=random_dense(2, 1)))
    with pytest.raises(CsrError, match="cannot rescore"):
        store.search(
            Search(codes=random_codes(1, 1), limit=1, dense=random_dense(1, 1), candidates=5)
        )


def test_searches_that_cannot_work_are_refused(make_store: MakeStore) -> None:
    store, codes, dense = filled(make_store, DENSE_SCHEMA), random_codes(2, 1), random_dense(2, 1)
    bad: list[tuple[Search, type[CsrError], str]] = [
        (Search(codes=codes, limit=0), ConfigError, "limit must be at least 1, got 0"),
        (Search(codes=wide(1), limit=1), CsrError, "got codes over 65"),
        (
            Search(codes=SparseCodes.concatenate([codes, EMPTY]), limit=1),
            CsrError,
            "query 2 has none",
        ),
        (Search(codes=codes, limit=1, dense=dense), ConfigError, "candidates must be at least 1"),
        (
            Search(codes=codes, limit=1, dense=dense[:1], candidates=1),
            CsrError,
            "got 1 and 2",
        ),
        (
            Search(codes=codes, limit=1, dense=dense * np.inf, candidates=1),
            CsrError,
            "NaN or infinity in row 0",
        ),
        (Search(codes=codes, limit=1, filter={"musst": []}), CsrError, "does not know 'musst'"),
    ]
    for request, error, message in bad:
        with pytest.raises(error, match=message):
            store.search(request)


def test_a_closed_store_says_so(make_store: MakeStore) -> None:
    store = make_store(SCHEMA)
    store.close()
    store.close()
    for call in (
        store.count,
        lambda: store.upsert(batch(one_hot(1))),
        lambda: store.search(Search(codes=one_hot(1), limit=1)),
        lambda: store.scroll(1),
        lambda: store.delete([1]),
    ):
        with pytest.raises(CsrError, match="is closed: open it again"):
            call()


def test_names_of_vectors_can_be_chosen(make_store: MakeStore) -> None:
    schema = Schema(h=H, dense_dim=D, code_name="topics", dense_name="bge")
    store = filled(make_store, schema)
    (hits,) = store.search(
        Search(codes=random_codes(1, 3), limit=3, dense=random_dense(1, 3), candidates=9)
    )
    assert len(hits) == 3
    assert store.schema == schema
