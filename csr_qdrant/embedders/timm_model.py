"""Image models of timm, without their classifier."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from csr_qdrant.embedders.torch_model import (
    TorchModel,
    blank_image,
    embed_in_batches,
    load_failure,
)
from csr_qdrant.errors import ConfigError, CsrError, MissingExtraError

if TYPE_CHECKING:
    from PIL.Image import Image

SCHEME = "timm"


class TimmEmbedder:
    """L2-normalised pooled features of a timm model, on its own evaluation transform."""

    def __init__(self, name: str, device: str | None = None) -> None:
        """Load the model `name` onto `device` (None: the best there is).

        `name` is one of timm's, `hf-hub:OWNER/MODEL` or `local-dir:FOLDER`; its pretrained weights
        are loaded, or with `NAME@FILE` those of a checkpoint (.safetensors, .pt or .pth, of which
        nothing but tensors is read).

        Raises ConfigError for an empty name, MissingExtraError without timm, CsrError if the model
        cannot be loaded.
        """
        model_name, _, checkpoint = name.partition("@")
        if not model_name:
            raise ConfigError(f"{SCHEME} needs a model: write {SCHEME}:NAME or {SCHEME}:NAME@FILE")
        self.uri = f"{SCHEME}:{name}"
        self._model, self._transform, place = _load(self.uri, model_name, checkpoint, device)
        self._runner = TorchModel(self.uri, place)
        # `num_features` is not what every model's head gives: ask the model.
        self.dimension = self.embed_prepared([self.prepare(blank_image())]).shape[1]

    def prepare(self, image: "Image") -> Any:
        """Return the (3, H, W) tensor of an RGB image."""
        return self._transform(image)

    def embed_prepared(self, prepared: Sequence[Any]) -> npt.NDArray[np.float32]:
        """Return (n, d) float32 of tensors that `prepare` gave, as one batch of at least one."""
        import torch

        return self._runner.vectors(self._model, torch.stack(list(prepared)))

    def embed_images(self, images: "Sequence[Image | Path | bytes]") -> npt.NDArray[np.float32]:
        """Return (n, d) float32; raises UndecodableError for what holds no image."""
        return embed_in_batches(images, self.prepare, self.embed_prepared, self.dimension)

    def embed_documents(self, texts: Sequence[str]) -> NoReturn:
        """Raise ConfigError: there is no text tower."""
        raise ConfigError(
            f"{self.uri} embeds images only, got texts: choose an embedder of texts, or "
            "open_clip:MODEL/PRETRAINED for both"
        )

    embed_queries = embed_documents


def _load(uri: str, name: str, checkpoint: str, device: str | None) -> tuple[Any, Any, Any]:
    """Return the model, its evaluation transform and the device that it lies on."""
    try:
        import timm
        import timm.data
    except ImportError as error:
        raise MissingExtraError("timm", "image") from error
    from csr_qdrant.encoding_torch import checked_device

    data: Any = timm.data  # typed in part only
    place = checked_device(device)
    try:
        model: Any = timm.create_model(name, pretrained=not checkpoint, num_classes=0)
        if checkpoint:
            _fill(model, Path(checkpoint).expanduser())
        config = data.resolve_model_data_config(model)
        transform = data.create_transform(**config, is_training=False)
        return model.eval().to(place), transform, place
    except CsrError:
        raise
    except Exception as error:  # of any kind: timm's, the hub's, torch's, safetensors'
        hint = "check the name and the device, and be online for weights of the hub"
        raise load_failure(uri, error, hint) from error


def _fill(model: Any, path: Path) -> None:
    """Load a checkpoint; only the classifier, which the model goes without, may be left over."""
    from timm.models import load_state_dict

    if not path.is_file():
        raise CsrError(f"checkpoint {path} does not exist: check the path behind the @")
    weights = load_state_dict(str(path), device="cpu", weights_only=True)
    heads = model.pretrained_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    backbone = {
        key: value
        for key, value in weights.items()
        if not key.startswith(tuple(f"{head}." for head in heads))
    }
    model.load_state_dict(backbone)
