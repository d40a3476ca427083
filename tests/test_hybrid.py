"""Fusion with another vector and groups: `Collection.search`, `search_groups` and `csr query`."""

import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from csr_qdrant import Collection
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.queries import Fuse

sys.path.insert(0, str(Path(__file__).parent))
from engines import ENGINES, open_client

D, N = 8, 60
X = np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)
PAYLOADS = [{"group": i % 4, "text": f"row {i}"} for i in range(N)]


@pytest.fixture(params=ENGINES)
def collection(
    request: pytest.FixtureRequest, tmp_path: Path, tiny_encoder: Encoder
) -> Iterator[Collection]:
    """Give 60 points with dense vectors, over both engines in turn."""
    if request.param == "edge":
        made = Collection.create(tmp_path / "c", tiny_encoder, keep_dense=True)
    else:
        client, name = open_client(request.param, request), f"csr-qdrant-test-{uuid.uuid4().hex}"
        request.addfinalizer(lambda: client.delete_collection(name))
        made = Collection.create_on(client, name, tiny_encoder, keep_dense=True)
    made.add(range(N), vectors=X, payloads=PAYLOADS)
    with made:
        yield made


def by_dense(query: Any) -> list[int]:
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    return [int(i) for i in np.argsort(-(unit @ query))]


def rrf(*rankings: list[Any]) -> dict[Any, float]:
    scores: dict[Any, float] = {}
    for ranking in rankings:
        for rank, point in enumerate(ranking):
            scores[point] = scores.get(point, 0) + 1 / (2 + rank)
    return scores


def ids(hits: Any) -> list[Any]:
    return [hit.id for hit in hits]


@pytest.mark.parametrize("rescore", [0, 30])
def test_fusion_by_rank_with_the_dense_vectors(collection: Collection, rescore: int) -> None:
    query = X[7] + 0.3 * X[8]
    ours = ids(collection.search(query, limit=12, rescore=rescore))
    scores = rrf(ours, by_dense(query)[:12])
    found = collection.search(query, limit=5, rescore=rescore, fuse=Fuse(candidates=12))
    assert [hit.score for hit in found] == pytest.approx(sorted(scores.values())[::-1][:5])
    assert {hit.id: hit.score for hit in found} == pytest.approx(
        {hit.id: scores[hit.id] for hit in found}
    )


def test_fusion_by_score_gives_other_scores(collection: Collection) -> None:
    by_rank = collection.search(X[7], fuse=Fuse(candidates=12))
    by_score = collection.search(X[7], fuse=Fuse(method="dbsf", candidates=12))
    assert by_rank[0].id == by_score[0].id == 7
    assert [hit.score for hit in by_rank] != [hit.score for hit in by_score]


def test_fusion_holds_the_filter_and_keeps_queries_apart(collection: Collection) -> None:
    queries = X[:3].copy()
    queries[1] = 0
    condition = {"must": [{"key": "group", "match": {"value": 2}}]}
    others = X[[10, 20, 30]]
    found = collection.search_batch(
        queries, limit=N, filter=condition, fuse=Fuse(queries=others, candidates=N)
    )
    assert found[1] == []
    for row in (0, 2):
        assert {hit.payload["group"] for hit in found[row]} == {2}
        alone = collection.search(
            queries[row], limit=N, filter=condition, fuse=Fuse(queries=others[[row]], candidates=N)
        )
        assert {h.id: h.score for h in found[row]} == pytest.approx({h.id: h.score for h in alone})


def test_codes_can_be_fused_with_codes_given_apart(collection: Collection) -> None:
    code, other = collection.encoder.encode(X[:1]), collection.encoder.encode(X[5:6]).normalised()
    found = collection.search(code, limit=2 * N, fuse=Fuse(vector="csr", queries=other))
    rankings = [ids(collection.search(each, limit=2 * N)) for each in (code, other)]
    assert rankings[0][0] == 0 and rankings[1][0] == 5
    assert {hit.id: hit.score for hit in found} == pytest.approx(rrf(*rankings))


@pytest.mark.parametrize(
    ("query", "fuse", "message"),
    [
        (X[:2], Fuse(queries=X[:1]), "got 1 for the vector 'dense' and 2 codes"),
        (X[:1], Fuse(queries=X[:1, :3]), r"shape \(n, 8\), got \(1, 3\)"),
        (X[:1], Fuse(vector="other"), "(?i)vector"),
    ],
)
def test_fusions_that_cannot_work(
    collection: Collection, query: Any, fuse: Fuse, message: str
) -> None:
    with pytest.raises(CsrError, match=message):
        collection.search_batch(query, fuse=fuse)


def test_settings_that_cannot_work(collection: Collection) -> None:
    method: Any = "sum"
    with pytest.raises(ConfigError, match="fusion must be rrf or dbsf, got 'sum'"):
        Fuse(method=method)
    with pytest.raises(ConfigError, match="candidates must be at least 1, got 0"):
        Fuse(candidates=0)
    with pytest.raises(ConfigError, match="needs dense queries, got codes"):
        collection.search(collection.encoder.encode(X[:1]), fuse=Fuse())


def test_groups(collection: Collection) -> None:
    queries = np.stack([X[7], np.zeros(D, np.float32)])
    if collection.store.location.endswith("c") and "collection" not in collection.store.location:
        with pytest.raises(ConfigError, match="Qdrant Edge cannot group hits"):
            collection.search_groups(queries, "group")
        return
    full = ids(collection.search(X[7], limit=N))
    found, nothing = collection.search_groups(queries, "group", limit=2, group_size=2)
    assert nothing == []
    first = full[0] % 4
    assert [group.key for group in found] == [first, next(i % 4 for i in full if i % 4 != first)]
    for group in found:
        assert ids(group.hits) == [i for i in full if i % 4 == group.key][:2]
        assert group.hits[0].payload == PAYLOADS[int(group.hits[0].id)]


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def folder(csr: Callable[..., Any], tiny_encoder: Encoder) -> None:
    """Make the collection `col` and the files `q.npy` and `other.npy`."""
    with Collection.create("col", tiny_encoder, keep_dense=True) as made:
        made.add(range(N), vectors=X, payloads=PAYLOADS)
    np.save("q.npy", X[:3])
    np.save("other.npy", X[10:13])


def test_csr_query_fuses(csr: Callable[..., Any], folder: None) -> None:
    run = ("query", "col", "--vectors", "q.npy", "--hybrid", "rrf", "--hybrid-candidates", 20)
    found = csr(*run, "--hybrid-queries", "other.npy", "-n", N, "--json").rows
    with Collection.open("col") as made:
        expected = made.search_batch(X[:3], limit=N, fuse=Fuse(queries=X[10:13], candidates=20))
        assert expected != made.search_batch(X[:3], limit=N, fuse=Fuse(candidates=20))
    # As scores by id, for equal ones come in any order.
    scores = [{hit["id"]: hit["score"] for hit in row["hits"]} for row in found]
    assert scores == [{hit.id: pytest.approx(hit.score) for hit in hits} for hits in expected]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--hybrid-vector", "dense"], 2, "pass --hybrid rrf"),
        (["--hybrid", "rrf", "--hybrid-candidates", 0], 2, "hybrid-candidates must be at least 1"),
        (["--hybrid", "rrf", "--hybrid-queries", "one.npy"], 1, "one.npy has 1 rows"),
        (["--group-by", "group"], 2, "Qdrant Edge cannot group hits"),
        (["--group-by", "group", "--group-size", 0], 2, "group-size must be at least 1"),
    ],
)
def test_csr_query_refuses(
    csr: Callable[..., Any], folder: None, options: list[Any], code: int, message: str
) -> None:
    np.save("one.npy", X[:1])
    ran = csr("query", "col", "--vectors", "q.npy", *options)
    assert ran.exit_code == code
    assert message in " ".join(ran.stderr.split())


def test_csr_query_groups(
    csr: Callable[..., Any], tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = QdrantClient(":memory:")
    Collection.create_on(client, "c", tiny_encoder).add(range(N), vectors=X, payloads=PAYLOADS)
    monkeypatch.setattr(client, "close", lambda: None)
    monkeypatch.setattr("csr_qdrant.stores.server.connect", lambda *a, **b: client)
    tiny_encoder.save("enc")
    np.save("q.npy", X[:2])
    run = ("query", "--url", "http://localhost:1", "--collection", "c", "--encoder", "enc")
    more = ("--vectors", "q.npy", "--group-by", "group", "--group-size", 1, "-n", 2)
    rows = csr(*run, *more, "--json").rows
    assert [row["groups"][0]["hits"][0]["id"] for row in rows] == [0, 1]
    assert [len(row["groups"]) for row in rows] == [2, 2]
    assert rows[1]["groups"][0]["key"] == 1
    assert "group 1" in csr(*run, *more).stdout
