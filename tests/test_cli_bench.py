"""`csr bench`: each command on a small task of its own."""

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.collection import Collection
from csr_qdrant.encoder import Encoder

Csr = Callable[..., Any]
SMALL = ("--k", "2,4", "--query-k", 2, "--ef", 8, "--candidates", 20, "--timed", 5, "--dims", 4)
FEW = ("--systems", "hnsw,truncated,binary,csr")
WORDS = [f"word{i}" for i in range(40)]

EMBEDDER = """
import numpy as np
def vectors(texts):
    open("calls.txt", "a").write(f"{len(texts)}\\n")
    words = {f"word{i}": np.random.default_rng(i).standard_normal(8) for i in range(40)}
    return np.array([sum(words[w] for w in t.split()) for t in texts], np.float32)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csr_qdrant.benchmarks.matrix.timing.SECONDS", 0.02)


@pytest.fixture
def files(csr: Csr, tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> Csr:
    """Make a BEIR folder, an embedder of its texts, and an encoder."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 3)) for _ in range(60)]
    beir = Path("beir")
    (beir / "qrels").mkdir(parents=True)
    corpus = [{"_id": f"d{i}", "text": text} for i, text in enumerate(texts)]
    queries = [{"_id": f"q{i}", "text": text} for i, text in enumerate(WORDS)]
    with gzip.open(beir / "corpus.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in corpus)
    (beir / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    for split, asked in (("train", WORDS[:20]), ("test", WORDS[20:])):
        lines = ["query-id\tcorpus-id\tscore"]
        lines += [
            f"q{WORDS.index(word)}\td{i}\t1"
            for word in asked
            for i, text in enumerate(texts)
            if word in text.split()
        ]
        (beir / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    Path("own_words.py").write_text(EMBEDDER)
    monkeypatch.delitem(sys.modules, "own_words", raising=False)
    tiny_encoder.save("enc")
    return csr


def test_a_beir_folder(files: Csr) -> None:
    command = ("bench", "beir", "beir", "-o", "out", "--embedder", "python:own_words:vectors")
    ran = files(*command, *SMALL, *FEW, "--encoder", "enc", "--json")
    report = ran.json
    assert report["task"] | {"embedder": None} == {
        "name": "beir",
        "kind": "retrieval",
        "documents": 60,
        "queries": 20,
        "d": 8,
        "embedder": None,
        "measure": "ndcg@10",
    }
    exact = report["systems"][0]
    assert exact["name"] == "dense float32, exact" and exact["quality"]["ndcg@10"]["mean"] > 0.5
    assert {"HNSW m=16, ef 8", "CSR k=4, queries 2"} <= {s["name"] for s in report["systems"]}
    for name in ("report.json", "report.md", "report.html", "report.png"):
        assert Path("out", name).stat().st_size > 1000
    # Vectors are kept: the embedder is not asked again.
    asked = len(Path("calls.txt").read_text().split())
    again = files(*command, *SMALL, *FEW, "--encoder", "enc", "--json").json
    assert len(Path("calls.txt").read_text().split()) == asked
    assert [s["quality"] for s in again["systems"]] == [s["quality"] for s in report["systems"]]
    shown = files(*command, *SMALL, *FEW, "--encoder", "enc")
    assert "dense float32, exact" in shown.stdout and "report.html" in shown.stderr


def test_pairs_of_the_train_split_are_learned_from(files: Csr) -> None:
    report = files(
        *("bench", "beir", "beir", "-o", "out", "--embedder", "python:own_words:vectors"),
        *("--systems", "adapter", "--candidates", 0, "--json"),
    ).json
    assert [s["name"] for s in report["systems"]][1:] == ["dense adapter (pairs), exact"]


def test_judgements_that_name_unknown_documents_are_counted(files: Csr) -> None:
    with Path("beir/qrels/test.tsv").open("a") as file:
        file.write("q30\tnowhere\t1\n")
    command = ("bench", "beir", "beir", "--embedder", "python:own_words:vectors")
    ran = files(*command, "-o", "o", "--systems", "exact", "--json")
    assert "1 of " in ran.stderr and "documents that the corpus lacks" in ran.stderr
    Path("beir/qrels/empty.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t0\n")
    ran = files(*command, "-o", "o2", "--split", "empty")
    assert ran.exit_code == 1 and "no query of empty has a relevant document" in ran.stderr
    ran = files(*command, "-o", "o3", "--split", "dev")
    assert ran.exit_code == 1 and "has no judgements 'dev'" in ran.stderr


def test_labelled_vectors(files: Csr) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 240)
    middles = 3 * rng.standard_normal((5, 8))
    data = (middles[labels] + rng.standard_normal((240, 8))).astype(np.float32)
    np.savez("gallery.npz", data=data[:200], label=labels[:200])
    np.savez("val.npz", data=data[200:], label=labels[200:])
    command = ("bench", "labels", "gallery.npz", "val.npz", "-o", "out", *SMALL, *FEW)
    report = files(*command, "--encoder", "enc", "--knn", 5, "--json").json
    assert report["task"]["measure"] == "top1"
    assert set(report["systems"][0]["quality"]) == {"top1", "knn@5", "map@10", "precision@10"}
    assert report["systems"][0]["quality"]["top1"]["mean"] > 0.8


def test_images_and_captions_as_vectors(files: Csr) -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((30, 8)).astype(np.float32)
    owners = np.repeat(np.arange(30), 2)
    folder = Path("vectors")
    folder.mkdir()
    np.save(folder / "images.npy", images)
    noisy = images[owners] + 0.3 * rng.standard_normal((60, 8))
    np.save(folder / "captions.npy", noisy.astype(np.float32))
    np.save(folder / "caption_images.npy", owners)
    command = ("bench", "image-text", "vectors", "-o", "out", *SMALL, *FEW, "--encoder", "enc")
    assert files(*command).exit_code == 0
    for direction, measure in (("text-to-image", "image_retr"), ("image-to-text", "text_retr")):
        report = json.loads(Path("out", direction, "report.json").read_text())
        assert report["task"]["measure"].startswith(measure)
        assert report["systems"][0]["quality"][report["task"]["measure"]]["mean"] > 0.8
    page = files("bench", "report", "out/text-to-image", "out/image-to-text", "--json").json
    assert page["tasks"] == ["vectors, text to image", "vectors, image to text"]
    assert Path("report.html").stat().st_size > 10_000


def test_images_need_an_embedder_of_both(files: Csr) -> None:
    Path("captions.json").write_text("{}")
    ran = files("bench", "image-text", "captions.json")
    assert ran.exit_code in (1, 2) and "pass --embedder" in ran.stderr


def test_a_collections_own_vectors(files: Csr, tiny_encoder: Encoder) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((200, 8)).astype(np.float32)
    with Collection.create("col", tiny_encoder, keep_dense=True) as made:
        made.add(list(range(200)), vectors=vectors)
    command = ("bench", "collection", "col", "-o", "out", *SMALL, *FEW, "--encoder", "enc")
    report = files(*command, "--sampled", 20, "--json").json
    assert report["task"]["kind"] == "collection"
    assert (report["task"]["documents"], report["task"]["queries"]) == (180, 20)
    assert report["task"]["measure"] == "recall@10"
    assert report["systems"][0]["fidelity"]["recall@10"] == 1
    assert report["comparisons"][0]["measure"] == "recall@10"


def test_the_papers_products(csr: Csr) -> None:
    sizes = ("--rows", 300, "--h", 64, "--k", 4, "--d", 16, "--batch", 8, "--rounds", 2)
    made = csr("bench", "retrieval-time", *sizes, "--json").json
    (cell,) = made["cells"]
    assert set(cell["ways"]) == {
        "dense product",
        "sparse product",
        "engine, dense exact",
        "engine, sparse index",
    }
    assert Path(made["record"]).is_file()
    assert "sparse product" in csr("bench", "retrieval-time", *sizes, "--no-engine").stdout


def test_a_model_of_scale(csr: Csr) -> None:
    vectors = np.random.default_rng(0).standard_normal((400, 8)).astype(np.float32)
    np.save("x.npy", vectors)
    sizes = ("--fitted", 200, "--fitted", 400, "--checked", 800, "--h", 64, "--k", 4)
    made = csr("bench", "scale", "x.npy", *sizes, "--steps", 5, "--queries", 10, "--json").json
    assert Path("scale.json").is_file() and made


def test_codes_for_another_benchmark(csr: Csr, tiny_encoder: Encoder) -> None:
    vectors = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    for name, rows in (("documents", vectors), ("queries", vectors[:4])):
        tiny_encoder.encode(rows).save(f"{name}.safetensors")
    command = ("bench", "export", "documents.safetensors", "queries.safetensors", "-o", "out")
    made = csr(*command, "--depth", 3, "--json").json
    assert (made["documents"], made["queries"]) == (50, 4)
    assert {path.name for path in Path("out").iterdir()} == {
        "data.csr",
        "queries.csr",
        "results.gt",
        "dataset.json",
    }
    assert "already exists" in csr(*command).stderr


def test_what_cannot_be_measured_is_said(files: Csr) -> None:
    for arguments, said in (
        (("collection",), "no collection is named"),
        (("labels", "none.npz", "none.npz"), "none.npz"),
        (("report", "nowhere"), "nowhere"),
        (("beir", "beir", "--systems", "magic"), "systems are exact"),
        (("mteb", "A", "B", "--local", "x"), "--local holds the data of one task"),
    ):
        ran = files("bench", *arguments)
        assert ran.exit_code in (1, 2), arguments
        assert said in ran.stderr and len(ran.stderr.strip().splitlines()) == 1, ran.stderr


def test_settings_are_shared_by_all_benchmarks(files: Csr, monkeypatch: Any) -> None:
    Path("bench.toml").write_text('[bench]\nsystems = ["magic"]\n')
    ran = files("bench", "beir", "beir", "--config", "bench.toml")
    assert "systems are exact" in ran.stderr
    monkeypatch.setenv("CSR_BENCH_EF", "0")
    assert "ef must be above 0" in files("bench", "beir", "beir").stderr
