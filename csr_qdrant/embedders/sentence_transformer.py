"""Models of sentence-transformers, from a folder or the Hugging Face hub."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt

from csr_qdrant.embedders.checks import checked_vectors, text_list
from csr_qdrant.errors import ConfigError, CsrError, MissingExtraError

SCHEME = "sentence-transformers"


class SentenceTransformerEmbedder:
    """L2-normalised vectors of a sentence-transformers model, with its prompts if it has any."""

    def __init__(self, model: str, device: str | None = None) -> None:
        """Load `model`, a folder or a name on the hub, onto `device` (None: the best there is).

        Behind a `?` may stand `dims=D`, to keep the first D dimensions of a Matryoshka model, and
        `prompt=NAME`, one of the model's prompts for documents and queries alike; both with a `&`.

        Raises ConfigError for other options, dims that the model lacks and unknown prompts.
        """
        self.uri = f"{SCHEME}:{model}"
        name, options = _parsed(self.uri, model)
        if not name:
            raise ConfigError(f"{SCHEME} needs a model: write {SCHEME}:NAME-or-PATH")
        self.model = _load(name, device)
        self._truncate(options.dims)
        self._check_prompt(options.prompt)
        self.prompt = options.prompt
        self.dimension = self._dimension()

    def embed_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (n, d) float32."""
        return self._embed(self._encoder("encode_document"), texts)

    def embed_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (n, d) float32."""
        return self._embed(self._encoder("encode_query"), texts)

    def _encoder(self, name: str) -> Callable[..., Any]:
        if self.prompt is not None:
            return partial(self.model.encode, prompt_name=self.prompt)
        # `encode_document` and `encode_query` came with version 5.
        method: Callable[..., Any] = getattr(self.model, name, self.model.encode)
        return method

    def _truncate(self, dims: int | None) -> None:
        if dims is None:
            return
        whole = self._dimension()
        if not 1 <= dims <= whole:
            raise ConfigError(f"{self.uri}: dims must be in 1..{whole}, got {dims}")
        self.model.truncate_dim = dims

    def _check_prompt(self, prompt: str | None) -> None:
        if prompt is not None and prompt not in self.model.prompts:
            known = ", ".join(self.model.prompts) or "none"
            raise ConfigError(f"{self.uri}: the model has no prompt {prompt!r} (it has: {known})")

    def _embed(self, encode: Callable[..., Any], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        given = text_list(texts, self.uri)
        if not given:
            return np.zeros((0, self.dimension), np.float32)
        vectors = encode(
            given, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
        )
        return checked_vectors(vectors, len(given), self.dimension, self.uri)

    def _dimension(self) -> int:
        ask = getattr(self.model, "get_embedding_dimension", None)  # its name since version 5.1
        known = (ask or self.model.get_sentence_embedding_dimension)()
        # Models made of unusual modules do not know it.
        return int(known or np.shape(self.model.encode(["a"]))[-1])


class _Options(NamedTuple):
    dims: int | None = None
    prompt: str | None = None


def _parsed(uri: str, model: str) -> tuple[str, _Options]:
    """Return the model's name, and the options behind its `?`."""
    name, mark, text = model.rpartition("?")
    if not mark:
        return model, _Options()
    given = dict(parse_qsl(text, keep_blank_values=True))
    dims, prompt = given.pop("dims", None), given.pop("prompt", None)
    known = dims is not None or prompt is not None
    if given or not known or not (dims is None or dims.isdecimal()):
        raise ConfigError(f"{uri} has unknown options: write ?dims=D, ?prompt=NAME or both with &")
    return name, _Options(None if dims is None else int(dims), prompt)


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
