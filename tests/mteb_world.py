"""What the tests of mteb share: a small task, an embedder of its words, and an encoder."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.benchmarks.mteb_systems import Candidate, dense
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.embedders import CallableEmbedder
from csr_qdrant.encoder import Encoder

pytest.importorskip("mteb")
datasets = pytest.importorskip("datasets")

D = 16
WORDS = [f"word{i}" for i in range(60)]
TOPICS = 40
SOME: dict[str, Any] = {
    "systems": ("exact", "hnsw", "binary", "csr"),
    "ef": (32,),
    "k": (4,),
    "query_k": (),
    "candidates": 20,
}
Change = Callable[[dict[str, Any]], Any]


def documents() -> list[dict[str, str]]:
    rng = np.random.default_rng(5)
    return [
        {
            "id": f"d{i}",
            "title": WORDS[i % 60] if i % 3 else "",
            "text": " ".join([*rng.choice(WORDS, 6).tolist(), WORDS[i % 60]]),
        }
        for i in range(150)
    ]


def queries() -> list[dict[str, str]]:
    topics = [{"id": f"q{i}", "text": WORDS[i]} for i in range(TOPICS)]
    return [*topics, {"id": "empty", "text": ""}]


def judgements() -> dict[str, dict[str, int]]:
    """Return documents with the query's word, and one that there is not."""
    found: dict[str, dict[str, int]] = {}
    for query in queries()[:TOPICS]:
        word = query["text"]
        holding = [doc for doc in documents() if word in doc["text"].split()]
        found[query["id"]] = {doc["id"]: 1 + (doc["title"] == word) for doc in holding}
    found["q0"]["gone"] = 1
    return {**found, "empty": {"d3": 1}}


def tiny_task(change: Change | None = None, **about: Any) -> Any:
    """Return the task, its data as `change` leaves them."""
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    described: dict[str, Any] = {
        "name": "TinyRetrieval",
        "description": "words in texts",
        "dataset": {"path": "csr-qdrant/tiny", "revision": "1"},
        "type": "Retrieval",
        "category": "t2t",
        "eval_splits": ["test"],
        "eval_langs": ["eng-Latn"],
        "main_score": "ndcg_at_10",
        **about,
    }

    class TinyRetrieval(AbsTaskRetrieval):
        metadata = TaskMetadata(**described)

        def load_data(self, *arguments: Any, **settings: Any) -> None:
            split: dict[str, Any] = {
                "corpus": datasets.Dataset.from_list(documents()),
                "queries": datasets.Dataset.from_list(queries()),
                "relevant_docs": judgements(),
                "top_ranked": None,
            }
            if change is not None:
                change(split)
            parts: Any = {name: {"test": split} for name in self.hf_subsets}
            self.dataset = parts
            self.data_loaded = True

    return TinyRetrieval()


def hub_folder(folder: Path) -> Path:
    """Write the data set as it would lie on the hub."""
    (folder / "qrels").mkdir(parents=True)
    parts = {
        "default": ("test", "qrels/test.jsonl"),
        "corpus": ("corpus", "corpus.jsonl"),
        "queries": ("queries", "queries.jsonl"),
    }
    configs = [
        f"- config_name: {name}\n  data_files:\n  - split: {split}\n    path: {path}\n"
        for name, (split, path) in parts.items()
    ]
    (folder / "README.md").write_text("---\nconfigs:\n" + "".join(configs) + "---\n")
    _lines(folder / "corpus.jsonl", [{"_id": doc.pop("id"), **doc} for doc in documents()])
    _lines(folder / "queries.jsonl", [{"_id": query.pop("id"), **query} for query in queries()])
    judged = [
        {"query-id": query, "corpus-id": doc, "score": grade}
        for query, grades in judgements().items()
        for doc, grade in grades.items()
    ]
    _lines(folder / "qrels" / "test.jsonl", judged)
    return folder


def _lines(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class WordEmbedder:
    """Sums of fixed random vectors of words; counts its calls."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self._vectors = {word: rng.normal(size=D) for word in WORDS}
        self.calls = 0
        self.embedder = CallableEmbedder(self._embed, D, "words")

    def _embed(self, texts: list[str]) -> Any:
        self.calls += 1
        return [sum((self._vectors[w] for w in t.split()), np.zeros(D)) for t in texts]


def words_fixture() -> Any:
    """Return a fixture that gives a new `WordEmbedder`."""

    @pytest.fixture
    def words() -> WordEmbedder:
        return WordEmbedder()

    return words


def tiny_encoder() -> Encoder:
    rng = np.random.default_rng(7)
    return Encoder(
        weight=rng.normal(size=(64, D)).astype(np.float32),
        latent_bias=np.zeros(64, np.float32),
        pre_bias=np.zeros(D, np.float32),
        k=4,
    )


def exact_only(vectors: Matrix, folder: Path) -> Sequence[Candidate]:
    return [dense("exact")]
