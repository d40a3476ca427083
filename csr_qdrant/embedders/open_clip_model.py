"""Models of open_clip: images and texts in one space."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from csr_qdrant.embedders.checks import text_list
from csr_qdrant.embedders.torch_model import (
    TEXT_BATCH,
    TorchModel,
    batches,
    blank_image,
    embed_in_batches,
    load_failure,
)
from csr_qdrant.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from PIL.Image import Image

SCHEME = "open_clip"
_COMPLETE = ("hf-hub:", "local-dir:")  # such names bring their weights with them


class OpenClipEmbedder:
    """L2-normalised vectors of both towers: their dot product is the model's similarity."""

    def __init__(self, name: str, device: str | None = None) -> None:
        """Load `name` onto `device` (None: the best there is).

        `name` is `MODEL/PRETRAINED`, where PRETRAINED is one of open_clip's tags or the path of a
        checkpoint (of which nothing but tensors is read), or else `hf-hub:OWNER/MODEL` or
        `local-dir:FOLDER`.

        Raises ConfigError for other names, MissingExtraError without open_clip, CsrError if the
        model cannot be loaded.
        """
        self.uri = f"{SCHEME}:{name}"
        loaded = _load(self.uri, *_parsed(self.uri, name), device)
        self._model, self._transform, self._tokenize, place = loaded
        self._runner = TorchModel(self.uri, place)
        self.dimension = self.embed_prepared([self.prepare(blank_image())]).shape[1]

    def prepare(self, image: "Image") -> Any:
        """Return the (3, H, W) tensor of an RGB image."""
        return self._transform(image)

    def embed_prepared(self, prepared: Sequence[Any]) -> npt.NDArray[np.float32]:
        """Return (n, d) float32 of tensors that `prepare` gave, as one batch of at least one."""
        import torch

        return self._runner.vectors(self._model.encode_image, torch.stack(list(prepared)))

    def embed_images(self, images: "Sequence[Image | Path | bytes]") -> npt.NDArray[np.float32]:
        """Return (n, d) float32; raises UndecodableError for what holds no image."""
        return embed_in_batches(images, self.prepare, self.embed_prepared, self.dimension)

    def embed_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (n, d) float32; texts are cut to the model's context length."""
        given = text_list(texts, self.uri)
        parts = [
            self._runner.vectors(self._model.encode_text, self._tokenize(list(batch)))
            for batch in batches(given, TEXT_BATCH)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.dimension), np.float32)

    embed_queries = embed_documents


class _Loaded(NamedTuple):
    model: Any
    transform: Any  # an RGB image -> (3, H, W)
    tokenize: Any  # n texts -> (n, context length)
    device: Any


def _parsed(uri: str, name: str) -> tuple[str, str | None]:
    """Return the model and what its weights are; None where the model's name says it all."""
    if name.startswith(_COMPLETE):
        return name, None
    model, _, pretrained = name.partition("/")
    if not model or not pretrained:
        raise ConfigError(
            f"{SCHEME} needs a model and its weights, got {uri!r}: write {SCHEME}:MODEL/TAG or "
            f"{SCHEME}:MODEL/PATH, such as {SCHEME}:ViT-B-32/laion2b_s34b_b79k"
        )
    return model, str(Path(pretrained).expanduser()) if pretrained[0] == "~" else pretrained


def _load(uri: str, model_name: str, pretrained: str | None, device: str | None) -> _Loaded:
    try:
        import open_clip  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError("open_clip_torch", "multimodal") from error
    from csr_qdrant.encoding_torch import checked_device

    place = checked_device(device)
    try:
        with _errors_raised_only():
            model, _, transform = open_clip.create_model_and_transforms(
                model_name, pretrained=pretrained, device=place
            )
            tokenize = open_clip.get_tokenizer(model_name)
    except Exception as error:  # of any kind: open_clip's, the hub's, torch's, transformers'
        hint = "check model, weights and device, and be online for weights of the hub"
        raise load_failure(uri, error, hint) from error
    return _Loaded(model.eval(), transform, tokenize, place)


@contextmanager
def _errors_raised_only() -> Iterator[None]:
    """Keep open_clip from logging what it raises as well; its warnings are worth reading."""

    def below_errors(record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR

    root = logging.getLogger()
    root.addFilter(below_errors)
    try:
        yield
    finally:
        root.removeFilter(below_errors)
