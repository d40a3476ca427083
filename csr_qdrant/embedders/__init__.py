"""Embedders: text to dense vectors, chosen by a URI that a collection can remember."""

from csr_qdrant.embedders.base import Embedder
from csr_qdrant.embedders.functions import CallableEmbedder
from csr_qdrant.errors import ConfigError

__all__ = ["CallableEmbedder", "Embedder", "load_embedder"]

KNOWN = "wordllama, wordllama:64, wordllama:128, sentence-transformers:NAME-or-PATH"


def load_embedder(uri: str, device: str | None = None) -> Embedder:
    """Load the embedder that `uri` names: `wordllama[:DIM]`, `sentence-transformers:NAME-or-PATH`.

    `device` is torch's name of one, such as `cuda`; WordLlama always runs on the CPU.

    Raises ConfigError for other URIs, MissingExtraError where a package is missing, CsrError if
    the model cannot be loaded.
    """
    scheme, _, rest = uri.partition(":")
    if scheme == "wordllama":
        from csr_qdrant.embedders.word_llama import WordLlamaEmbedder

        return WordLlamaEmbedder(_dimension(uri, rest)) if ":" in uri else WordLlamaEmbedder()
    if scheme == "sentence-transformers":
        from csr_qdrant.embedders.sentence_transformer import SentenceTransformerEmbedder

        return SentenceTransformerEmbedder(rest, device)
    raise ConfigError(f"there is no embedder {uri!r}: choose one of {KNOWN}")


def _dimension(uri: str, text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"there is no embedder {uri!r}: choose one of {KNOWN}")
    return int(text)
