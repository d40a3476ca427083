"""WordLlama: static text embeddings that come with their package and need no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from csr_qdrant.embedders.checks import text_list
from csr_qdrant.errors import ConfigError, CsrError, MissingExtraError

DIMENSIONS = (64, 128, 256)


class WordLlamaEmbedder:
    """The mean of a text's token vectors, L2-normalised; a text without tokens is all zeros."""

    def __init__(self, dimension: int = 256) -> None:
        """Load the package's own weights, truncated to `dimension`; nothing is downloaded."""
        if dimension not in DIMENSIONS:
            sizes = ", ".join(map(str, DIMENSIONS))
            raise ConfigError(f"wordllama has {sizes} dimensions, got {dimension}: choose one")
        self.dimension = dimension
        self.uri = "wordllama" if dimension == max(DIMENSIONS) else f"wordllama:{dimension}"
        model = _load(dimension)
        self._vectors: npt.NDArray[np.float32] = model.embedding  # (tokens, d)
        self._tokenizer = model.tokenizer
        self._tokenizer.no_padding()

    def embed_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (n, d) float32."""
        # `WordLlamaInference.embed` gives the same means, but pads a batch to its longest text:
        # twice the time on verses, and gigabytes where one text is a book.
        given = text_list(texts, self.uri)
        # Without offsets, which older versions of tokenizers always compute.
        encode = getattr(self._tokenizer, "encode_batch_fast", self._tokenizer.encode_batch)
        means = np.zeros((len(given), self.dimension), np.float32)
        for row, tokens in enumerate(encode(given, add_special_tokens=False)):
            if tokens.ids:
                means[row] = self._vectors.take(tokens.ids, axis=0, mode="clip").mean(axis=0)
        norms = np.linalg.norm(means, axis=1, keepdims=True)
        np.divide(means, norms, out=means, where=norms > 0)
        return means

    embed_queries = embed_documents


def _load(dimension: int) -> Any:
    try:
        import wordllama
    except ImportError as error:
        raise MissingExtraError("wordllama", "text") from error
    try:
        return wordllama.WordLlama.load(
            cache_dir=Path(wordllama.__file__).parent,  # where the weights lie; the default is not
            trunc_dim=dimension,
            disable_download=True,
        )
    except (OSError, ValueError) as error:
        raise CsrError(f"wordllama cannot be loaded ({error}): install it anew") from error
