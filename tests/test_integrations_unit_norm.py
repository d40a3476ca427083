"""Adapters over a collection by cosine with attached codes: each encodes at norm 1, if told."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
os.environ.setdefault("LANGSMITH_TRACING", "false")
from haystack import Document, Pipeline
from haystack_integrations.components.retrievers.qdrant import (
    QdrantHybridRetriever,
    QdrantSparseEmbeddingRetriever,
)
from haystack_integrations.document_stores.qdrant import QdrantDocumentStore
from langchain_qdrant import QdrantVectorStore, RetrievalMode
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from llama_index.vector_stores.qdrant import QdrantVectorStore as LlamaIndexStore

from csr_qdrant.embedders import CallableEmbedder
from csr_qdrant.errors import CsrError
from csr_qdrant.integrations.haystack import (
    CsrDocumentEmbedder,
    CsrDocumentEncoder,
    CsrQueryEncoder,
    CsrTextEmbedder,
)
from csr_qdrant.integrations.langchain import CsrSparseEmbeddings, hybrid_embeddings
from csr_qdrant.integrations.llama_index import csr_embeddings
from csr_qdrant.integrations.ray import CsrEncode, CsrWrite, codes_of_columns
from csr_qdrant.integrations.texts import DenseCoder

sys.path.insert(0, str(Path(__file__).parent))
from attached_texts import (
    ENCODER,
    ROWS,
    TEXTS,
    D,
    N,
    attached,
    check_codes,
    embed,
    raw_codes_differ,
    stored_codes,
)

EMBEDDER = CallableEmbedder(embed, D, "nine times too long")


def share(found: list[str]) -> float:
    """Return the share of texts that found themselves first."""
    return float(np.mean([a == b for a, b in zip(found, TEXTS, strict=True)]))


# --- LangChain ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [RetrievalMode.SPARSE, RetrievalMode.HYBRID])
def test_langchain(mode: RetrievalMode) -> None:
    client = attached([{"page_content": text} for text in TEXTS])

    def found(normalise: bool) -> list[str]:
        dense, sparse = hybrid_embeddings(ENCODER, EMBEDDER, normalise=normalise)
        assert dense.embed_query(TEXTS[0]) == ROWS[0].tolist()  # dense vectors stay
        store = QdrantVectorStore(
            client,
            "docs",
            embedding=dense,
            sparse_embedding=sparse,
            retrieval_mode=mode,
            sparse_vector_name="csr",
        )
        best = [store.similarity_search(text, k=1) for text in TEXTS]
        return [documents[0].page_content if documents else "" for documents in best]

    assert share(found(normalise=True)) == 1
    if mode == RetrievalMode.SPARSE:
        assert share(found(normalise=False)) < 0.9


def test_langchain_gives_the_codes_that_were_attached() -> None:
    client = attached([{}] * N)
    assert raw_codes_differ(client)
    sparse = CsrSparseEmbeddings(ENCODER, EMBEDDER, normalise=True)
    check_codes(client, [(v.indices, v.values) for v in sparse.embed_documents(TEXTS)])
    check_codes(client, [(v.indices, v.values) for v in map(sparse.embed_query, TEXTS)])
    assert sparse.embed_query("").indices == []


# --- LlamaIndex -----------------------------------------------------------------------------------


def test_llama_index() -> None:
    client = attached([{"text": text} for text in TEXTS], dense="text-dense")

    def found(normalise: bool, mode: VectorStoreQueryMode) -> list[str]:
        made = csr_embeddings(ENCODER, EMBEDDER, normalise=normalise)
        store = LlamaIndexStore(
            "docs",
            client=client,
            enable_hybrid=True,
            sparse_vector_name="csr",
            sparse_doc_fn=made.sparse_doc_fn,
            sparse_query_fn=made.sparse_query_fn,
            text_key="text",
        )
        best = []
        for text in TEXTS:
            dense = made.embed_model.get_query_embedding(text)
            assert dense == pytest.approx(embed([text])[0].tolist())  # dense vectors stay
            query = VectorStoreQuery(
                query_str=text, query_embedding=dense, mode=mode, similarity_top_k=1
            )
            nodes = store.query(query).nodes
            best.append(nodes[0].get_content() if nodes else "")
        return best

    assert share(found(True, VectorStoreQueryMode.SPARSE)) == 1
    assert share(found(True, VectorStoreQueryMode.HYBRID)) == 1
    assert share(found(False, VectorStoreQueryMode.SPARSE)) < 0.9
    made = csr_embeddings(ENCODER, EMBEDDER, normalise=True)
    for function in (made.sparse_doc_fn, made.sparse_query_fn):
        check_codes(client, list(zip(*function(TEXTS), strict=True)))


# --- Haystack -------------------------------------------------------------------------------------


def haystack_store() -> Any:
    payloads = [{"id": f"{i}", "content": text, "meta": {}} for i, text in enumerate(TEXTS)]
    client = attached(payloads, "text-dense", "text-sparse")
    store: Any = QdrantDocumentStore(
        ":memory:", index="docs", embedding_dim=D, use_sparse_embeddings=True
    )
    store._client = client
    return store


def haystack_best(retriever: Any, **query: Any) -> str:
    found = retriever.run(**query)["documents"]
    return str(found[0].content) if found else ""


def test_haystack_finds_every_document() -> None:
    store = haystack_store()
    sparse = QdrantSparseEmbeddingRetriever(document_store=store, top_k=1)
    hybrid = QdrantHybridRetriever(document_store=store, top_k=1)

    def found(coder: CsrTextEmbedder) -> list[str]:
        return [
            haystack_best(sparse, query_sparse_embedding=coder.run(text)["sparse_embedding"])
            for text in TEXTS
        ]

    assert share(found(CsrTextEmbedder(ENCODER, EMBEDDER, normalise=True))) == 1
    assert share(found(CsrTextEmbedder(ENCODER, EMBEDDER))) < 0.9
    coder = CsrQueryEncoder(ENCODER, normalise=True)
    both = [
        haystack_best(hybrid, query_embedding=row, query_sparse_embedding=code)
        for row in ROWS.tolist()
        for code in [coder.run(row)["sparse_embedding"]]
    ]
    assert share(both) == 1


def test_haystack_gives_the_codes_that_were_attached() -> None:
    client = haystack_store()._client
    documents = [Document(content=text) for text in TEXTS]
    pairs = zip(documents, ROWS.tolist(), strict=True)
    embedded = [Document(content=each.content, embedding=row) for each, row in pairs]
    by_text = CsrDocumentEmbedder(ENCODER, EMBEDDER, dense=True, normalise=True).run(documents)
    by_vector = CsrDocumentEncoder(ENCODER, normalise=True).run(embedded)
    for made in (by_text["documents"], by_vector["documents"]):
        codes: list[Any] = [each.sparse_embedding for each in made]
        check_codes(client, [(code.indices, code.values) for code in codes], "text-sparse")
        assert [each.embedding for each in made] == ROWS.tolist()  # dense vectors stay


@pytest.mark.parametrize(
    "make", [CsrDocumentEncoder, CsrQueryEncoder, CsrTextEmbedder, CsrDocumentEmbedder]
)
def test_haystack_saves_it(make: Any) -> None:
    kept = make("somewhere", normalise=True).to_dict()
    assert kept["init_parameters"]["normalise"] is True
    assert make.from_dict(kept).normalise is True
    del kept["init_parameters"]["normalise"]  # as pipelines saved by earlier releases
    assert make.from_dict(kept).normalise is False
    pipeline = Pipeline()
    pipeline.add_component("csr", make("somewhere", normalise=True))
    allowed = ["csr_qdrant.integrations.haystack"]
    again: Any = Pipeline.loads(pipeline.dumps(), allowed_modules=allowed).get_component("csr")
    assert again.normalise is True


# --- Ray ------------------------------------------------------------------------------------------


def columns(rows: Any) -> list[tuple[Any, Any]]:
    return list(zip(rows["code_indices"], rows["code_values"], strict=True))


def test_ray_encodes_what_was_attached() -> None:
    client = attached([{}] * N)
    made = CsrEncode(ENCODER, normalise=True)({"vector": ROWS})
    check_codes(client, columns(made))
    assert np.array_equal(made["vector"], ROWS)  # dense vectors stay
    zeros = CsrEncode(ENCODER, normalise=True)({"vector": np.zeros((1, D), np.float32)})
    codes = codes_of_columns(zeros, "code", ENCODER.h)
    assert codes is not None and codes.lengths.tolist() == [0]


@pytest.mark.parametrize("encoded", [False, True])
def test_ray_writes_what_was_attached(encoded: bool) -> None:
    client = attached([{}] * N)
    before = client.retrieve("docs", list(range(N)), with_vectors=[""])
    expected = stored_codes(client)
    client.delete_vectors("docs", ["csr"], list(range(N)))
    write = CsrWrite("docs", ENCODER, connect=lambda: client)  # the record says how
    batch: dict[str, Any] = {"id": np.arange(N), "vector": ROWS}
    write(CsrEncode(ENCODER, normalise=True, drop_vector=True)(batch) if encoded else batch)
    check_codes(client, [expected[i] for i in range(N)])
    assert client.retrieve("docs", list(range(N)), with_vectors=[""]) == before
    counts = write({"id": np.array([3]), "vector": np.zeros((1, D), np.float32)})
    assert counts["without_code"].tolist() == [1]


# --- all ------------------------------------------------------------------------------------------


def test_what_cannot_be_encoded_is_refused_at_norm_1_too() -> None:
    coder = DenseCoder(ENCODER, normalise=True)
    for bad in (np.nan, np.inf):
        rows = ROWS[:3].copy()
        rows[1, 2] = bad
        with pytest.raises(CsrError, match="row 1 of the queries' vectors holds NaN"):
            coder.query_codes(rows)
    with pytest.raises(CsrError, match="takes vectors of shape"):
        coder.query_codes(ROWS[0])
