"""Models of sentence-transformers, from a folder or the Hugging Face hub."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from csr_qdrant.embedders.checks import checked_vectors, text_list
from csr_qdrant.errors import ConfigError, CsrError, MissingExtraError

SCHEME = "sentence-transformers"


class SentenceTransformerEmbedder:
    """L2-normalised vectors of a sentence-transformers model, with its prompts if it has any."""

    def __init__(self, model: str, device: str | None = None) -> None:
        """Load `model`, a folder or a name on the hub, onto `device` (None: the best there is)."""
        if not model:
            raise ConfigError(f"{SCHEME} needs a model: write {SCHEME}:NAME-or-PATH")
        self.uri = f"{SCHEME}:{model}"
        self._model = _load(model, device)
        self.dimension = self._dimension()

    def embed_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (n, d) float32."""
        # `encode_document` and `encode_query` came with version 5.
        return self._embed(getattr(self._model, "encode_document", self._model.encode), texts)

    def embed_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (n, d) float32."""
        return self._embed(getattr(self._model, "encode_query", self._model.encode), texts)

    def _embed(self, encode: Callable[..., Any], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        given = text_list(texts, self.uri)
        if not given:
            return np.zeros((0, self.dimension), np.float32)
        vectors = encode(
            given, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
        )
        return checked_vectors(vectors, len(given), self.dimension, self.uri)

    def _dimension(self) -> int:
        ask = getattr(self._model, "get_embedding_dimension", None)  # its name since version 5.1
        known = (ask or self._model.get_sentence_embedding_dimension)()
        # Models made of unusual modules do not know it.
        return int(known or np.shape(self._model.encode(["a"]))[-1])


def _load(model: str, device: str | None) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingExtraError("sentence-transformers", "text") from error
    try:
        # A shell leaves a `~` within a word alone.
        place = str(Path(model).expanduser()) if model.startswith("~") else model
        return SentenceTransformer(place, device=device)
    except Exception as error:  # of any kind: the hub's, torch's, transformers', safetensors'
        lines = str(error).splitlines() or [type(error).__name__]
        raise CsrError(
            f"{SCHEME} cannot load {model!r} ({lines[0].rstrip('.')}): "
            "check the path or name and the device, and be online for models of the hub"
        ) from error
