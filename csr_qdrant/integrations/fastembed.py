"""fastembed: codes as a sparse model, so that qdrant-client resolves `models.Document` by it."""

import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from csr_qdrant.codes import SparseCodes
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, MissingExtraError
from csr_qdrant.integrations.memo import Backbone, FunctionBackbone
from csr_qdrant.integrations.texts import TextCoder, text_coder

try:
    from fastembed import SparseEmbedding, SparseTextEmbedding, TextEmbedding
    from fastembed.common.model_description import ModelSource, SparseModelDescription
    from fastembed.sparse.sparse_embedding_base import SparseTextEmbeddingBase
except ImportError as error:
    raise MissingExtraError("fastembed", "fastembed") from error


def register_model(
    name: str,
    encoder: Encoder | str | Path,
    embedder: Any = None,
    *,
    k: int | None = None,
    query_k: int | None = None,
    normalise: bool = False,
) -> None:
    """Make `models.Document(text=…, model=name)` and `SparseTextEmbedding(name)` give codes.

    This holds for the process. Registering a name anew replaces what it meant for clients that
    have not used it yet; a client keeps the models that it has loaded.

    Args:
        name: of the model, in any case of letters; none of fastembed's own.
        encoder: an encoder or its folder.
        embedder: a `fastembed.TextEmbedding`, or an embedder of this package or its URI. None: the
            embedder that the encoder remembers.
        k: active latents of documents at most; None: the encoder's.
        query_k: those of queries; None: as documents.
        normalise: True encodes vectors at norm 1, which is how a collection that compares by cosine
            keeps them, and what `csr attach` encodes there.

    Raises:
        ConfigError: the name is fastembed's, there is no embedder, or k is out of range.
        CsrError: the encoder or the embedder cannot be loaded.
    """
    _check_free(name)
    coder = text_coder(encoder, embedder, k=k, query_k=query_k, normalise=normalise, wrap=_wrapped)
    with CsrSparseModel.lock:
        CsrSparseModel.coders = CsrSparseModel.coders | {name.lower(): (name, coder)}
        if CsrSparseModel not in SparseTextEmbedding.EMBEDDINGS_REGISTRY:
            SparseTextEmbedding.EMBEDDINGS_REGISTRY.append(CsrSparseModel)


class CsrSparseModel(SparseTextEmbeddingBase):  # type: ignore[misc]
    """The sparse model that fastembed makes of a registered name."""

    lock: ClassVar[threading.Lock] = threading.Lock()
    coders: ClassVar[dict[str, tuple[str, TextCoder]]] = {}  # by name in lower case

    def __init__(
        self,
        model_name: str,
        cache_dir: str | None = None,
        threads: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Find what `model_name` was registered with; settings of ONNX mean nothing here."""
        super().__init__(model_name, cache_dir, threads, **kwargs)
        self._coder = self.coders[model_name.lower()][1]

    def embed(
        self,
        documents: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        **kwargs: Any,
    ) -> Iterator[SparseEmbedding]:
        """Yield the code of each document, in batches; `parallel` is left to the embedder."""
        return _embedded(self._coder.documents, documents, batch_size)

    def query_embed(
        self, query: str | Iterable[str], batch_size: int = 256, **kwargs: Any
    ) -> Iterator[SparseEmbedding]:
        """Yield the code of each query."""
        return _embedded(self._coder.queries, query, batch_size)

    @classmethod
    def _list_supported_models(cls) -> list[SparseModelDescription]:
        return [_description(name, coder.coder.encoder) for name, coder in cls.coders.values()]


def _wrapped(embedder: Any) -> Backbone | None:
    """Return fastembed's `TextEmbedding` as a backbone, called as qdrant-client calls it."""
    if not isinstance(embedder, TextEmbedding):
        return None
    return FunctionBackbone(
        lambda texts: np.stack(list(embedder.embed(texts))),
        lambda texts: np.stack(list(embedder.query_embed(texts))),
    )


def _embedded(
    codes_of: Callable[[list[str]], SparseCodes], texts: str | Iterable[str], batch_size: int
) -> Iterator[SparseEmbedding]:
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    rest = iter([texts] if isinstance(texts, str) else texts)
    while batch := list(islice(rest, batch_size)):
        for row in codes_of(batch).rows():
            yield SparseEmbedding(values=row.values, indices=row.indices.astype(np.int64))


def _check_free(name: str) -> None:
    others = (
        each for each in SparseTextEmbedding.EMBEDDINGS_REGISTRY if each is not CsrSparseModel
    )
    taken = {model.model.lower() for each in others for model in each._list_supported_models()}
    taken |= {model["model"].lower() for model in TextEmbedding.list_supported_models()}
    if not name or name.lower() in taken:
        raise ConfigError(
            f"{name!r} is no name for a model of yours: fastembed has it, or it is empty; "
            "choose another"
        )


def _description(name: str, encoder: Encoder) -> SparseModelDescription:
    return SparseModelDescription(
        model=name,
        sources=ModelSource(url=f"csr-qdrant:{encoder.fingerprint}"),  # nothing is downloaded
        model_file="model.safetensors",
        description=f"CSR codes over {encoder.h} latents of {encoder.d} dimensions",
        license="see the encoder",
        size_in_GB=encoder.weight.nbytes / 1e9,
        requires_idf=False,
        vocab_size=encoder.h,
    )
