"""Why a hit matches, what latents stand for, and how evenly they are used; over every engine."""

import math
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from csr_qdrant.codes import SparseCodes
from csr_qdrant.collection import Collection
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.explain import explain, latent_documents, query_code
from csr_qdrant.explain_names import WordCounts, distinctive_words, name_of, text_of, words_of
from csr_qdrant.explain_sample import sample_points
from csr_qdrant.explain_usage import latent_usage
from csr_qdrant.identity import Identity
from csr_qdrant.stores.base import PointBatch, Schema, Store

Csr = Callable[..., Any]
MakeStore = Callable[..., Store]

X = np.random.default_rng(1).normal(size=(300, 8)).astype(np.float32)
TEXTS = ["red wine from the south", "a ship on the sea", "the king and his crown", "warm bread"]


@pytest.fixture
def docs(make_store: MakeStore, tiny_encoder: Encoder) -> Collection:
    """Make a collection of 300 rows in each engine; texts name the strongest latent."""
    identity = Identity.of(tiny_encoder, None, None)
    store = make_store(Schema(h=tiny_encoder.h), identity.to_metadata())
    collection = Collection(store, tiny_encoder, identity)
    codes = tiny_encoder.encode(X)
    strongest = codes.to_dense().argmax(axis=1)
    payloads = [{"meta": {"text": f"a row about {_word(i)} and more"}} for i in strongest]
    ids: list[Any] = [f"row {i}" if i % 2 else i for i in range(300)]
    collection.add(ids, codes=codes, payloads=payloads)
    return collection


def _word(latent: int) -> str:
    return "latent" + "abcdefghijklmnop"[latent // 16] + "abcdefghijklmnop"[latent % 16]


# --- hits -----------------------------------------------------------------------------------------


def test_contributions_sum_to_the_score_of_the_engine(docs: Collection) -> None:
    hits = docs.search(X[7], limit=5)
    found = explain(docs, X[7], limit=5, top=2)
    assert [each.id for each in found] == [hit.id for hit in hits]
    query = query_code(docs, X[7]).to_dense()[0]
    for hit, each in zip(hits, found, strict=True):
        assert each.score == pytest.approx(hit.score, abs=1e-5)
        assert sum(s.contribution for s in each.latents) == pytest.approx(each.score)
        assert sum(s.share for s in each.latents) == pytest.approx(1)
        products = [s.contribution for s in each.latents]
        assert products == sorted(products, reverse=True)
        for shared in each.latents:
            assert shared.query == pytest.approx(query[shared.latent], abs=1e-6)
            assert shared.contribution == pytest.approx(shared.query * shared.document)
    assert found[0].id == "row 7" and found[0].query_latents == found[0].document_latents == 4
    assert len(found[0].latents) == 4


def test_the_documents_of_a_latent_are_those_with_the_largest_weights(docs: Collection) -> None:
    codes = docs.encoder.encode(X).normalised().to_dense()
    latent = int((codes > 0).sum(axis=0).argmax())
    best = np.argsort(-codes[:, latent])[:3]
    known = latent_documents(docs.store, [latent], top=3)[latent]
    assert [hit.id for hit in known.top] == [f"row {i}" if i % 2 else i for i in best]
    assert [hit.score for hit in known.top] == pytest.approx(codes[best, latent], abs=1e-5)
    assert known.name is None and "_id" not in known.top[0].payload


def test_names_are_the_words_of_the_latents_documents(docs: Collection) -> None:
    (found,) = explain(docs, X[7], limit=1, text="meta.text")
    strongest = found.latents[0]
    assert strongest.name is not None and strongest.name.startswith(_word(strongest.latent))
    assert "row" not in strongest.name  # stands everywhere
    again = explain(docs, X[7], limit=1, text="meta.nothing", top=0)[0].latents[0]
    assert (again.name, again.top) == (None, [])


def test_rows_are_explained_hit_or_not(docs: Collection) -> None:
    codes = docs.encoder.encode(X).to_dense() > 0
    other = next(i for i in range(0, 300, 2) if not (codes[i] & codes[7]).any())
    found = explain(docs, X[7], ids=["row 7", other])
    assert [each.id for each in found] == ["row 7", other]
    assert (found[1].score, found[1].latents) == (0, [])
    assert found[1].payload.keys() == {"meta"}
    with pytest.raises(CsrError, match="has no row 'row 8': check the id"):
        explain(docs, X[7], ids=["row 8"])


def test_queries_may_be_codes_and_shorter(docs: Collection) -> None:
    code = docs.encoder.encode(X[7:8], 2)
    (found,) = explain(docs, code, limit=1)
    assert found.query_latents == len(found.latents) == 2
    (same,) = explain(docs, X[7], limit=1, k=2)
    assert same.score == pytest.approx(found.score)


def test_what_cannot_be_explained_is_refused(docs: Collection) -> None:
    with pytest.raises(CsrError, match="the query activates no latent"):
        explain(docs, np.zeros(8))
    with pytest.raises(ConfigError, match="one query is explained at a time, got 2"):
        explain(docs, X[:2])
    with pytest.raises(ConfigError, match="limit must be at least 1, got 0"):
        explain(docs, X[0], limit=0)
    with pytest.raises(ConfigError, match="a sample needs at least 1 point"):
        explain(docs, X[0], text="meta.text", background=0)


# --- names ----------------------------------------------------------------------------------------


def test_the_score_of_a_word_is_that_of_the_equation() -> None:
    top = WordCounts.of(["Red wine", "red bread, RED ship", *["red"] * 6])
    background = WordCounts.of(["red", "ship", "king", "bread", "a wine", *["the sea"] * 7])
    (word,) = distinctive_words(top, background)
    odds = math.log(8.5 / 0.5) - math.log(1.5 / 11.5)
    z = odds / math.sqrt(1 / 8.5 + 1 / 0.5 + 1 / 1.5 + 1 / 11.5)
    assert (word.word, word.documents) == ("red", 8)
    assert word.z == pytest.approx(z) and z > 2
    assert name_of(top, background) == "red"
    assert name_of(top, top) is None  # as frequent everywhere


def test_words_and_fields() -> None:
    assert words_of("Ein Straßenname, x1 42 of ÉTÉ!") == {"ein", "strassenname", "été"}
    payload = {"a": {"b": "deep"}, "a.c": "flat", "list": ["one", 2, "two"], "n": 5}
    assert [text_of(payload, f) for f in ("a.b", "a.c", "list", "n", "x.y", "n.z")] == [
        "deep",
        "flat",
        "one two",
        "",
        "",
        "",
    ]


# --- usage ----------------------------------------------------------------------------------------


def test_all_points_are_counted_where_they_are_few(docs: Collection) -> None:
    codes = docs.encoder.encode(X).normalised().to_dense()
    usage = latent_usage(docs.store, text="meta.text")
    assert usage.complete and (usage.points, usage.sampled, usage.without_code) == (300, 300, 0)
    documents = (codes > 0).sum(axis=0)
    assert usage.documents.tolist() == documents.tolist()
    np.testing.assert_allclose(usage.energy, (codes**2).sum(axis=0), atol=1e-4)
    assert usage.dead.tolist() == np.flatnonzero(documents == 0).tolist()
    assert usage.dead_share_bound == 0
    shares = documents / 300
    assert usage.postings_per_query == pytest.approx((shares**2).sum())
    assert usage.effective_latents == pytest.approx(shares.sum() ** 2 / (shares**2).sum())
    longest = usage.longest(3)
    assert documents[longest].tolist() == sorted(documents, reverse=True)[:3]
    assert usage.heaviest(1) == [int((codes**2).sum(axis=0).argmax())]
    assert usage.words is not None and usage.words.counts["row"] == 300


def test_of_many_points_a_sample_is_counted(docs: Collection) -> None:
    usage = latent_usage(docs.store, sample=64)
    assert (usage.points, usage.sampled, usage.complete) == (300, 64, False)
    assert int(usage.documents.sum()) == 4 * 64
    assert usage.dead_share_bound == pytest.approx(1 - 0.05 ** (1 / 64))
    assert len(usage.dead) >= len(latent_usage(docs.store).dead)


def test_a_sample_is_whole_behind_gaps_in_the_ids(make_store: MakeStore) -> None:
    by_time = [str(uuid.UUID(int=(0x0190_0000_0000 << 80) + (i << 64) + 5)) for i in range(300)]
    cases: list[list[Any]] = [[*range(299), 2**63], by_time]
    for ids in cases:
        store = make_store(Schema(h=4))
        code = SparseCodes.from_dense(np.tile(np.eye(4, dtype=np.float32)[:1], (len(ids), 1)))
        store.upsert(PointBatch(ids, code, None, [{}] * len(ids)))
        drawn = [point.id for page in sample_points(store, 64) for point in page]
        assert len(drawn) == len(set(drawn)) == 64
        quarters = {ids.index(each) * 4 // len(ids) for each in drawn}
        assert quarters == {0, 1, 2, 3}
        store.close()


@pytest.mark.parametrize("kind", ["numbers", "uuids", "both"])
def test_a_sample_is_spread_over_the_ids(kind: str, make_store: MakeStore) -> None:
    n = 400
    numbers: list[Any] = [10**6 * i for i in range(n)]
    uuids: list[Any] = [str(uuid.UUID(int=(i << 119) + 5)) for i in range(n)]
    ids = {"numbers": numbers, "uuids": uuids, "both": numbers[::2] + uuids[::2]}[kind]
    store = make_store(Schema(h=4))
    code = SparseCodes.from_dense(np.tile(np.eye(4, dtype=np.float32)[:1], (len(ids), 1)))
    store.upsert(PointBatch(ids, code, None, [{}] * len(ids)))
    drawn = [point.id for page in sample_points(store, 64) for point in page]
    assert len(drawn) == len(set(drawn)) == 64
    quarters = {ids.index(each) * 4 // len(ids) for each in drawn}
    assert quarters == {0, 1, 2, 3}
    again = [point.id for page in sample_points(store, 64) for point in page]
    assert again == drawn
    other = [point.id for page in sample_points(store, 64, seed=1) for point in page]
    assert other != drawn
    every = [point.id for page in sample_points(store, n) for point in page]
    assert sorted(map(str, every)) == sorted(map(str, ids))


def test_an_empty_collection_has_no_usage(make_store: MakeStore) -> None:
    usage = latent_usage(make_store(Schema(h=4)))
    assert (usage.points, usage.dead.tolist(), usage.longest(3)) == (0, [0, 1, 2, 3], [])
    assert (usage.effective_latents, usage.dead_share_bound) == (0, 0)


# --- commands -------------------------------------------------------------------------------------


@pytest.fixture
def folder(csr: Csr, tiny_encoder: Encoder) -> None:
    """Make the collection `col` with texts that name the strongest latent."""
    strongest = tiny_encoder.encode(X).to_dense().argmax(axis=1)
    payloads = [{"text": f"about {_word(i)} and more"} for i in strongest]
    with Collection.create("col", tiny_encoder) as collection:
        collection.add(range(300), vectors=X, payloads=payloads)
    np.save("q.npy", X[:9])


def test_csr_explain(csr: Csr, folder: None) -> None:
    command = ("explain", "col", "--vectors", "q.npy", "--row", 7, "-n", 2, "--text", "text")
    told = csr(*command, "--json").json
    with Collection.open("col") as collection:
        expected = explain(collection, X[7], limit=2, text="text")
    assert told["query"] == "q.npy, row 7"
    assert [hit["id"] for hit in told["hits"]] == [each.id for each in expected]
    first = told["hits"][0]["latents"][0]
    assert first["contribution"] == pytest.approx(expected[0].latents[0].contribution)
    assert first["name"] == expected[0].latents[0].name
    assert first["top"][0]["id"] == expected[0].latents[0].top[0].id
    shown = csr(*command).stdout
    assert f"id 7: score {expected[0].score:.4f}, 4 latents shared of 4 in the query" in shown
    assert first["name"] in shown


def test_csr_explain_of_rows_and_texts(csr: Csr) -> None:
    encoder = Encoder(
        weight=np.random.default_rng(2).normal(size=(128, 64)).astype(np.float32),
        latent_bias=np.zeros(128, np.float32),
        pre_bias=np.zeros(64, np.float32),
        k=8,
        info={"embedder": "wordllama:64"},
    )
    with Collection.create("texts", encoder) as collection:
        collection.add([0, "1", 2, "three"], texts=TEXTS, payloads=[{"text": t} for t in TEXTS])
    told = csr("explain", "texts", "the king", "--id", 1, "--id", 2, "--id", "three", "--json").json
    assert [hit["id"] for hit in told["hits"]] == ["1", 2, "three"]
    assert told["hits"][1]["payload"] == {"text": TEXTS[2]}
    assert told["hits"][1]["score"] > told["hits"][0]["score"]
    shown = csr("explain", "texts", "warm bread", "-n", 1).stdout
    assert (
        "id three: score 1.0000, 8 latents shared of 8 in the query and 8 in the document" in shown
    )


def test_csr_latents(csr: Csr, folder: None) -> None:
    told = csr("latents", "col", "-n", 4, "--text", "text", "--json").json
    with Collection.open("col") as collection:
        usage = latent_usage(collection.store)
    assert [each["latent"] for each in told["longest"]] == usage.longest(4)
    assert [each["latent"] for each in told["most_used"]] == usage.heaviest(4)
    assert told["longest"][0]["documents"] == usage.documents.max()
    assert told["longest"][0]["share"] == pytest.approx(usage.shares.max())
    assert told["dead"] == usage.dead.tolist()
    assert _word(told["most_used"][0]["latent"]) in told["most_used"][0]["name"]
    shown = csr("latents", "col", "-n", 4).stdout
    assert "col: 32 latents in all 300 points; lists cost as much as" in shown
    assert "longest posting lists" in shown and "dead: " in shown
    sampled = csr("latents", "col", "--sample", 100).stdout
    assert "32 latents in 100 of 300 points" in sampled
    assert "estimated from the sample" in sampled and "estimated" not in shown


def test_the_commands_on_a_server(
    csr: Csr, monkeypatch: pytest.MonkeyPatch, tiny_encoder: Encoder
) -> None:
    client = QdrantClient(":memory:")
    monkeypatch.setattr(client, "close", lambda: None)
    monkeypatch.setattr("csr_qdrant.stores.server.connect", lambda url, **rest: client)
    Collection.create_on(client, "books", tiny_encoder).add(range(300), vectors=X)
    tiny_encoder.save("enc")
    np.save("q.npy", X[:2])
    server = ("--url", "http://somewhere", "--collection", "books")
    assert csr("latents", *server, "--json").json["points"] == 300
    told = csr("explain", *server, "--encoder", "enc", "--vectors", "q.npy", "--json").json
    assert told["hits"][0]["id"] == 0
    missing = csr("explain", *server, "--vectors", "q.npy")
    assert (missing.exit_code, "pass --encoder" in missing.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "sentence"),
    [
        (("explain", "col"), 2, "give one query: a text, or --vectors FILE"),
        (("explain", "col", "a", "--vectors", "q.npy"), 2, "give one query: a text"),
        (("explain", "col", "--vectors", "q.npy", "--row", 9), 2, "has 9 rows, got row 9"),
        (("explain", "col", "--vectors", "q.npy", "--row", -1), 2, "has 9 rows, got row -1"),
        (("explain", "col", "--vectors", "q.npy", "--id", "x"), 1, "has no row 'x'"),
        (("explain", "col", "--vectors", "q.npy", "-n", 0), 2, "limit must be at least 1, got 0"),
        (("explain", "none", "--vectors", "q.npy"), 1, "there is no collection at none"),
        (("latents", "none"), 1, "there is no collection at none"),
        (("latents", "col", "--sample", 0), 2, "sample must be at least 1, got 0"),
        (("latents",), 2, "no collection is named"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    csr: Csr, folder: None, arguments: tuple[Any, ...], exit_code: int, sentence: str
) -> None:
    ran = csr(*arguments)
    assert (ran.exit_code, ran.stdout) == (exit_code, "")
    assert sentence in ran.stderr
    assert ran.stderr.count("\n") == 1
