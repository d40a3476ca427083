"""LangChain's own vector store over codes, alone and beside dense vectors."""

import asyncio
import os
import subprocess
import sys

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

os.environ.setdefault("LANGSMITH_TRACING", "false")
from langchain_core.embeddings import Embeddings
from langchain_qdrant import QdrantVectorStore, RetrievalMode, SparseEmbeddings

from csr_qdrant.embedders import load_embedder
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import CsrError
from csr_qdrant.integrations.langchain import (
    CsrSparseEmbeddings,
    HybridEmbeddings,
    hybrid_embeddings,
)

TEXTS = ["the sea is deep", "bread is baked from flour", "ships cross the ocean", "a king rules"]
QUERY = "a ship on the sea"
DIMENSION = 64


class Counting(Embeddings):
    """A user's embeddings that count how often the model runs."""

    def __init__(self) -> None:
        self.model = load_embedder(f"wordllama:{DIMENSION}")
        self.documents: list[list[str]] = []
        self.queries: list[str] = []
        self.awaited = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.documents.append(texts)
        rows: list[list[float]] = self.model.embed_documents(texts).tolist()
        return rows

    def embed_query(self, text: str) -> list[float]:
        self.queries.append(text)
        row: list[float] = self.model.embed_queries([text])[0].tolist()
        return row

    async def aembed_query(self, text: str) -> list[float]:
        self.awaited += 1
        return self.embed_query(text)


@pytest.fixture
def encoder() -> Encoder:
    rng = np.random.default_rng(0)
    return Encoder(
        weight=rng.normal(size=(512, DIMENSION)).astype(np.float32),
        latent_bias=np.zeros(512, np.float32),
        pre_bias=np.zeros(DIMENSION, np.float32),
        k=32,
    )


def vector_store(
    mode: RetrievalMode, dense: Embeddings | None, sparse: SparseEmbeddings | None
) -> QdrantVectorStore:
    client = QdrantClient(":memory:")
    client.create_collection(
        "docs",
        vectors_config={
            "dense": models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE)
        },
        sparse_vectors_config={"csr": models.SparseVectorParams()},
    )
    return QdrantVectorStore(
        client,
        "docs",
        embedding=dense,
        sparse_embedding=sparse,
        retrieval_mode=mode,
        vector_name="dense",
        sparse_vector_name="csr",
        validate_collection_config=False,
    )


def hybrid_store(pair: HybridEmbeddings) -> QdrantVectorStore:
    return vector_store(RetrievalMode.HYBRID, pair.dense, pair.sparse)


def test_hybrid_search_runs_the_model_once(encoder: Encoder) -> None:
    backbone = Counting()
    store = hybrid_store(hybrid_embeddings(encoder, backbone))
    store.add_texts(TEXTS)
    assert backbone.documents == [TEXTS]
    found = store.similarity_search(QUERY, k=2)
    assert backbone.queries == [QUERY]
    assert {each.page_content for each in found} == {TEXTS[0], TEXTS[2]}
    store.similarity_search("bread", k=1)
    assert backbone.queries == [QUERY, "bread"] and backbone.documents == [TEXTS]


def test_without_sharing_it_runs_twice(encoder: Encoder) -> None:
    backbone = Counting()
    store = vector_store(RetrievalMode.HYBRID, backbone, CsrSparseEmbeddings(encoder, backbone))
    store.similarity_search(QUERY, k=2)
    assert backbone.queries == [QUERY, QUERY]


def test_asynchronous_hybrid_search_runs_the_model_once(encoder: Encoder) -> None:
    backbone = Counting()
    store = hybrid_store(hybrid_embeddings(encoder, backbone))

    async def ask() -> list[str]:
        await store.aadd_texts(TEXTS)
        return [each.page_content for each in await store.asimilarity_search(QUERY, k=2)]

    assert set(asyncio.run(ask())) == {TEXTS[0], TEXTS[2]}
    assert backbone.queries == [QUERY] and backbone.documents == [TEXTS]


def test_asynchronous_embeddings_use_the_users_method(encoder: Encoder) -> None:
    backbone = Counting()
    pair = hybrid_embeddings(encoder, backbone)

    async def both() -> tuple[list[float], list[int]]:
        dense = await pair.dense.aembed_query(QUERY)
        return dense, (await pair.sparse.aembed_query(QUERY)).indices

    dense, indices = asyncio.run(both())
    assert backbone.awaited == 1 and backbone.queries == [QUERY]
    assert dense == pytest.approx(backbone.model.embed_queries([QUERY])[0].tolist())
    assert indices == pair.sparse.embed_query(QUERY).indices
    documents = asyncio.run(pair.sparse.aembed_documents(TEXTS))
    assert documents == pair.sparse.embed_documents(TEXTS)
    assert asyncio.run(pair.dense.aembed_documents(TEXTS)) == pair.dense.embed_documents(TEXTS)
    assert backbone.documents == [TEXTS]


def test_sparse_search_ranks_by_the_cosine_of_codes(encoder: Encoder) -> None:
    uri = f"wordllama:{DIMENSION}"
    store = vector_store(
        RetrievalMode.SPARSE, None, CsrSparseEmbeddings(encoder, uri, k=16, query_k=8)
    )
    store.add_texts(TEXTS)
    found = store.similarity_search_with_score(QUERY, k=4)
    model = load_embedder(uri)
    documents = encoder.encode(model.embed_documents(TEXTS), 16).normalised().to_dense()
    query = encoder.encode(model.embed_queries([QUERY]), 8).normalised().to_dense()[0]
    expected = {text: score for text, score in zip(TEXTS, documents @ query, strict=True) if score}
    assert {each.page_content: score for each, score in found} == pytest.approx(expected, abs=1e-6)


def test_a_text_without_a_direction_has_an_empty_code(encoder: Encoder) -> None:
    pair = hybrid_embeddings(encoder, f"wordllama:{DIMENSION}")
    assert pair.sparse.embed_query("").indices == []
    store = hybrid_store(pair)
    store.add_texts([*TEXTS, ""])
    assert store.client.count("docs").count == 5
    assert len(store.similarity_search("", k=5)) == 5  # by its dense vector alone


def test_another_model_is_refused(encoder: Encoder) -> None:
    class Short(Counting):
        def embed_query(self, text: str) -> list[float]:
            return [1.0, 2.0]

    with pytest.raises(CsrError, match=r"takes vectors of shape \(n, 64\), got \(1, 2\)"):
        CsrSparseEmbeddings(encoder, Short()).embed_query(QUERY)


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("langchain", "langchain_qdrant", "langchain"),
        ("llama_index", "llama_index", "llama-index"),
        ("haystack", "haystack", "haystack"),
        ("fastembed", "fastembed", "fastembed"),
    ],
)
def test_a_missing_library_is_named(module: str, missing: str, extra: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from csr_qdrant.errors import MissingExtraError\n"
        f"try:\n    import csr_qdrant.integrations.{module}\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"run `pip install 'csr-qdrant[{extra}]'`" in ran.stdout, ran.stderr


def test_the_room_itself_imports_no_library() -> None:
    code = "import csr_qdrant.integrations, csr_qdrant.integrations.texts, sys; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in ran.stdout.split()}
    libraries = {"langchain_core", "llama_index", "haystack", "fastembed", "qdrant_client", "torch"}
    assert not loaded & libraries
