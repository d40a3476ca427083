"""`csr tune`: what is right, what is chosen, and that the figures are of the other half."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from csr_qdrant import Collection
from csr_qdrant.benchmarks import tune_server
from csr_qdrant.benchmarks.neighbours import exact_neighbours
from csr_qdrant.benchmarks.tune import (
    Measured,
    Questions,
    Setting,
    grid,
    measured,
    questions,
)
from csr_qdrant.benchmarks.tune_choice import Target, chosen, front
from csr_qdrant.benchmarks.tune_codes import Postings
from csr_qdrant.benchmarks.tune_server import PatientStore
from csr_qdrant.deployment.attach import attach_on
from csr_qdrant.encoder import Encoder, unit_rows
from csr_qdrant.errors import ConfigError
from csr_qdrant.identity import Identity
from csr_qdrant.sources.collection_points import CollectionVectors
from csr_qdrant.stores.server import connect
from csr_qdrant.stores.server_errors import RetryPolicy

sys.path.insert(0, str(Path(__file__).parent))
from engines import open_client
from rest_faults import Shares
from rest_server import RestServer

D, N = 8, 120


def rows(n: int = N, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path, tiny_encoder: Encoder) -> Path:
    with Collection.create(tmp_path / "docs", tiny_encoder, keep_dense=True) as collection:
        collection.add(range(N), vectors=rows())
    return tmp_path / "docs"


@pytest.fixture(params=["edge", "memory", "rest", "grpc"])
def opened(
    request: pytest.FixtureRequest, folder: Path, tiny_encoder: Encoder
) -> Iterator[tuple[Callable[[], CollectionVectors], Callable[[], Collection]]]:
    """Give functions that open the same points for reading, and as a collection."""
    if request.param == "edge":
        yield lambda: CollectionVectors.open(folder), lambda: Collection.open(folder)
        return
    client = open_client(request.param, request)
    Collection.create_on(client, "c", tiny_encoder, keep_dense=True).add(range(N), vectors=rows())
    yield (
        lambda: CollectionVectors.open_on(client, "c"),
        lambda: Collection.open_on(client, "c", tiny_encoder),
    )
    client.close()


def postings(collection: Collection, asked: Questions) -> Postings:
    return Postings.of(collection, asked.documents, asked.vectors, asked.points)


# --- questions ----------------------------------------------------------------------------------


def test_sampled_points_are_asked_without_themselves(opened: Any) -> None:
    with opened[0]() as points:
        asked = questions(points, 30, 5)
    assert len(asked.vectors) == len(set(asked.own)) == 30
    assert asked.points == N and sorted(map(int, asked.documents)) == list(range(N))
    right = exact_neighbours(asked.vectors, rows(), 6).rows
    for own, near, expected in zip(asked.own, asked.right, right, strict=True):
        assert expected[0] == own
        assert near == set(expected[1:].tolist())
    assert asked.wanted == [5] * 30


def test_given_vectors_are_asked_as_they_are(opened: Any) -> None:
    given = rows(25, seed=4)
    with opened[0]() as points:
        asked = questions(points, 7, 5, given=given)
        with pytest.raises(ConfigError, match=r"at least 20 queries, .* got 19"):
            questions(points, 7, 5, given=given[:19])
    assert asked.own == [None] * 25 and np.array_equal(asked.vectors, given)
    right = exact_neighbours(given, rows(), 5).rows
    assert [set(near) for near in asked.right] == [set(row) for row in right.tolist()]


def test_points_as_near_as_the_last_count_as_well(tmp_path: Path, tiny_encoder: Encoder) -> None:
    repeated = np.tile(rows(10), (6, 1))  # each row six times
    with Collection.create(tmp_path / "c", tiny_encoder, keep_dense=True) as collection:
        collection.add(range(60), vectors=repeated)
    with CollectionVectors.open(tmp_path / "c") as points:
        asked = questions(points, 20, 3)
    for own, near in zip(asked.own, asked.right, strict=True):
        assert own is not None
        assert near == {i for i in range(60) if i % 10 == int(own) % 10} - {own}
    assert asked.wanted == [3] * 20


def test_all_copies_of_a_document_count(tmp_path: Path, tiny_encoder: Encoder) -> None:
    with Collection.create(tmp_path / "c", tiny_encoder, keep_dense=True) as collection:
        collection.add(range(240), vectors=np.tile(rows(4), (60, 1)))
    with CollectionVectors.open(tmp_path / "c") as points:
        asked = questions(points, 20, 3)
    for own, near in zip(asked.own, asked.right, strict=True):
        assert own is not None
        assert near == {i for i in range(240) if i % 4 == int(own) % 4} - {own}


# --- measuring ----------------------------------------------------------------------------------


def test_recall_is_that_of_the_searches_themselves(opened: Any) -> None:
    settings = [Setting(2, 0), Setting(4, 0), Setting(4, N)]
    with opened[0]() as points:
        asked = questions(points, 24, 5)
    with opened[1]() as collection:
        found = measured(collection, asked, settings, 5)
        for each in found:
            for row, vector in enumerate(asked.vectors):
                k, rescore = each.setting
                hits = collection.search(vector, limit=6, k=k, rescore=rescore)
                others = [hit.id for hit in hits if hit.id != asked.own[row]][:5]
                assert each.recalls[row] == len(asked.right[row] & set(others)) / 5
    assert [each.setting for each in found] == settings
    means = [each.recalls.mean() for each in found]
    assert means[0] < means[1] < means[2]
    assert all((each.seconds > 0).all() for each in found)


def test_postings_are_the_lengths_of_the_lists_that_a_query_touches(folder: Path) -> None:
    with CollectionVectors.open(folder) as points:
        asked = questions(points, 24, 5)
    with Collection.open(folder) as collection:
        codes = collection.encoder.encode(rows()).to_dense() > 0
        queries = collection.encoder.encode(asked.vectors, 2).to_dense() > 0
        expected = (queries @ codes.sum(axis=0)).mean()
        assert postings(collection, asked).touched(2) == pytest.approx(expected)


def test_a_query_without_a_code_finds_nothing(folder: Path) -> None:
    asked = Questions(
        np.zeros((20, D), np.float32), [None] * 20, [frozenset({1})] * 20, [1] * 20, [*range(N)], N
    )
    with Collection.open(folder) as collection:
        (found,) = measured(collection, asked, [Setting(4, 0)], 5)
    assert not found.recalls.any()


def test_the_grid_lies_around_the_documents_k(folder: Path) -> None:
    with Collection.open(folder) as collection:
        settings = grid(collection, 10)
        assert sorted({each.k for each in settings}) == [1, 2, 3, 4, 8]
        assert sorted({each.candidates for each in settings}) == [0, 20, 50, 100, 200, 500]
        assert grid(collection, 10, [3], [5, 0]) == [Setting(3, 0), Setting(3, 10)]
        with pytest.raises(ConfigError, match=r"k must be in 1\.\.32"):
            grid(collection, 10, [33])
        with pytest.raises(ConfigError, match="candidates must be at least 0, got -1"):
            grid(collection, 10, [3], [-1])


def test_codes_of_vectors_whose_norms_are_lost_are_not_asked(tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    encoder = Encoder(
        weight=random.normal(size=(32, D)).astype(np.float32),
        latent_bias=2 * random.normal(size=32).astype(np.float32),
        pre_bias=np.zeros(D, np.float32),
        k=4,
    )
    long = 10 * rows()
    with Collection.create(tmp_path / "c", encoder, keep_dense=True) as collection:
        collection.add(range(N), vectors=long)
    with CollectionVectors.open(tmp_path / "c") as points:
        sampled, given = questions(points, 30, 5), questions(points, 30, 5, given=long[:30])
    with Collection.open(tmp_path / "c") as collection:
        with pytest.raises(ConfigError, match=r"norms are lost, .* give some with --vectors"):
            measured(collection, sampled, [Setting(4, 0)], 5)
        assert measured(collection, given, [Setting(4, 0)], 5)[0].recalls.any()
        # Lists are those of the codes that are stored, not of the vectors at norm 1.
        codes = encoder.encode(long).to_dense() > 0
        queries = encoder.encode(given.vectors, 4).to_dense() > 0
        expected = (queries @ codes.sum(axis=0)).mean()
        assert postings(collection, given).touched(4) == pytest.approx(expected)


def test_queries_of_a_collection_by_cosine_touch_the_lists_of_their_directions(
    tiny_encoder: Encoder,
) -> None:
    encoder = replace(tiny_encoder, latent_bias=np.linspace(-2, 2, 32, dtype=np.float32))
    client = QdrantClient(":memory:")
    client.create_collection("c", models.VectorParams(size=D, distance=models.Distance.COSINE))
    docs = [models.PointStruct(id=i, vector=row) for i, row in enumerate(rows().tolist())]
    client.upsert("c", docs)
    attach_on(client, "c", encoder)
    given = 20 * rows(25, seed=4)
    with CollectionVectors.open_on(client, "c") as points:
        asked = questions(points, 7, 5, given=given)
    codes = encoder.encode(unit_rows(rows())).to_dense() > 0
    queries = encoder.encode(unit_rows(given), 2).to_dense() > 0
    expected = (queries @ codes.sum(axis=0)).mean()
    collection = Collection.open_on(client, "c", encoder)
    assert postings(collection, asked).touched(2) == pytest.approx(expected)


def test_a_repeated_search_is_asked_again_for_its_time(
    tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RestServer() as server:
        check_repeated(server, tiny_encoder, monkeypatch)


def check_repeated(
    server: RestServer, tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune_server, "PATIENT", RetryPolicy(attempts=30, first_s=0.2, longest_s=1))
    client = connect(server.url)
    Collection.create_on(client, "c", tiny_encoder, keep_dense=True).add(range(N), vectors=rows())
    store = PatientStore.open(client, "c")
    collection = Collection(store, tiny_encoder, Identity.of(tiny_encoder, None, None))
    with CollectionVectors.open_on(client, "c") as points:
        asked = questions(points, 20, 5)
    (quiet,) = measured(collection, asked, [Setting(4, 0)], 5)
    assert store.repeats == 0
    server.faults.shares = Shares(drop_before=0.1, drop_after=0.1)
    (found,) = measured(collection, asked, [Setting(4, 0)], 5)
    server.faults.shares = Shares()
    assert store.repeats > 0
    assert np.array_equal(found.recalls, quiet.recalls)
    timed = found.seconds[np.isfinite(found.seconds)]
    assert len(timed) >= 15 and timed.max() < 0.1  # the least pause


def test_seconds_that_are_not_known_are_left_out() -> None:
    half = Measured(Setting(1, 0), np.ones(4), np.array([0.001, 9, np.nan, 9]), 1.0).half(0)
    assert half.latency.p95_ms == pytest.approx(1)
    none = Measured(Setting(1, 0), np.ones(4), np.full(4, np.nan), 1.0)
    assert none.half(0).latency.p50_ms == np.inf
    assert not chosen([none], Target(p95_ms=1.0)).reached


# --- choosing -----------------------------------------------------------------------------------


def made(k: int, recalls: list[float], ms: list[float], times: int = 20) -> Measured:
    """Return a setting whose even queries have the first figures and whose odd have the second."""
    return Measured(Setting(k, 0), np.array(recalls * times), np.array(ms * times) / 1000, float(k))


SLOW, GOOD, FAST = (
    made(8, [0.99, 0.98], [4, 5]),
    made(4, [0.95, 0.90], [2, 3]),
    made(2, [0.8, 0.9], [1, 1]),
)
LAME = made(1, [0.7, 0.99], [3, 0.1])
FOUND = [SLOW, GOOD, FAST, LAME]


@pytest.mark.parametrize(
    ("target", "best", "reached", "held"),
    [
        (Target(recall=0.97), SLOW, True, True),
        (Target(recall=0.9), GOOD, True, True),
        (Target(recall=0.95), GOOD, True, False),
        (Target(recall=1.0), SLOW, False, False),
        (Target(p95_ms=4.5), SLOW, True, False),
        (Target(p95_ms=3), GOOD, True, True),
        (Target(p95_ms=1.5), FAST, True, True),
        (Target(p95_ms=0.5), FAST, False, False),
    ],
)
def test_choice_by_one_half_and_verdict_by_the_other(
    target: Target, best: Measured, reached: bool, held: bool
) -> None:
    choice = chosen(FOUND, target)
    assert choice.measured is best
    assert (choice.reached, choice.held) == (reached, held)


def test_the_front_holds_what_nothing_beats() -> None:
    assert list(front(FOUND)) == [FAST, GOOD, SLOW]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({}, "give one target"),
        ({"recall": 0.9, "p95_ms": 1.0}, "give one target"),
        ({"recall": 1.1}, "at most 1, got 1.1"),
        ({"p95_ms": 0.0}, "above 0, got 0.0"),
    ],
)
def test_targets_that_cannot_be(target: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Target(**target)


# --- the command --------------------------------------------------------------------------------


def test_tune(csr: Callable[..., Any], folder: Path) -> None:
    found = csr("tune", folder, "--queries", 40, "-n", 5, "--recall", 0.9, "--json").json
    assert (found["queries"], found["points"], found["limit"]) == (40, N, 5)
    assert found["reached"] is True
    best = found["chosen"]
    assert best in found["settings"] and len(found["settings"]) == 30
    assert found["code"] == (
        f"collection.search(query, limit=5, k={best['k']}, rescore={best['candidates']})"
    )
    assert best["recall"]["low"] <= best["recall"]["mean"] <= best["recall"]["high"]
    with Collection.open(folder) as collection:
        hits = eval(found["code"], {"collection": collection, "query": rows()[3]})
    assert hits[0].id == 3


def test_tune_for_latency_with_given_queries_as_a_table(
    csr: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "queries.npy", rows(40, seed=4))
    ran = csr(
        "tune",
        folder,
        "--p95-ms",
        1000,
        "--vectors",
        tmp_path / "queries.npy",
        "-n",
        5,
        "--k",
        "2,4",
        "--candidates",
        "0,120",
    )
    assert ran.exit_code == 0, ran.stderr
    assert "collection.search(query, limit=5, k=4, rescore=120)" in ran.stdout
    assert "1.000" in ran.stdout and "postings" in ran.stdout


def test_a_target_out_of_reach_is_said(csr: Callable[..., Any], folder: Path) -> None:
    ran = csr("tune", folder, "--p95-ms", 1e-6, "--queries", 20, "--k", "2", "--candidates", "0")
    assert ran.exit_code == 0
    assert "no setting reaches the target" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["docs", "--recall", "0.9", "--p95-ms", "1"], 2, "both --recall and --p95-ms"),
        (["docs", "--limit", "0"], 2, "at least 1"),
        (["docs", "--queries", "10"], 2, "at least 20 queries"),
        (["missing"], 1, "there is no collection at"),
        (["codes"], 1, "keeps no dense vectors"),
    ],
)
def test_refusals(
    csr: Callable[..., Any],
    folder: Path,
    tiny_encoder: Encoder,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    Collection.create(folder.parent / "codes", tiny_encoder).close()
    ran = csr("tune", folder.parent / arguments[0], *arguments[1:])
    assert ran.exit_code == code, ran.stderr
    assert message in " ".join(ran.stderr.split())


def test_queries_that_cannot_be_asked_are_refused_before_any_search(
    csr: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    bad = rows(30)
    bad[3, 1] = np.nan
    np.save(tmp_path / "nan.npy", bad)
    np.save(tmp_path / "wide.npy", np.ones((30, D + 1), np.float32))
    tiny = Encoder.load(folder / "encoder")
    replace(tiny, weight=2 * tiny.weight).save(tmp_path / "other")
    for arguments, message in (
        (["--vectors", tmp_path / "nan.npy"], "row 3 of"),
        (["--vectors", tmp_path / "wide.npy"], f"has vectors of {D + 1} dimensions"),
        (["--encoder", tmp_path / "other"], "was made with encoder"),
        (["--k", "33"], "k must be in 1..32"),
    ):
        ran = csr("tune", folder, *arguments)
        assert ran.exit_code in (1, 2) and message in " ".join(ran.stderr.split())
        assert "looking for the exact neighbours" not in ran.stderr
