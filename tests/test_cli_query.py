"""`csr query`: texts, files and stdin; the hits of the library, as a table or as JSON lines."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from csr_qdrant.codes import SparseCodes
from csr_qdrant.collection import Collection
from csr_qdrant.encoder import Encoder

Csr = Callable[..., Any]

X = np.random.default_rng(1).normal(size=(200, 8)).astype(np.float32)
TEXTS = ["red wine from the south", "a ship on the sea", "the king and his crown", "warm bread"]


@pytest.fixture
def vectors(csr: Csr, tiny_encoder: Encoder) -> None:
    """Make the collection `col` of vectors, with dense ones kept."""
    with Collection.create("col", tiny_encoder, keep_dense=True) as collection:
        payloads = [{"parity": i % 2, "title": f"title {i}"} for i in range(200)]
        collection.add([f"row {i}" for i in range(200)], vectors=X, payloads=payloads)


@pytest.fixture
def texts(csr: Csr) -> None:
    """Make the collection `texts`, which knows its embedder."""
    encoder = Encoder(
        weight=np.random.default_rng(2).normal(size=(128, 64)).astype(np.float32),
        latent_bias=np.zeros(128, np.float32),
        pre_bias=np.zeros(64, np.float32),
        k=8,
        info={"embedder": "wordllama:64"},
    )
    with Collection.create("texts", encoder) as collection:
        collection.add(range(4), texts=TEXTS, payloads=[{"text": text} for text in TEXTS])


def as_rows(hits: list[Any]) -> list[dict[str, Any]]:
    return [{"id": id, "score": score, "payload": payload} for id, score, payload in hits]


def test_texts_find_what_the_library_finds(csr: Csr, texts: None) -> None:
    with Collection.open("texts") as collection:
        expected = collection.search_batch(["the king", "a ship"], limit=2)
    rows = csr("query", "texts", "the king", "a ship", "--limit", 2, "--json").rows
    assert [row["query"] for row in rows] == ["the king", "a ship"]
    assert [row["hits"] for row in rows] == [as_rows(hits) for hits in expected]
    assert rows[0]["hits"][0]["payload"] == {"text": TEXTS[2]}


def test_searching_writes_nothing_beside_the_engines_files(
    csr: Csr, vectors: None, tiny_encoder: Encoder
) -> None:
    tiny_encoder.save("enc")
    shutil.rmtree("col/encoder")
    before = sorted(Path("col").iterdir())
    np.save("q.npy", X[:2])
    command = ("query", "col", "--vectors", "q.npy", "--encoder", "enc")
    assert csr(*command).exit_code == 0
    assert sorted(Path("col").iterdir()) == before


def test_the_table_shows_rank_score_id_and_text(csr: Csr, texts: None) -> None:
    with Collection.open("texts") as collection:
        best = collection.search("warm bread", limit=1)[0]
    shown = csr("query", "texts", "warm bread", "-n", 1).stdout
    line = next(line for line in shown.splitlines() if "bread" in line)
    assert line.split() == ["1", f"{best.score:.4f}", "3", "warm", "bread"]
    several = csr("query", "texts", "warm bread", "wine").stdout
    assert "query 'warm bread'" in several
    assert "query 'wine'" in several


def test_a_vector_file_is_searched_row_by_row(csr: Csr, vectors: None) -> None:
    np.save("q.npy", X[150:])
    with Collection.open("col") as collection:
        expected = collection.search_batch(X[150:], limit=3)
    rows = csr("query", "col", "--vectors", "q.npy", "-n", 3, "--json").rows
    assert [row["query"] for row in rows] == list(range(50))
    assert [row["hits"] for row in rows] == [as_rows(hits) for hits in expected]


def test_codes_are_queries_too(csr: Csr, vectors: None, tiny_encoder: Encoder) -> None:
    tiny_encoder.encode(X[:3]).save("q.safetensors")
    rows = csr("query", "col", "--vectors", "q.safetensors", "-n", 1, "--json").rows
    assert [row["hits"][0]["id"] for row in rows] == ["row 0", "row 1", "row 2"]


def test_stdin_takes_texts_and_vectors(csr: Csr, texts: None, vectors: None) -> None:
    with Collection.open("texts") as collection:
        vector = collection.embedder.embed_queries([TEXTS[1]])[0]
    stdin = f"the king\n\n{json.dumps(vector.tolist())}\n[a note] about wine\n"
    rows = csr("query", "texts", "-", "-n", 1, "--json", stdin=stdin).rows
    assert [(row["query"], row["hits"][0]["id"]) for row in rows] == [
        ("the king", 2),
        (1, 1),
        ("[a note] about wine", 0),
    ]
    many = "".join(json.dumps(row.tolist()) + "\n" for row in X)  # more than one batch
    rows = csr("query", "col", "-", "-n", 1, "--json", stdin=many).rows
    assert [row["hits"][0]["id"] for row in rows] == [f"row {i}" for i in range(200)]
    assert [row["query"] for row in rows] == list(range(200))


def test_k_filter_rescore_and_payload_reach_the_search(csr: Csr, vectors: None) -> None:
    condition = {"must": [{"key": "parity", "match": {"value": 1}}]}
    np.save("q.npy", X[:4])
    with Collection.open("col") as collection:
        expected = collection.search_batch(
            X[:4], limit=5, k=2, filter=condition, rescore=40, payload=False
        )
        plain = collection.search_batch(X[:4], limit=5)
    options = ("--k", 2, "--filter", json.dumps(condition), "--rescore", 40, "--no-payload")
    rows = csr("query", "col", "--vectors", "q.npy", "-n", 5, "--json", *options).rows
    assert [row["hits"] for row in rows] == [as_rows(hits) for hits in expected]
    assert rows[0]["hits"][0]["payload"] == {}
    assert all(int(hit["id"].split()[1]) % 2 for row in rows for hit in row["hits"])
    assert [row["hits"] for row in rows] != [as_rows(hits) for hits in plain]


def test_a_server_is_searched_with_the_encoder_given(
    csr: Csr, monkeypatch: pytest.MonkeyPatch, tiny_encoder: Encoder
) -> None:
    client = QdrantClient(":memory:")
    monkeypatch.setattr(client, "close", lambda: None)
    monkeypatch.setattr("csr_qdrant.stores.server.connect", lambda url, **rest: client)
    Collection.create_on(client, "books", tiny_encoder).add(range(200), vectors=X)
    tiny_encoder.save("enc")
    np.save("q.npy", X[:2])
    command = ("query", "--url", "http://somewhere", "--collection", "books", "--vectors", "q.npy")
    refused = csr(*command)
    assert (refused.exit_code, "keeps no encoder: pass --encoder" in refused.stderr) == (2, True)
    rows = csr(*command, "--encoder", "enc", "-n", 1, "--json").rows
    assert [row["hits"][0]["id"] for row in rows] == [0, 1]


# --- queries without an answer ----------------------------------------------------------------


def test_a_query_without_an_active_latent_is_one_sentence(csr: Csr, texts: None) -> None:
    ran = csr("query", "texts", "", "--json")
    assert ran.exit_code == 1
    assert ran.stderr.startswith("Error: query '' activates no latent, so nothing can be found: ")
    assert ran.stderr.count("\n") == 1
    several = csr("query", "texts", "", "wine", "-n", 1, "--json")
    assert several.stderr.startswith("Warning: query '' activates no latent (1 of 2 queries)")
    assert [len(row["hits"]) for row in several.rows] == [0, 1]


def test_dense_queries_without_an_active_latent_are_told_apart(csr: Csr) -> None:
    sleepy = Encoder(
        weight=np.eye(8, dtype=np.float32),
        latent_bias=np.zeros(8, np.float32),
        pre_bias=np.zeros(8, np.float32),
        k=4,
    )
    with Collection.create("col", sleepy) as collection:
        collection.add(range(2), vectors=np.eye(2, 8, dtype=np.float32))
    np.save("q.npy", np.stack([np.eye(8)[1], -np.ones(8), np.eye(8)[5]]).astype(np.float32))
    ran = csr("query", "col", "--vectors", "q.npy", "--json")
    assert [[hit["id"] for hit in row["hits"]] for row in ran.rows] == [[1], [], []]
    assert ran.stderr.startswith("Warning: query '1' activates no latent (1 of 3 queries)")
    SparseCodes.from_dense(np.zeros((1, 8))).save("q.safetensors")
    ran = csr("query", "col", "--vectors", "q.safetensors")
    assert (ran.exit_code, "activates no latent" in ran.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "sentence"),
    [
        (("col",), 2, "there is no query: give texts, --vectors FILE, or - for stdin"),
        (("col", "-"), 1, "there is no query on stdin"),
        (("col", "hello"), 2, "texts need an embedder and this collection knows none"),
        (("col", "hello", "--vectors", "q.npy"), 2, "give one kind of queries"),
        (("col", "--vectors", "q.npy", "--limit", 0), 2, "limit must be at least 1, got 0"),
        (("col", "--vectors", "q.npy", "--rescore", -1), 2, "rescore must be at least 0, got -1"),
        (("col", "--vectors", "q.npy", "--k", 33), 2, "k must be in 1..32"),
        (("col", "--vectors", "q.npy", "--filter", "{"), 2, "--filter is not JSON"),
        (("col", "--vectors", "q.npy", "--filter", "[]"), 2, "--filter must be a JSON object"),
        (("col", "--vectors", "wide.npy"), 1, "vectors of shape (n, 8), got (1, 9)"),
        (("col", "--vectors", "nan.npy"), 1, "query 1 holds NaN or infinity"),
        (("none", "hello"), 1, "there is no collection at none"),
        ((), 2, "no collection is named"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    csr: Csr, vectors: None, arguments: tuple[Any, ...], exit_code: int, sentence: str
) -> None:
    np.save("q.npy", X[:1])
    np.save("wide.npy", np.ones((1, 9), np.float32))
    np.save("nan.npy", np.array([np.ones(8), np.full(8, np.nan)], np.float32))
    ran = csr("query", *arguments, stdin="")
    assert (ran.exit_code, ran.stdout) == (exit_code, "")
    assert sentence in ran.stderr
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("stdin", "sentence"),
    [
        (b"\xff\xfe\n", "line 1 of stdin is not UTF-8"),
        (b"[1, 2]\n[1, 2, 3]\n", "row 1 of stdin has 3 dimensions where the rows before have 2"),
        (b"[1, 2]\n", "vectors of shape (n, 8), got (1, 2)"),
        (b"[1e999, 1, 1, 1, 1, 1, 1, 1]\n", "query 0 holds NaN or infinity"),
    ],
)
def test_bad_lines_of_stdin_are_refused(
    csr: Csr, vectors: None, stdin: bytes, sentence: str
) -> None:
    ran = csr("query", "col", "-", stdin=stdin)
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert sentence in ran.stderr
    assert ran.stderr.count("\n") == 1
