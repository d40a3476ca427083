"""Haystack: components that add codes as sparse embeddings, to texts or to dense embeddings.

Behind an embedder of Haystack's own, take `CsrDocumentEncoder` and `CsrQueryEncoder`: they encode
the dense embeddings that are there. With an embedder of this package, `CsrDocumentEmbedder` and
`CsrTextEmbedder` give both embeddings. Either way the model runs once.

All are made of a folder and a name, so that a pipeline can be saved; they load both at `warm_up`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from csr_qdrant.codes import SparseCodes
from csr_qdrant.embedders.base import Embedder
from csr_qdrant.encoder import F32, Encoder
from csr_qdrant.errors import ConfigError, CsrError, MissingExtraError
from csr_qdrant.integrations.texts import DenseCoder, TextCoder, text_coder

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.dataclasses import SparseEmbedding
except ImportError as error:
    raise MissingExtraError("haystack", "haystack") from error


class _EncoderComponent:
    """What the two components that encode dense embeddings share."""

    def __init__(
        self, encoder: str | Path | Encoder, k: int | None = None, normalise: bool = False
    ) -> None:
        """Take an encoder.

        Args:
            encoder: the folder of an encoder, or an encoder; a pipeline can be saved only with the
                former.
            k: active latents; None: the encoder's.
            normalise: True encodes vectors at norm 1, which is how a collection that compares by
                cosine keeps them, and what `csr attach` encodes there.
        """
        self.encoder, self.k, self.normalise = encoder, k, normalise
        self._loaded: DenseCoder | None = None

    def warm_up(self) -> None:
        """Load the encoder; raises CsrError for a folder without one, ConfigError for a wrong k."""
        self._coder()

    def _coder(self) -> DenseCoder:
        if self._loaded is None:
            self._loaded = DenseCoder(self.encoder, self.k, normalise=self.normalise)
        return self._loaded

    def to_dict(self) -> dict[str, Any]:
        """Return what a saved pipeline keeps; raises CsrError for an encoder without a folder."""
        return default_to_dict(
            self, encoder=_folder(self.encoder), k=self.k, normalise=self.normalise
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Make the component from what `to_dict` gave."""
        return default_from_dict(cls, data)


@component
class CsrDocumentEncoder(_EncoderComponent):
    """Adds sparse embeddings to documents that have dense ones."""

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Return the documents with sparse embeddings; they themselves stay as they are.

        Raises CsrError for one without a dense embedding or with one that the encoder cannot take.
        """
        if not documents:
            return {"documents": []}
        dense = _matrix([_embedding(document) for document in documents])
        return {"documents": _with_codes(documents, self._coder().document_codes(dense))}


@component
class CsrQueryEncoder(_EncoderComponent):
    """Turns the dense embedding of a query into its sparse one."""

    @component.output_types(sparse_embedding=SparseEmbedding)
    def run(self, embedding: list[float]) -> dict[str, SparseEmbedding]:
        """Return the code of a dense embedding; raises CsrError if the encoder cannot take it."""
        return {"sparse_embedding": _sparse(self._coder().query_codes(_matrix([embedding])))[0]}


class _EmbedderComponent:
    """What the two components that embed texts share."""

    encoder: str | Path | Encoder
    embedder: str | Embedder | None
    k: int | None
    normalise: bool
    _loaded: TextCoder | None = None

    def warm_up(self) -> None:
        """Load encoder and embedder.

        Raises ConfigError for no embedder or a wrong k, CsrError if one cannot be loaded.
        """
        self._coder()

    def _coder(self) -> TextCoder:
        if self._loaded is None:
            self._loaded = text_coder(
                self.encoder, self.embedder, k=self.k, normalise=self.normalise, capacity=1
            )
        return self._loaded

    def _settings(self) -> dict[str, Any]:
        named = {"encoder": _folder(self.encoder), "embedder": _uri(self.embedder)}
        return {**named, "k": self.k, "normalise": self.normalise}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Make the component from what `to_dict` gave."""
        return default_from_dict(cls, data)


@component
class CsrDocumentEmbedder(_EmbedderComponent):
    """Adds sparse embeddings to documents, and dense ones if they are wanted, from their texts."""

    def __init__(
        self,
        encoder: str | Path | Encoder,
        embedder: str | Embedder | None = None,
        k: int | None = None,
        dense: bool = False,
        meta_fields_to_embed: Sequence[str] = (),
        embedding_separator: str = "\n",
        normalise: bool = False,
    ) -> None:
        """Take an encoder and what embeds texts.

        Args:
            encoder: the folder of an encoder, or an encoder.
            embedder: the URI of an embedder of this package, or such an embedder; a pipeline can
                be saved only with the former. None: the one that the encoder remembers.
            k: active latents; None: the encoder's.
            dense: set `embedding`, too, for hybrid search.
            meta_fields_to_embed: fields of a document's meta that stand before its content.
            embedding_separator: what stands between them.
            normalise: as for `CsrDocumentEncoder`; dense embeddings stay as they are.
        """
        self.encoder, self.embedder, self.k, self.dense = encoder, embedder, k, dense
        self.meta_fields_to_embed = list(meta_fields_to_embed)
        self.embedding_separator, self.normalise = embedding_separator, normalise

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Return the documents with embeddings; they themselves stay as they are."""
        coder = self._coder()
        dense = coder.dense.embed_documents([self._text(each) for each in documents])
        coded = _with_codes(documents, coder.coder.document_codes(dense))
        if self.dense:
            rows: list[list[float]] = dense.tolist()
            pairs = zip(coded, rows, strict=True)
            coded = [replace(document, embedding=row) for document, row in pairs]
        return {"documents": coded}

    def _text(self, document: Document) -> str:
        values = (document.meta.get(field) for field in self.meta_fields_to_embed)
        parts = [str(value) for value in values if value is not None]
        return self.embedding_separator.join([*parts, document.content or ""])

    def to_dict(self) -> dict[str, Any]:
        """Return what a saved pipeline keeps; raises CsrError for what has no name or folder."""
        return default_to_dict(
            self,
            **self._settings(),
            dense=self.dense,
            meta_fields_to_embed=self.meta_fields_to_embed,
            embedding_separator=self.embedding_separator,
        )


@component
class CsrTextEmbedder(_EmbedderComponent):
    """Turns a query into its sparse embedding and its dense one, for hybrid search."""

    def __init__(
        self,
        encoder: str | Path | Encoder,
        embedder: str | Embedder | None = None,
        k: int | None = None,
        normalise: bool = False,
    ) -> None:
        """Take an encoder and what embeds texts: see `CsrDocumentEmbedder`."""
        self.encoder, self.embedder, self.k, self.normalise = encoder, embedder, k, normalise

    @component.output_types(sparse_embedding=SparseEmbedding, embedding=list[float])
    def run(self, text: str) -> dict[str, Any]:
        """Return both embeddings of a query."""
        coder = self._coder()
        dense = coder.dense.embed_queries([text])
        codes = coder.coder.query_codes(dense)
        return {"sparse_embedding": _sparse(codes)[0], "embedding": dense[0].tolist()}

    def to_dict(self) -> dict[str, Any]:
        """Return what a saved pipeline keeps; raises CsrError for what has no name or folder."""
        return default_to_dict(self, **self._settings())


def _embedding(document: Document) -> list[float]:
    if document.embedding is None:
        raise CsrError(
            f"document {document.id} has no dense embedding: run an embedder before this component"
        )
    return document.embedding


def _matrix(rows: Iterable[Sequence[float]]) -> F32:
    """Return embeddings as (n, d); raises ConfigError for rows of unequal lengths or no numbers."""
    try:
        with np.errstate(over="ignore"):  # infinity is for the encoder to report
            return np.array(list(rows), np.float32)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"dense embeddings must be lists of equally many numbers: {error}"
        ) from None


def _sparse(codes: SparseCodes) -> list[SparseEmbedding]:
    return [SparseEmbedding(indices=i, values=v) for i, v in codes.to_lists()]


def _with_codes(documents: Sequence[Document], codes: SparseCodes) -> list[Document]:
    """Return copies with their codes; one without an active latent is stored without a code."""
    return [
        replace(document, sparse_embedding=sparse if sparse.indices else None)
        for document, sparse in zip(documents, _sparse(codes), strict=True)
    ]


def _folder(encoder: str | Path | Encoder) -> str:
    if isinstance(encoder, Encoder):
        raise CsrError("a saved pipeline needs the encoder's folder: save it and pass the path")
    return str(encoder)


def _uri(embedder: str | Embedder | None) -> str | None:
    if embedder is None or isinstance(embedder, str):
        return embedder
    raise CsrError(f"a saved pipeline needs the embedder's URI, got {type(embedder).__name__}")
