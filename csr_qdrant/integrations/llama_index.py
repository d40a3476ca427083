"""LlamaIndex: codes as the sparse functions of `QdrantVectorStore`, beside its dense vectors."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from csr_qdrant.codes import SparseCodes
from csr_qdrant.encoder import F32, Encoder
from csr_qdrant.errors import MissingExtraError
from csr_qdrant.integrations.memo import CAPACITY, Backbone, MemoEmbedder
from csr_qdrant.integrations.texts import text_coder

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import PrivateAttr
except ImportError as error:
    raise MissingExtraError("llama-index-vector-stores-qdrant", "llama-index") from error

# Texts to the indices and the values of one sparse vector each.
SparseFunction = Callable[[list[str]], tuple[list[list[int]], list[list[float]]]]


class SharedEmbedding(BaseEmbedding):
    """The dense part: what it embeds, the sparse functions need not embed again."""

    _dense: MemoEmbedder = PrivateAttr()

    def __init__(self, dense: MemoEmbedder, **fields: Any) -> None:
        """Embed by `dense`; `fields` are those of `BaseEmbedding`."""
        super().__init__(**fields)
        self._dense = dense

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex reports."""
        return "CsrSharedEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return _lists(self._dense.embed_queries([query]))[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return _lists(self._dense.embed_documents([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return _lists(self._dense.embed_documents(texts))

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return _lists(await self._dense.aembed_queries([query]))[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return _lists(await self._dense.aembed_documents([text]))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return _lists(await self._dense.aembed_documents(texts))


class CsrEmbeddings(NamedTuple):
    """What an index and its vector store need to search by dense vectors and by codes."""

    embed_model: SharedEmbedding  # of the index
    sparse_doc_fn: SparseFunction  # of the vector store
    sparse_query_fn: SparseFunction  # of the vector store


def csr_embeddings(
    encoder: Encoder | str | Path,
    embed_model: Any = None,
    *,
    k: int | None = None,
    query_k: int | None = None,
    normalise: bool = False,
    capacity: int = CAPACITY,
) -> CsrEmbeddings:
    """Return an embedding model and sparse functions that run `embed_model` once between them.

    Args:
        encoder: an encoder or its folder.
        embed_model: a `BaseEmbedding`, or an embedder of this package or its URI. None: the
            embedder that the encoder remembers.
        k: active latents of documents at most; None: the encoder's.
        query_k: those of queries; None: as documents.
        normalise: True encodes vectors at norm 1, which is how a collection that compares by cosine
            keeps them, and what `csr attach` encodes there; dense vectors stay as they are.
        capacity: how many dense vectors are kept for the sparse functions; those of the last call
            stay, even if they are more.

    Raises:
        ConfigError: no embedder, one of no known kind, or k or capacity out of range.
        CsrError: the encoder or the embedder cannot be loaded.
    """
    coder = text_coder(
        encoder,
        embed_model,
        k=k,
        query_k=query_k,
        normalise=normalise,
        capacity=capacity,
        wrap=_wrapped,
    )
    return CsrEmbeddings(
        SharedEmbedding(coder.dense, **_fields(embed_model, coder.coder.encoder)),
        partial(_coded, coder.documents),  # no lambdas, since those cannot be pickled
        partial(_coded, coder.queries),
    )


class _LlamaIndexBackbone:
    """LlamaIndex's `BaseEmbedding` as a backbone; it takes queries one by one."""

    def __init__(self, model: BaseEmbedding) -> None:
        self._model = model

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._model.get_text_embedding_batch(texts)

    def embed_queries(self, texts: list[str]) -> list[list[float]]:
        return [self._model.get_query_embedding(text) for text in texts]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return await self._model.aget_text_embedding_batch(texts)

    async def aembed_queries(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.gather(*(self._model.aget_query_embedding(text) for text in texts))


def _wrapped(embed_model: Any) -> Backbone | None:
    return _LlamaIndexBackbone(embed_model) if isinstance(embed_model, BaseEmbedding) else None


def _fields(embed_model: Any, encoder: Encoder) -> dict[str, Any]:
    """Return what the shared model reports and how it batches: as the model behind it."""
    if not isinstance(embed_model, BaseEmbedding):
        # LlamaIndex's caches of ingestion tell models by their names.
        return {"model_name": getattr(embed_model, "uri", embed_model) or encoder.embedder}
    return {
        "model_name": embed_model.model_name,
        "embed_batch_size": embed_model.embed_batch_size,
        "num_workers": embed_model.num_workers,
    }


def _coded(
    codes_of: Callable[[list[str]], SparseCodes], texts: list[str]
) -> tuple[list[list[int]], list[list[float]]]:
    rows = list(codes_of(texts).to_lists())
    return [indices for indices, _ in rows], [values for _, values in rows]


def _lists(dense: F32) -> list[list[float]]:
    rows: list[list[float]] = dense.tolist()
    return rows
