"""Texts to codes: what every adapter does between its library's text and its sparse vector."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from csr_qdrant.codes import SparseCodes
from csr_qdrant.embedders import load_embedder
from csr_qdrant.embedders.base import Embedder
from csr_qdrant.encoder import F32, Encoder, check_k, unit_rows
from csr_qdrant.errors import ConfigError
from csr_qdrant.integrations.memo import CAPACITY, Backbone, FunctionBackbone, MemoEmbedder
from csr_qdrant.points import directed_codes

# Makes a backbone of a library's own embedder; None: it is none of that library.
Wrap = Callable[[Any], Backbone | None]


class DenseCoder:
    """Dense vectors to normalised codes, for documents and for queries."""

    def __init__(
        self,
        encoder: Encoder | str | Path,
        k: int | None = None,
        query_k: int | None = None,
        *,
        normalise: bool = False,
    ) -> None:
        """Take an `encoder` or its folder.

        `k` are the active latents of documents at most (None: the encoder's), `query_k` those of
        queries (None: as documents). `normalise` encodes vectors at norm 1, as a collection by
        cosine keeps them. Raises ConfigError for k outside 1..h, CsrError for a folder that holds
        no encoder.
        """
        self.encoder = encoder if isinstance(encoder, Encoder) else Encoder.load(encoder)
        self.k = check_k(self.encoder.k if k is None else k, self.encoder.h)
        self.query_k = check_k(self.k if query_k is None else query_k, self.encoder.h)
        self.normalise = normalise

    def document_codes(self, dense: F32) -> SparseCodes:
        """Return codes of (n, d) vectors at L2 norm 1; none for a vector of zeros."""
        return self._codes(dense, self.k, "the documents' vectors")

    def query_codes(self, dense: F32) -> SparseCodes:
        """Return codes of (n, d) vectors at L2 norm 1; none for a vector of zeros."""
        return self._codes(dense, self.query_k, "the queries' vectors")

    def _codes(self, dense: F32, k: int, name: str) -> SparseCodes:
        rows = dense if len(dense) else np.zeros((0, self.encoder.d), np.float32)
        raw = self.encoder.encode(
            unit_rows(rows) if self.normalise and rows.ndim == 2 else rows, k, name=name
        )
        return directed_codes(raw, np.asarray(rows.any(axis=1))).normalised()


class TextCoder:
    """Texts to normalised codes, by an embedder whose vectors are shared with who asks for them."""

    def __init__(self, dense: MemoEmbedder, coder: DenseCoder) -> None:
        """Embed by `dense`, encode by `coder`."""
        self.dense = dense
        self.coder = coder

    def documents(self, texts: Sequence[str]) -> SparseCodes:
        """Return the codes of texts to be stored."""
        return self.coder.document_codes(self.dense.embed_documents(texts))

    def queries(self, texts: Sequence[str]) -> SparseCodes:
        """Return the codes of texts to be searched for."""
        return self.coder.query_codes(self.dense.embed_queries(texts))

    async def adocuments(self, texts: Sequence[str]) -> SparseCodes:
        """Do as `documents`, without blocking the loop."""
        dense = await self.dense.aembed_documents(texts)
        return await asyncio.to_thread(self.coder.document_codes, dense)

    async def aqueries(self, texts: Sequence[str]) -> SparseCodes:
        """Do as `queries`, without blocking the loop but to encode, about a millisecond."""
        return self.coder.query_codes(await self.dense.aembed_queries(texts))


def text_coder(
    encoder: Encoder | str | Path,
    embedder: Any = None,
    *,
    k: int | None = None,
    query_k: int | None = None,
    normalise: bool = False,
    capacity: int = CAPACITY,
    wrap: Wrap = lambda _: None,
) -> TextCoder:
    """Return what codes texts by `encoder` and `embedder`.

    Args:
        encoder: an encoder or its folder.
        embedder: an embedder of this package or its URI, or one of the library's own that `wrap`
            knows. None: the embedder that the encoder remembers.
        k: active latents of documents at most; None: the encoder's.
        query_k: those of queries; None: as documents.
        normalise: True encodes vectors at norm 1, which is how a collection that compares by cosine
            keeps them, and what `csr attach` encodes there; dense vectors stay as they are.
        capacity: how many vectors are remembered.
        wrap: makes a backbone of a library's own embedder.

    Raises:
        ConfigError: no embedder, one of no known kind, or k or capacity out of range.
        CsrError: the encoder or the embedder cannot be loaded, or they do not fit each other.
    """
    coder = DenseCoder(encoder, k, query_k, normalise=normalise)
    backbone = wrap(embedder)
    if backbone is None:
        own = _own(embedder, coder.encoder)
        backbone = FunctionBackbone(own.embed_documents, own.embed_queries)
    return TextCoder(MemoEmbedder(backbone, capacity), coder)


def _own(embedder: Any, encoder: Encoder) -> Embedder:
    """Return an embedder of this package whose vectors `encoder` takes."""
    given = encoder.embedder if embedder is None else embedder
    if given is None:
        raise ConfigError(
            "texts need an embedder and this encoder remembers none: pass the one that made the "
            "vectors which it was trained on"
        )
    loaded: Embedder = load_embedder(given) if isinstance(given, str) else given
    if not hasattr(loaded, "embed_queries") or not hasattr(loaded, "dimension"):
        raise ConfigError(
            f"embedder must be a URI, an embedder of csr_qdrant.embedders or one of the library's "
            f"own, got {type(loaded).__name__}: wrap a function with CallableEmbedder"
        )
    if loaded.dimension != encoder.d:
        raise ConfigError(
            f"this encoder takes vectors of {encoder.d} dimensions, got an embedder of "
            f"{loaded.dimension}: pass the one that it was trained on"
        )
    return loaded
