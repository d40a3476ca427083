"""LlamaIndex's own index and vector store over codes beside dense vectors."""

import asyncio
import pickle
from typing import Any

import numpy as np
import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import QueryBundle, TextNode
from llama_index.core.storage import StorageContext
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from llama_index.vector_stores.qdrant import QdrantVectorStore
from pydantic import PrivateAttr
from qdrant_client import AsyncQdrantClient, QdrantClient

from csr_qdrant.embedders import load_embedder
from csr_qdrant.encoder import Encoder
from csr_qdrant.integrations.llama_index import CsrEmbeddings, csr_embeddings

TEXTS = ["the sea is deep", "bread is baked from flour", "ships cross the ocean", "a king rules"]
QUERY = "a ship on the sea"
DIMENSION = 64


class Counting(BaseEmbedding):
    """A user's embedding model that counts how often it runs."""

    _model: Any = PrivateAttr()
    _documents: list[list[str]] = PrivateAttr(default_factory=list)
    _queries: list[str] = PrivateAttr(default_factory=list)

    def __init__(self, **fields: Any) -> None:
        super().__init__(model_name="counting", **fields)
        self._model = load_embedder(f"wordllama:{DIMENSION}")

    def _get_query_embedding(self, query: str) -> list[float]:
        self._queries.append(query)
        row: list[float] = self._model.embed_queries([query])[0].tolist()
        return row

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        self._documents.append(texts)
        rows: list[list[float]] = self._model.embed_documents(texts).tolist()
        return rows


@pytest.fixture
def encoder() -> Encoder:
    rng = np.random.default_rng(0)
    return Encoder(
        weight=rng.normal(size=(512, DIMENSION)).astype(np.float32),
        latent_bias=np.zeros(512, np.float32),
        pre_bias=np.zeros(DIMENSION, np.float32),
        k=32,
    )


def index_of(made: CsrEmbeddings, **client: Any) -> VectorStoreIndex:
    store = QdrantVectorStore(
        "docs",
        enable_hybrid=True,
        sparse_vector_name="csr",
        sparse_doc_fn=made.sparse_doc_fn,
        sparse_query_fn=made.sparse_query_fn,
        **client,
    )
    return VectorStoreIndex(
        [TextNode(text=text) for text in TEXTS],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=made.embed_model,
        use_async="aclient" in client,
    )


def test_hybrid_search_runs_the_model_once(encoder: Encoder) -> None:
    backbone = Counting(embed_batch_size=3)
    index = index_of(csr_embeddings(encoder, backbone), client=QdrantClient(":memory:"))
    assert backbone._documents == [TEXTS[:3], TEXTS[3:]]  # the user's batches, each once
    retriever = index.as_retriever(vector_store_query_mode="hybrid", similarity_top_k=2)
    found = retriever.retrieve(QUERY)
    assert backbone._queries == [QUERY]
    assert {hit.text for hit in found} == {TEXTS[0], TEXTS[2]}


def test_asynchronous_hybrid_search_runs_the_model_once(encoder: Encoder) -> None:
    backbone = Counting()
    made = csr_embeddings(encoder, backbone)

    async def ask() -> set[str]:
        store = QdrantVectorStore(
            "docs",
            aclient=AsyncQdrantClient(":memory:"),
            enable_hybrid=True,
            sparse_vector_name="csr",
            sparse_doc_fn=made.sparse_doc_fn,
            sparse_query_fn=made.sparse_query_fn,
        )
        vectors = await made.embed_model.aget_text_embedding_batch(TEXTS)
        pairs = zip(TEXTS, vectors, strict=True)
        await store.async_add([TextNode(text=text, embedding=row) for text, row in pairs])
        index = VectorStoreIndex.from_vector_store(store, embed_model=made.embed_model)
        retriever = index.as_retriever(vector_store_query_mode="hybrid", similarity_top_k=2)
        return {hit.text for hit in await retriever.aretrieve(QueryBundle(QUERY))}

    assert asyncio.run(ask()) == {TEXTS[0], TEXTS[2]}
    assert backbone._queries == [QUERY]
    assert [text for batch in backbone._documents for text in batch] == TEXTS  # each once


def test_sparse_search_ranks_by_the_cosine_of_codes(encoder: Encoder) -> None:
    made = csr_embeddings(encoder, f"wordllama:{DIMENSION}", k=16, query_k=8)
    store = index_of(made, client=QdrantClient(":memory:")).vector_store
    answer = store.query(
        VectorStoreQuery(query_str=QUERY, mode=VectorStoreQueryMode.SPARSE, similarity_top_k=4)
    )
    model = load_embedder(f"wordllama:{DIMENSION}")
    documents = encoder.encode(model.embed_documents(TEXTS), 16).normalised().to_dense()
    query = encoder.encode(model.embed_queries([QUERY]), 8).normalised().to_dense()[0]
    expected = {text: score for text, score in zip(TEXTS, documents @ query, strict=True) if score}
    assert answer.nodes is not None and answer.similarities is not None
    found = {n.get_content(): s for n, s in zip(answer.nodes, answer.similarities, strict=True)}
    assert found == pytest.approx(expected, abs=1e-6)


def test_the_shared_model_reports_the_one_behind_it(encoder: Encoder) -> None:
    made = csr_embeddings(encoder, Counting(embed_batch_size=7)).embed_model
    assert (made.model_name, made.embed_batch_size) == ("counting", 7)
    assert made.class_name() == "CsrSharedEmbedding"
    own = csr_embeddings(encoder, f"wordllama:{DIMENSION}").embed_model
    assert own.model_name == f"wordllama:{DIMENSION}"
    assert own.get_text_embedding("a king") == asyncio.run(own.aget_text_embedding("a king"))
    assert len(own.get_query_embedding("a king")) == DIMENSION


def test_texts_without_codes_stay(encoder: Encoder) -> None:
    made = csr_embeddings(encoder, MockEmbedding(embed_dim=DIMENSION))
    assert made.sparse_doc_fn([]) == ([], [])
    own = csr_embeddings(encoder, f"wordllama:{DIMENSION}")
    indices, values = own.sparse_doc_fn(["", "a king"])
    assert indices[0] == values[0] == []
    assert len(indices[1]) == len(values[1]) == 32


def test_a_pipeline_of_ingestion_embeds_once(encoder: Encoder) -> None:
    backbone = Counting()
    made = csr_embeddings(encoder, backbone)
    store = QdrantVectorStore(
        "docs",
        client=QdrantClient(":memory:"),
        enable_hybrid=True,
        sparse_doc_fn=made.sparse_doc_fn,
        sparse_query_fn=made.sparse_query_fn,
    )
    pipeline = IngestionPipeline(transformations=[made.embed_model], vector_store=store)
    nodes = [TextNode(text=text) for text in TEXTS]
    pipeline.run(nodes=nodes)
    pipeline.run(nodes=nodes)  # again: nothing is embedded
    assert backbone._documents == [TEXTS]


def test_all_parts_can_be_pickled(encoder: Encoder) -> None:
    made = csr_embeddings(encoder, Counting())
    again: CsrEmbeddings = pickle.loads(pickle.dumps(made))
    assert again.sparse_doc_fn(TEXTS) == made.sparse_doc_fn(TEXTS)
    assert again.embed_model.get_query_embedding(QUERY) == (
        made.embed_model.get_query_embedding(QUERY)
    )
    made.sparse_query_fn([QUERY])
    assert again.sparse_query_fn([QUERY]) == made.sparse_query_fn([QUERY])
