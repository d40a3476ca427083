"""Haystack's own pipelines and document store over codes."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
from haystack import Document, Pipeline, component
from haystack.core.errors import DeserializationError
from haystack.dataclasses import SparseEmbedding
from haystack_integrations.components.retrievers.qdrant import (
    QdrantHybridRetriever,
    QdrantSparseEmbeddingRetriever,
)
from haystack_integrations.document_stores.qdrant import QdrantDocumentStore

from csr_qdrant.embedders import load_embedder
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.integrations.haystack import (
    CsrDocumentEmbedder,
    CsrDocumentEncoder,
    CsrQueryEncoder,
    CsrTextEmbedder,
)

TEXTS = ["the sea is deep", "bread is baked from flour", "ships cross the ocean", "a king rules"]
QUERY = "a ship on the sea"
DIMENSION = 64
URI = f"wordllama:{DIMENSION}"
MODULE = "csr_qdrant.integrations.haystack"


@component
class CountingEmbedder:
    """A user's text embedder that keeps what it was asked for."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, Any]:
        self.texts.append(text)
        return {"embedding": load_embedder(URI).embed_queries([text])[0].tolist()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    Encoder(
        weight=rng.normal(size=(512, DIMENSION)).astype(np.float32),
        latent_bias=np.zeros(512, np.float32),
        pre_bias=np.zeros(DIMENSION, np.float32),
        k=32,
        info={"embedder": URI},
    ).save(tmp_path / "encoder")
    return tmp_path / "encoder"


def documents(texts: list[str] = TEXTS) -> list[Document]:
    return [Document(content=text, meta={"title": text.upper()}) for text in texts]


def embedded() -> list[Document]:
    rows = load_embedder(URI).embed_documents(TEXTS).tolist()
    return [Document(content=t, embedding=row) for t, row in zip(TEXTS, rows, strict=True)]


def document_store(docs: list[Document]) -> QdrantDocumentStore:
    store = QdrantDocumentStore(":memory:", embedding_dim=DIMENSION, use_sparse_embeddings=True)
    store.write_documents(docs)
    return store


def contents(found: dict[str, Any]) -> set[str]:
    return {document.content for document in found["retriever"]["documents"]}


def test_hybrid_search_behind_a_users_embedder_runs_it_once(folder: Path) -> None:
    coded = CsrDocumentEncoder(folder).run(embedded())["documents"]
    embedder = CountingEmbedder()
    search = Pipeline()
    search.add_component("embedder", embedder)
    search.add_component("encoder", CsrQueryEncoder(folder, k=16))
    search.add_component(
        "retriever", QdrantHybridRetriever(document_store=document_store(coded), top_k=2)
    )
    search.connect("embedder.embedding", "encoder.embedding")
    search.connect("embedder.embedding", "retriever.query_embedding")
    search.connect("encoder.sparse_embedding", "retriever.query_sparse_embedding")
    found = search.run({"embedder": {"text": QUERY}})
    assert embedder.texts == [QUERY]
    assert contents(found) == {TEXTS[0], TEXTS[2]}


def test_hybrid_search_by_an_embedder_of_this_package(folder: Path) -> None:
    coded = CsrDocumentEmbedder(folder, dense=True).run(documents())["documents"]
    search = Pipeline()
    search.add_component("embedder", CsrTextEmbedder(folder))
    search.add_component(
        "retriever", QdrantHybridRetriever(document_store=document_store(coded), top_k=2)
    )
    search.connect("embedder.embedding", "retriever.query_embedding")
    search.connect("embedder.sparse_embedding", "retriever.query_sparse_embedding")
    assert contents(search.run({"embedder": {"text": QUERY}})) == {TEXTS[0], TEXTS[2]}


def test_sparse_search_ranks_by_the_cosine_of_codes(folder: Path) -> None:
    coded = CsrDocumentEmbedder(folder, k=16).run(documents())["documents"]
    assert all(document.embedding is None for document in coded)
    query = CsrTextEmbedder(folder, k=8).run(QUERY)["sparse_embedding"]
    retriever = QdrantSparseEmbeddingRetriever(document_store=document_store(coded))
    found = {d.content: d.score for d in retriever.run(query_sparse_embedding=query)["documents"]}
    encoder, model = Encoder.load(folder), load_embedder(URI)
    rows = encoder.encode(model.embed_documents(TEXTS), 16).normalised().to_dense()
    asked = encoder.encode(model.embed_queries([QUERY]), 8).normalised().to_dense()[0]
    expected = {text: score for text, score in zip(TEXTS, rows @ asked, strict=True) if score}
    assert found == pytest.approx(expected, abs=1e-6)


def test_both_ways_give_the_same_codes(folder: Path) -> None:
    by_text = CsrDocumentEmbedder(folder).run(documents())["documents"]
    by_vector = CsrDocumentEncoder(folder).run(embedded())["documents"]
    assert [d.sparse_embedding for d in by_text] == [d.sparse_embedding for d in by_vector]
    dense = load_embedder(URI).embed_queries([QUERY])[0].tolist()
    both = CsrTextEmbedder(folder).run(QUERY)
    assert both["embedding"] == dense
    assert CsrQueryEncoder(folder).run(dense)["sparse_embedding"] == both["sparse_embedding"]


def test_documents_given_stay_as_they_are(folder: Path) -> None:
    given = documents([*TEXTS, ""])
    coded = CsrDocumentEmbedder(folder, dense=True).run(given)["documents"]
    assert all(d.sparse_embedding is None and d.embedding is None for d in given)
    assert [d.id for d in coded] == [d.id for d in given]
    assert coded[4].sparse_embedding is None  # no text, no direction, no code
    assert isinstance(coded[0].sparse_embedding, SparseEmbedding)
    for each in (CsrDocumentEmbedder(folder), CsrDocumentEncoder(folder)):
        assert each.run([])["documents"] == []


def test_meta_stands_before_the_content(folder: Path) -> None:
    made = CsrDocumentEmbedder(
        folder, meta_fields_to_embed=["title", "absent"], embedding_separator=" / "
    )
    coded = made.run(documents(["a king"]))["documents"][0]
    same = CsrDocumentEmbedder(folder).run([Document(content="A KING / a king")])["documents"][0]
    assert coded.sparse_embedding == same.sparse_embedding


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: CsrDocumentEncoder(folder, 4),
        lambda folder: CsrQueryEncoder(folder, 4),
        lambda folder: CsrTextEmbedder(folder, URI, 4),
        lambda folder: CsrDocumentEmbedder(folder, URI, 4, True, ["title"], " "),
    ],
)
def test_components_are_saved_whole(folder: Path, make: Any) -> None:
    made = make(folder)
    kept = made.to_dict()
    assert type(made).from_dict(kept).to_dict() == kept
    assert kept["init_parameters"]["encoder"] == str(folder)
    assert kept["init_parameters"]["k"] == 4
    pipeline = Pipeline()
    pipeline.add_component("csr", made)
    assert Pipeline.loads(pipeline.dumps(), allowed_modules=[MODULE]).to_dict() == (
        pipeline.to_dict()
    )
    with pytest.raises(DeserializationError):
        Pipeline.loads(pipeline.dumps())


def test_what_has_no_name_cannot_be_saved(folder: Path) -> None:
    with pytest.raises(CsrError, match="needs the encoder's folder"):
        CsrQueryEncoder(Encoder.load(folder)).to_dict()
    with pytest.raises(CsrError, match="needs the embedder's URI, got WordLlamaEmbedder"):
        CsrTextEmbedder(folder, load_embedder(URI)).to_dict()


def test_nothing_is_loaded_before_it_is_needed(tmp_path: Path) -> None:
    made = CsrTextEmbedder(tmp_path / "nowhere")
    with pytest.raises(CsrError, match="nowhere"):
        made.warm_up()


def test_a_saved_pipeline_runs_no_function_of_this_machine(folder: Path) -> None:
    kept = CsrTextEmbedder(folder, "python:os:getcwd").to_dict()
    with pytest.raises(ConfigError, match="only where its user names it"):
        CsrTextEmbedder.from_dict(kept).warm_up()


def test_documents_need_dense_embeddings_of_one_size(folder: Path) -> None:
    encoder = CsrDocumentEncoder(folder)
    with pytest.raises(CsrError, match="has no dense embedding: run an embedder before"):
        encoder.run([*embedded(), Document(content="bare")])
    with pytest.raises(ConfigError, match="must be lists of equally many numbers"):
        encoder.run([*embedded(), Document(content="short", embedding=[1.0])])
    with pytest.raises(CsrError, match=r"takes vectors of shape \(n, 64\), got \(1, 2\)"):
        CsrQueryEncoder(folder).run([1.0, 2.0])
