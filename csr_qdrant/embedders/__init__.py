"""Embedders: texts and images to dense vectors, chosen by a URI that a collection can remember."""

from typing import cast

from csr_qdrant.embedders.base import Embedder, ImageEmbedder
from csr_qdrant.embedders.functions import CallableEmbedder
from csr_qdrant.errors import ConfigError

__all__ = [
    "CallableEmbedder",
    "Embedder",
    "ImageEmbedder",
    "load_embedder",
    "load_image_embedder",
]

KNOWN = (
    "wordllama, wordllama:64, wordllama:128, sentence-transformers:NAME-or-PATH, "
    "open_clip:MODEL/PRETRAINED, python:package.module:function"
)
KNOWN_OF_IMAGES = "timm:NAME, open_clip:MODEL/PRETRAINED, python:package.module:function"


def load_embedder(uri: str, device: str | None = None, *, own_code: bool = False) -> Embedder:
    """Load the embedder that `uri` names.

    That is one of `wordllama[:DIM]`, `sentence-transformers:NAME-or-PATH[?dims=D&prompt=NAME]`,
    `sparse-encoder:NAME-or-PATH` (the dense vectors within a pipeline that makes CSR codes),
    `open_clip:MODEL/PRETRAINED`, `timm:NAME[@CHECKPOINT]` (images only) and
    `python:package.module:function`.

    `device` is torch's name of one, such as `cuda`; WordLlama always runs on the CPU. `own_code`
    permits the last form: pass it for what your user typed, never for what a collection or an
    encoder remembers, or opening a stranger's files would run any function on your machine.

    Raises ConfigError for other URIs, MissingExtraError where a package is missing, CsrError if
    the model cannot be loaded.
    """
    scheme, colon, rest = uri.partition(":")
    if scheme == "wordllama":
        from csr_qdrant.embedders.word_llama import WordLlamaEmbedder

        return WordLlamaEmbedder(_dimension(uri, rest)) if colon else WordLlamaEmbedder()
    if scheme == "sentence-transformers":
        from csr_qdrant.embedders.sentence_transformer import SentenceTransformerEmbedder

        return SentenceTransformerEmbedder(rest, device)
    if scheme == "sparse-encoder":
        from csr_qdrant.integrations.sentence_transformers import SparseEncoderBackbone

        return SparseEncoderBackbone(rest, device)
    if scheme == "timm":
        from csr_qdrant.embedders.timm_model import TimmEmbedder

        return TimmEmbedder(rest, device)
    if scheme == "open_clip":
        from csr_qdrant.embedders.open_clip_model import OpenClipEmbedder

        return OpenClipEmbedder(rest, device)
    if scheme == "python":
        from csr_qdrant.embedders.python_function import PythonEmbedder

        _check_permitted(uri, own_code)
        return PythonEmbedder(rest)
    raise ConfigError(f"there is no embedder {uri!r}: choose one of {KNOWN}, timm:NAME")


def load_image_embedder(
    uri: str, device: str | None = None, *, own_code: bool = False
) -> ImageEmbedder:
    """Load the embedder of images that `uri` names; parameters and errors as `load_embedder`."""
    if uri.partition(":")[0] in ("wordllama", "sentence-transformers", "sparse-encoder"):
        raise ConfigError(f"{uri} embeds texts only, got images: choose one of {KNOWN_OF_IMAGES}")
    # All others know images, too, which the name of the scheme tells and their type does not.
    return cast(ImageEmbedder, load_embedder(uri, device, own_code=own_code))


def _check_permitted(uri: str, own_code: bool) -> None:
    if not own_code:
        raise ConfigError(
            f"{uri} runs code of this machine, so it is loaded only where its user names it: "
            "embed with csr embed --embedder, or load it with own_code=True"
        )


def _dimension(uri: str, text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"there is no embedder {uri!r}: choose one of {KNOWN}")
    return int(text)
