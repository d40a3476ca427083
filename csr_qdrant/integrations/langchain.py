"""LangChain: codes as `SparseEmbeddings` of `QdrantVectorStore`, alone or beside dense vectors."""

import asyncio
from pathlib import Path
from typing import Any, NamedTuple

from csr_qdrant.codes import SparseCodes
from csr_qdrant.encoder import F32, Encoder
from csr_qdrant.errors import MissingExtraError
from csr_qdrant.integrations.memo import CAPACITY, Backbone, MemoEmbedder
from csr_qdrant.integrations.texts import TextCoder, text_coder

try:
    from langchain_core.embeddings import Embeddings
    from langchain_qdrant.sparse_embeddings import SparseEmbeddings, SparseVector
except ImportError as error:
    raise MissingExtraError("langchain-qdrant", "langchain") from error


class CsrSparseEmbeddings(SparseEmbeddings):
    """Codes of texts, for `QdrantVectorStore(sparse_embedding=…)`."""

    def __init__(
        self,
        encoder: Encoder | str | Path,
        embedder: Any = None,
        *,
        k: int | None = None,
        query_k: int | None = None,
        normalise: bool = False,
    ) -> None:
        """Encode by `encoder`, or the one in that folder, what `embedder` embeds.

        Args:
            encoder: an encoder or its folder.
            embedder: LangChain `Embeddings`, or an embedder of this package or its URI. None: the
                embedder that the encoder remembers.
            k: active latents of documents at most; None: the encoder's.
            query_k: those of queries; None: as documents.
            normalise: True encodes vectors at norm 1, which is how a collection that compares by
                cosine keeps them, and what `csr attach` encodes there.

        Raises:
            ConfigError: no embedder, one of no known kind, or k out of range.
            CsrError: the encoder or the embedder cannot be loaded.
        """
        self._coder = text_coder(
            encoder, embedder, k=k, query_k=query_k, normalise=normalise, wrap=_wrapped
        )

    @classmethod
    def of(cls, coder: TextCoder) -> "CsrSparseEmbeddings":
        """Return sparse embeddings over a coder whose dense vectors others share."""
        made = cls.__new__(cls)
        made._coder = coder
        return made

    def embed_documents(self, texts: list[str]) -> list[SparseVector]:
        """Return one code a text; raises CsrError if the vectors do not fit the encoder."""
        return _vectors(self._coder.documents(texts))

    def embed_query(self, text: str) -> SparseVector:
        """Return the code of a query; raises CsrError if the vector does not fit the encoder."""
        return _vectors(self._coder.queries([text]))[0]

    async def aembed_documents(self, texts: list[str]) -> list[SparseVector]:
        """Do as `embed_documents`, by the backbone's own asynchronous method."""
        return _vectors(await self._coder.adocuments(texts))

    async def aembed_query(self, text: str) -> SparseVector:
        """Do as `embed_query`, by the backbone's own asynchronous method."""
        return _vectors(await self._coder.aqueries([text]))[0]


class SharedEmbeddings(Embeddings):
    """The dense half of a pair: what it embeds, the sparse half need not embed again."""

    def __init__(self, dense: MemoEmbedder) -> None:
        """Embed by `dense`."""
        self._dense = dense

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one dense vector a text."""
        return _lists(self._dense.embed_documents(texts))

    def embed_query(self, text: str) -> list[float]:
        """Return the dense vector of a query."""
        return _lists(self._dense.embed_queries([text]))[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Do as `embed_documents`, by the backbone's own asynchronous method."""
        return _lists(await self._dense.aembed_documents(texts))

    async def aembed_query(self, text: str) -> list[float]:
        """Do as `embed_query`, by the backbone's own asynchronous method."""
        return _lists(await self._dense.aembed_queries([text]))[0]


class HybridEmbeddings(NamedTuple):
    """A pair for hybrid search."""

    dense: SharedEmbeddings  # QdrantVectorStore's `embedding`
    sparse: CsrSparseEmbeddings  # and its `sparse_embedding`


def hybrid_embeddings(
    encoder: Encoder | str | Path,
    embedder: Any = None,
    *,
    k: int | None = None,
    query_k: int | None = None,
    normalise: bool = False,
    capacity: int = CAPACITY,
) -> HybridEmbeddings:
    """Return dense and sparse embeddings that run `embedder` once between them.

    The last `capacity` dense vectors are kept for that, or those of the last call if they are
    more; dense vectors are as `embedder` makes them, whatever `normalise`. Other parameters and
    errors as those of `CsrSparseEmbeddings`.
    """
    coder = text_coder(
        encoder,
        embedder,
        k=k,
        query_k=query_k,
        normalise=normalise,
        capacity=capacity,
        wrap=_wrapped,
    )
    return HybridEmbeddings(SharedEmbeddings(coder.dense), CsrSparseEmbeddings.of(coder))


class _LangChainBackbone:
    """LangChain's `Embeddings` as a backbone; it takes queries one by one."""

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._embeddings.embed_documents(texts)

    def embed_queries(self, texts: list[str]) -> list[list[float]]:
        return [self._embeddings.embed_query(text) for text in texts]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return await self._embeddings.aembed_documents(texts)

    async def aembed_queries(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.gather(*(self._embeddings.aembed_query(text) for text in texts))


def _wrapped(embedder: Any) -> Backbone | None:
    return _LangChainBackbone(embedder) if isinstance(embedder, Embeddings) else None


def _vectors(codes: SparseCodes) -> list[SparseVector]:
    return [SparseVector(indices=indices, values=values) for indices, values in codes.to_lists()]


def _lists(dense: F32) -> list[list[float]]:
    rows: list[list[float]] = dense.tolist()
    return rows
