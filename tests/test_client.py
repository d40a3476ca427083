"""CsrQdrant: writes that add codes and queries that use them, in one call each."""

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from grpc import RpcError  # type: ignore[import-untyped]
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse
from qdrant_client.http.models import QueryResponse

from csr_qdrant import Collection, CsrQdrant
from csr_qdrant.codes import SparseCodes
from csr_qdrant.deployment.attach import attach_on
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.requests import filtered

sys.path.insert(0, str(Path(__file__).parent))
from client_world import (
    NAMES,
    Calls,
    D,
    N,
    Words,
    configs,
    dense_vectors,
    expected_codes,
    points,
    ranked_by_code,
    stored,
)
from engines import open_client


class World(NamedTuple):
    raw: QdrantClient
    calls: Calls
    ours: CsrQdrant
    name: str
    vectors: Any
    encoder: Encoder


@pytest.fixture(
    params=[("memory", "unnamed"), ("memory", "named"), ("rest", "named"), ("grpc", "unnamed")],
    ids="-".join,
)
def world(request: pytest.FixtureRequest, tiny_encoder: Encoder) -> Iterator[World]:
    """Give a collection with 40 points that were written through CsrQdrant."""
    kind, named = request.param
    raw, name, vectors = open_client(kind, request), NAMES[named], dense_vectors()
    raw.create_collection("c", **configs(name))
    calls = Calls(raw)
    client: Any = calls
    ours = CsrQdrant(client, tiny_encoder, dense_name=name, embedder=Words(vectors))
    ours.upsert("c", points(name, vectors))
    calls.made.clear()
    yield World(raw, calls, ours, name, vectors, tiny_encoder)
    raw.close()


def ids(answer: QueryResponse) -> list[Any]:
    return [point.id for point in answer.points]


# --- writing ------------------------------------------------------------------------------------


def test_points_come_in_with_codes_and_all_else_as_it_was(world: World) -> None:
    expected = expected_codes(world.encoder, world.vectors)
    for point, vectors in stored(world.raw, list(range(N))).items():
        assert vectors["csr"].indices == expected[point].indices
        assert vectors["csr"].values == pytest.approx(expected[point].values, abs=1e-6)
        row = world.vectors[point]
        assert vectors[world.name] == pytest.approx(row / np.linalg.norm(row), abs=1e-6)
        assert vectors["other"] == [float(point), 1.0]
        assert vectors["words"].values == [1.0 + point]
    assert world.raw.retrieve("c", [7])[0].payload == {"group": 3, "text": "row 7"}


def test_a_bare_vector_is_the_unnamed_one(tiny_encoder: Encoder) -> None:
    raw, row = QdrantClient(":memory:"), dense_vectors()[0]
    raw.create_collection(
        "c",
        vectors_config=models.VectorParams(size=D, distance=models.Distance.DOT),
        sparse_vectors_config={"csr": models.SparseVectorParams()},
    )
    CsrQdrant(raw, tiny_encoder).upsert("c", [models.PointStruct(id=1, vector=row.tolist())])
    (expected,) = expected_codes(tiny_encoder, row)
    vectors = stored(raw, [1])[1]
    assert vectors[""] == pytest.approx(row.tolist())
    assert vectors["csr"].indices == expected.indices


def test_the_callers_points_stay_as_they_are(world: World) -> None:
    given = points(world.name, world.vectors)
    before = copy.deepcopy(given)
    world.ours.upsert("c", given)
    assert given == before
    assert world.calls.made == ["upsert"]


def test_points_without_the_dense_vector_pass_unchanged(world: World) -> None:
    other = models.PointStruct(id=90, vector={"other": [1.0, 2.0]})
    world.ours.upsert("c", [other])
    assert stored(world.raw, [90])[90] == {"other": [1.0, 2.0]}


def test_the_clients_options_reach_it(world: World) -> None:
    (row,) = points(world.name, world.vectors[:1])
    changed = row.model_copy(update={"payload": {"text": "changed"}})
    ninth = models.FieldCondition(key="group", match=models.MatchValue(value=9))
    only_new = models.Filter(must=[ninth])
    world.ours.upsert("c", [changed], wait=False, update_filter=only_new)
    assert world.raw.retrieve("c", [0])[0].payload == row.payload


def test_a_changed_vector_changes_its_code(world: World) -> None:
    row = dense_vectors(seed=9)[0]
    world.ours.update_vectors("c", [models.PointVectors(id=5, vector={world.name: row.tolist()})])
    (expected,) = expected_codes(world.encoder, row)
    vectors = stored(world.raw, [5])[5]
    assert vectors["csr"].indices == expected.indices
    assert vectors["other"] == [5.0, 1.0]
    assert world.calls.made == ["update_vectors"]


def test_a_vector_without_a_code_takes_the_old_one_away(world: World) -> None:
    zeros = models.PointVectors(id=5, vector={world.name: [0.0] * D})
    world.ours.update_vectors("c", [zeros])
    (code,) = expected_codes(world.encoder, world.vectors[5])
    found = world.raw.query_points("c", code, using="csr", limit=N)
    assert 5 not in ids(found) and found.points
    world.ours.upsert("c", [models.PointStruct(id=6, vector={world.name: [0.0] * D})])
    assert "csr" not in stored(world.raw, [6])[6]


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([1.0] * (D - 1), f"must be {D} numbers, got shape \\({D - 1},\\)"),
        ([[1.0] * D] * 2, f"must be {D} numbers, got shape \\(2, {D}\\)"),
        (models.Document(text="a", model="b"), f"must be {D} numbers, got Document"),
        ([float("nan")] * D, "has a vector with NaN"),
        ([1e300] * D, "has a vector with NaN, infinity or values too large"),
    ],
)
def test_a_bad_point_is_named_and_nothing_is_sent(world: World, vector: Any, message: str) -> None:
    good, bad = points(world.name, world.vectors[:2])
    bad = models.PointStruct(id="6d0f9b1e-4c1d-5a57-9b53-0d2f6a8c7e11", vector={world.name: vector})
    with pytest.raises(CsrError, match=message) as caught:
        world.ours.upsert("c", [good, bad])
    assert "6d0f9b1e-4c1d-5a57-9b53-0d2f6a8c7e11" in str(caught.value)
    assert world.calls.made == []


def test_a_batch_is_refused_with_what_to_give_instead(world: World) -> None:
    batch: Any = models.Batch(ids=[1], vectors={world.name: [[1.0] * D]})
    with pytest.raises(ConfigError, match=r"must be a list of models.PointStruct .* got Batch"):
        world.ours.upsert("c", batch)


# --- queries ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vector", "list", "text", "code"])
def test_a_query_finds_what_shares_its_latents(world: World, kind: str) -> None:
    row = world.vectors[11]
    query: Any = {
        "vector": row,
        "list": row.tolist(),
        "text": "row 11",
        "code": world.encoder.encode(row[None]),
    }[kind]
    found = world.ours.query("c", query, limit=5)
    assert ids(found) == ranked_by_code(world.encoder, world.vectors, row)[:5]
    assert found.points[0].score == pytest.approx(1, abs=1e-5)
    assert found.points[0].payload == {"group": 3, "text": "row 11"}
    assert world.calls.made == ["query_points"]


def test_fewer_latents_offset_threshold_filter_and_payload(world: World) -> None:
    row = world.vectors[11]
    order = ranked_by_code(world.encoder, world.vectors, row, k=2)
    assert ids(world.ours.query("c", row, k=2, limit=3, offset=1)) == order[1:4]
    certain = world.ours.query("c", row, limit=N, score_threshold=0.99)
    assert ids(certain) == [11]
    third = models.FieldCondition(key="group", match=models.MatchValue(value=3))
    some = world.ours.query(
        "c",
        row,
        limit=N,
        filter=models.Filter(must=[third]),
        with_payload=["text"],
        with_vectors=["csr"],
    )
    full = ranked_by_code(world.encoder, world.vectors, row)
    assert ids(some) == [i for i in full if i % 4 == 3]
    assert set(some.points[0].payload or {}) == {"text"}
    assert set(some.points[0].vector or {}) == {"csr"}


def test_rescoring_orders_the_candidates_by_their_dense_vectors(world: World) -> None:
    row = dense_vectors(seed=5)[0]
    candidates = ranked_by_code(world.encoder, world.vectors, row)[:12]
    unit = world.vectors / np.linalg.norm(world.vectors, axis=1, keepdims=True)
    exact = sorted(candidates, key=lambda i: -float(unit[i] @ row))
    assert exact != candidates
    assert ids(world.ours.query("c", row, limit=5, rescore=12)) == exact[:5]
    assert ids(world.ours.query("c", row, limit=12, offset=3, rescore=1))  # offset + limit fit
    assert world.calls.made == ["query_points"] * 2


def test_a_query_of_nothing_finds_nothing_and_asks_nothing(world: World) -> None:
    assert world.ours.query("c", np.zeros(D)).points == []
    assert world.ours.query_groups("c", np.zeros(D), "group").groups == []
    assert [a.points for a in world.ours.query_batch("c", np.zeros((2, D)))] == [[], []]
    assert world.calls.made == []


def test_a_batch_is_one_call_with_the_same_answers(world: World) -> None:
    rows = world.vectors[:4].copy()
    rows[2] = 0
    found = world.ours.query_batch("c", rows, limit=4, rescore=10, with_payload=False, timeout=7)
    assert world.calls.made == ["query_batch_points"]
    single = [world.ours.query("c", row, limit=4, rescore=10, with_payload=False) for row in rows]
    assert [ids(answer) for answer in found] == [ids(answer) for answer in single]
    for answer, expected in zip(found, single, strict=True):
        scores = [point.score for point in expected.points]
        assert [point.score for point in answer.points] == pytest.approx(scores, abs=1e-6)
        assert all(point.payload is None for point in answer.points)
    assert found[2].points == [] and ids(found[3])[0] == 3


def test_groups(world: World) -> None:
    row = world.vectors[11]
    found = world.ours.query_groups("c", row, "group", limit=2, group_size=2)
    assert world.calls.made == ["query_points_groups"]
    full = ranked_by_code(world.encoder, world.vectors, row)
    first = full[0] % 4
    second = next(i % 4 for i in full if i % 4 != first)
    assert [group.id for group in found.groups] == [first, second]
    for group in found.groups:
        assert [hit.id for hit in group.hits] == [i for i in full if i % 4 == group.id][:2]


# --- fusion -------------------------------------------------------------------------------------


def rrf(*rankings: list[int]) -> dict[int, float]:
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, point in enumerate(ranking):
            scores[point] = scores.get(point, 0) + 1 / (2 + rank)
    return scores


def test_fusion_with_other_vectors_by_name(world: World) -> None:
    row = world.vectors[11]
    words = models.SparseVector(indices=[2], values=[1.0])
    found = world.ours.query(
        "c", row, fuse={"other": np.array([1.0, 0.0]), "words": words}, limit=6, candidates=8
    )
    assert world.calls.made == ["query_points"]
    by_other = list(range(N - 1, -1, -1))[:8]
    by_words = [i for i in range(N - 1, -1, -1) if i % 3 == 2][:8]
    scores = rrf(ranked_by_code(world.encoder, world.vectors, row)[:8], by_other, by_words)
    best = sorted(scores.values(), reverse=True)[:6]
    assert [point.score for point in found.points] == pytest.approx(best)
    assert {p.id: p.score for p in found.points} == pytest.approx(
        {p.id: scores[int(p.id)] for p in found.points}
    )


def test_fusion_fuses_rescored_codes_and_both_methods_differ(world: World) -> None:
    row = world.vectors[11]
    options: Any = {"fuse": {"other": [1.0, 0.0]}, "rescore": N, "candidates": 8, "limit": 3}
    ranked = world.ours.query("c", row, fusion="rrf", **options)
    exact = ids(world.ours.query("c", row, rescore=N, limit=8))
    scores = rrf([int(i) for i in exact], list(range(N - 1, N - 9, -1)))
    assert ranked.points[0].score == pytest.approx(max(scores.values()))
    spread = world.ours.query("c", row, fusion="dbsf", **options)
    assert [p.score for p in spread.points] != [p.score for p in ranked.points]


def test_fusion_with_prefetches_holds_the_filter(world: World) -> None:
    row = world.vectors[11]
    low = models.Filter(must=[models.FieldCondition(key="group", match=models.MatchValue(value=1))])
    own = models.Prefetch(query=[1.0, 0.0], using="other", limit=5)
    before = own.model_copy(deep=True)
    found = world.ours.query("c", row, fuse=[own], filter=low, limit=N)
    assert found.points and {int(point.id) % 4 for point in found.points} == {1}
    assert own == before
    batch = world.ours.query_batch("c", row[None], fuse=[own], filter=low, limit=N)
    assert sorted(ids(batch[0])) == sorted(ids(found))


def test_fusion_without_a_code_keeps_the_other_parts(world: World) -> None:
    found = world.ours.query("c", np.zeros(D), fuse={"other": [1.0, 0.0]}, limit=3)
    assert ids(found) == [N - 1, N - 2, N - 3]


def test_groups_of_a_fusion(world: World) -> None:
    found = world.ours.query_groups(
        "c", world.vectors[11], "group", fuse={"other": [1.0, 0.0]}, limit=4, group_size=1
    )
    assert sorted(group.id for group in found.groups) == [0, 1, 2, 3]


def test_a_filter_goes_to_the_innermost_parts() -> None:
    a, b = (
        models.Filter(must=[models.FieldCondition(key=key, match=models.MatchValue(value=1))])
        for key in "ab"
    )
    inner = models.Prefetch(query=[1.0], filter=a)
    outer = models.Prefetch(prefetch=inner, query=[2.0])
    made: Any = filtered(outer, b)
    assert made.filter is None and outer.prefetch == inner
    (part,) = made.prefetch
    assert part.filter == models.Filter(must=[a, b])
    assert filtered(inner, None) is inner


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "limit must be at least 1"),
        ({"limit": "3"}, "limit must be an integer, got '3'"),
        ({"rescore": -1}, "rescore must be at least 0, got -1"),
        ({"rescore": 2.5}, "rescore must be an integer, got 2.5"),
        ({"k": 33}, r"k must be in 1\.\.32"),
        ({"fuse": {"other": [1.0, 0.0]}, "fusion": "sum"}, "fusion must be rrf or dbsf, got 'sum'"),
    ],
)
def test_settings_that_cannot_work(world: World, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        world.ours.query("c", world.vectors[0], **options)
    assert world.calls.made == []


@pytest.mark.parametrize("name", ["query_filter", "limt"])
def test_a_setting_that_there_is_not_is_never_left_out_silently(world: World, name: str) -> None:
    options: Any = {name: 1}
    words = "it is called filter here" if name == "query_filter" else "choose among"
    for ask in (
        lambda: world.ours.query("c", world.vectors[0], **options),
        lambda: world.ours.query_batch("c", world.vectors[:2], **options),
        lambda: world.ours.query_groups("c", world.vectors[0], "group", **options),
    ):
        with pytest.raises(ConfigError, match=f"no setting '{name}': {words}"):
            ask()
    assert world.calls.made == []


def test_queries_of_other_shapes_and_codes_of_other_encoders(world: World) -> None:
    with pytest.raises(ConfigError, match=r"shape \(m, 8\), got \(8,\): use query"):
        world.ours.query_batch("c", world.vectors[0])
    assert world.ours.query_batch("c", []) == []
    other = SparseCodes.from_dense(np.eye(1, 33, dtype=np.float32))
    with pytest.raises(CsrError, match="has 32 latents, got codes over 33"):
        world.ours.query("c", other)
    assert world.calls.made == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_at_norm_1_are_refused_for_nan_as_others_are(
    tiny_encoder: Encoder, value: float
) -> None:
    raw: Any = Calls(QdrantClient(":memory:"))
    ours = CsrQdrant(raw, tiny_encoder, normalise=True)
    vector = [1.0] * (D - 1) + [value]
    with pytest.raises(CsrError, match="point 1 has a vector with NaN"):
        ours.upsert("c", [models.PointStruct(id=1, vector=vector)])
    with pytest.raises(CsrError, match="row 0 of the queries holds NaN"):
        ours.query("c", np.array(vector))
    assert raw.made == []
    # A long vector has a direction, though its squares are beyond float32.
    (long,) = ours.coding.codes(np.full((1, D), 1e30, np.float32), None, "it").to_qdrant()
    assert long == expected_codes(tiny_encoder, np.full(D, D**-0.5, np.float32))[0]


def test_check_finds_codes_of_vectors_at_another_norm(tiny_encoder: Encoder) -> None:
    raw = QdrantClient(":memory:")
    by_cosine = models.VectorParams(size=D, distance=models.Distance.COSINE)
    raw.create_collection("c", vectors_config=by_cosine)
    raw.upsert("c", [models.PointStruct(id=1, vector=dense_vectors(1)[0].tolist())])
    attach_on(raw, "c", tiny_encoder)
    CsrQdrant(raw, tiny_encoder, normalise=True).check("c")
    with pytest.raises(CsrError, match=r"\(normalise\) = True, got False"):
        CsrQdrant(raw, tiny_encoder).check("c")


def test_queries_that_cannot_work(world: World) -> None:
    bare = CsrQdrant(world.raw, world.encoder, dense_name=world.name, keep_dense=False)
    with pytest.raises(ConfigError, match="texts need an embedder"):
        bare.query("c", "row 1")
    with pytest.raises(ConfigError, match="rescoring needs dense vectors in the collection"):
        bare.query("c", world.vectors[0], rescore=5)
    with pytest.raises(ConfigError, match="rescoring needs dense queries"):
        world.ours.query("c", world.encoder.encode(world.vectors[:1]), rescore=5)
    with pytest.raises(ConfigError, match="takes one query, got 2: use query_batch"):
        world.ours.query("c", world.vectors[:2])
    with pytest.raises(ConfigError, match="groups know no offset"):
        world.ours.query_groups("c", world.vectors[0], "group", offset=1)
    with pytest.raises(CsrError, match=r"vectors of shape \(n, 8\), got \(1, 3\)"):
        world.ours.query("c", [1.0, 2.0, 3.0])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a vector name of their own, got 'csr'"):
        CsrQdrant(world.raw, world.encoder, dense_name="csr")
    with pytest.raises(ConfigError, match=r"k must be in 1\.\.32"):
        CsrQdrant(world.raw, world.encoder, k=0)


def test_what_the_client_raises_comes_through(world: World) -> None:
    with pytest.raises((ValueError, UnexpectedResponse, RpcError), match="missing"):
        world.ours.query("missing", world.vectors[0])


# --- our own collections, and the check ---------------------------------------------------------


@pytest.mark.parametrize("keep_dense", [True, False])
def test_our_own_collections(tiny_encoder: Encoder, keep_dense: bool) -> None:
    raw, vectors = QdrantClient(":memory:"), dense_vectors()
    collection = Collection.create_on(raw, "c", tiny_encoder, keep_dense=keep_dense)
    ours = CsrQdrant(raw, tiny_encoder, dense_name="dense", keep_dense=keep_dense)
    ours.check("c")
    rows = [models.PointStruct(id=i, vector={"dense": v.tolist()}) for i, v in enumerate(vectors)]
    ours.upsert("c", rows)
    found = ours.query("c", vectors[3], limit=5)
    assert ids(found) == [hit.id for hit in collection.search(vectors[3], limit=5)]
    assert ("dense" in stored(raw, [3])[3]) == keep_dense


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dense_name": "text"}, "keeps dense vectors under the name 'dense', got 'text'"),
        ({"code_name": "sparse"}, "keeps codes under the name 'csr', got 'sparse'"),
        ({"k": 3}, "keeps codes with k = 4, got 3"),
        ({"keep_dense": False}, "keeps dense vectors under the name 'dense', got None"),
    ],
)
def test_check_finds_other_settings(
    tiny_encoder: Encoder, settings: dict[str, Any], message: str
) -> None:
    raw = QdrantClient(":memory:")
    Collection.create_on(raw, "c", tiny_encoder, keep_dense=True)
    with pytest.raises(CsrError, match=message):
        CsrQdrant(raw, tiny_encoder, **({"dense_name": "dense"} | settings)).check("c")


def test_check_finds_another_encoder_and_foreign_collections(
    world: World, tiny_encoder: Encoder
) -> None:
    other = Encoder(
        weight=-tiny_encoder.weight,
        latent_bias=tiny_encoder.latent_bias,
        pre_bias=tiny_encoder.pre_bias,
        k=4,
    )
    Collection.create_on(world.raw, "own", tiny_encoder, keep_dense=True)
    with pytest.raises(CsrError, match=f"was made with encoder {tiny_encoder.fingerprint}"):
        CsrQdrant(world.raw, other, dense_name="dense").check("own")
    with pytest.raises(CsrError, match=r"collection 'c' (in local mode|at http).* was not made by"):
        world.ours.check("c")
