"""The retriever that mteb itself may search with."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from csr_qdrant.benchmarks import mteb_search
from csr_qdrant.benchmarks.mteb_run import run_mteb
from csr_qdrant.benchmarks.mteb_search import SystemRetriever, model_meta
from csr_qdrant.benchmarks.mteb_texts import Embeddings
from csr_qdrant.benchmarks.systems import DenseSystem, truncated
from csr_qdrant.embedders import CallableEmbedder
from csr_qdrant.errors import ConfigError, CsrError

sys.path.insert(0, str(Path(__file__).parent))
from mteb_world import WordEmbedder, documents, exact_only, queries, tiny_task, words_fixture

mteb = pytest.importorskip("mteb")
datasets = pytest.importorskip("datasets")

words = words_fixture()


@pytest.fixture
def retriever(words: WordEmbedder, tmp_path: Path) -> Iterator[SystemRetriever]:
    meta = model_meta(words.embedder, "truncated", {"dims": 4}, "dense")
    made = SystemRetriever(
        Embeddings(words.embedder, tmp_path / "embeddings"),
        lambda vectors, part: truncated(4),
        meta,
        tmp_path / "indexes",
        depth=7,
    )
    yield made
    made.close()


def test_the_retriever_works_with_mteb_alone(retriever: SystemRetriever, tmp_path: Path) -> None:
    from mteb.models import EncoderProtocol, SearchProtocol

    assert isinstance(retriever, SearchProtocol)
    assert not isinstance(retriever, EncoderProtocol)
    cache = mteb.ResultCache(tmp_path / "cache")
    found = mteb.evaluate(retriever, tiny_task(), cache=cache, co2_tracker=False)
    assert 0.1 < found.task_results[0].get_score() < 1
    assert list((tmp_path / "cache").rglob("TinyRetrieval.json"))


def test_searches_return_every_query_and_at_most_depth_documents(
    retriever: SystemRetriever, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mteb_search, "QUERIES", 6)  # several blocks
    where: dict[str, Any] = {"hf_split": "test", "hf_subset": "default"}
    about = tiny_task().metadata
    corpus = datasets.Dataset.from_list(documents())
    asked = datasets.Dataset.from_list(queries())
    with pytest.raises(CsrError, match="call index before search"):
        retriever.search(asked, task_metadata=about, top_k=10, **where)
    retriever.index(corpus, task_metadata=about, **where)
    run = retriever.search(asked, task_metadata=about, top_k=10, **where)
    assert list(run) == [query["id"] for query in queries()]
    assert {len(found) for found in run.values()} == {7}
    assert len(retriever.search(asked, task_metadata=about, top_k=3, **where)["q1"]) == 3
    with pytest.raises(CsrError, match="TinyRetrieval reorders documents that it names itself"):
        retriever.search(asked, task_metadata=about, top_k=3, top_ranked={"q1": ["d1"]}, **where)
    with pytest.raises(CsrError, match="TinyRetrieval has no documents in default/test"):
        retriever.index(corpus.select([]), task_metadata=about, **where)


def test_of_documents_that_share_an_id_the_best_stays(words: WordEmbedder, tmp_path: Path) -> None:
    meta = model_meta(words.embedder, "exact", {}, "dense")
    corpus = datasets.Dataset.from_list(
        [{"id": "same", "text": "word1"}, {"id": "same", "text": "word2"}]
    )
    made = SystemRetriever(
        Embeddings(words.embedder, tmp_path / "e"),
        lambda vectors, part: DenseSystem(name="exact", m=0),
        meta,
        tmp_path / "i",
    )
    where: dict[str, Any] = {"hf_split": "test", "hf_subset": "default"}
    made.index(corpus, task_metadata=tiny_task().metadata, **where)
    asked = datasets.Dataset.from_list([{"id": "q", "text": "word2"}])
    run = made.search(asked, task_metadata=tiny_task().metadata, top_k=10, **where)
    made.close()
    assert run["q"]["same"] == pytest.approx(1.0, abs=1e-5)


def test_depth_must_be_positive(words: WordEmbedder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="depth must be at least 1, got 0"):
        run_mteb(tiny_task(), words.embedder, exact_only, tmp_path, depth=0)


def test_hub_models_are_named_as_what_was_adapted() -> None:
    embedder = CallableEmbedder(lambda texts: texts, 4, "sentence-transformers:org/model")
    assert model_meta(embedder, "x", {}, "1").adapted_from == "org/model"
