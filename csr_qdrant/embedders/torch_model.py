"""What embedders over a torch model share: its device, its batches, its precision."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from csr_qdrant.embedders.checks import checked_vectors
from csr_qdrant.errors import CsrError
from csr_qdrant.images import decoded

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

F32 = npt.NDArray[np.float32]
T = TypeVar("T")

_REASON_LENGTH = 300  # characters of another library's message
IMAGE_BATCH = 64
TEXT_BATCH = 256


class TorchModel:
    """Runs a torch model over batches and gives L2-normalised float32 vectors.

    On CUDA the model runs in half precision (automatic mixed precision); a batch whose values
    overflow there is computed once more in float32.
    """

    def __init__(self, uri: str, device: "torch.device") -> None:
        """Run what belongs to `uri` on `device`, where the model must lie already."""
        self.uri = uri
        self.device = device
        self._half = device.type == "cuda"

    def vectors(self, forward: Callable[[Any], Any], batch: Any) -> F32:
        """Return (n, d) float32, L2-normalised, of `forward` on a (n, …) tensor of inputs.

        Raises CsrError where the batch does not fit into the device's memory.
        """
        import torch

        try:
            with torch.inference_mode():
                batch = batch.to(self.device)
                outputs = self._run(forward, batch, half=self._half)
                if self._half and not bool(torch.isfinite(outputs).all()):
                    outputs = self._run(forward, batch, half=False)
                normalised = torch.nn.functional.normalize(outputs, dim=-1).cpu().numpy()
        except torch.cuda.OutOfMemoryError as error:
            raise CsrError(
                f"{self.uri} runs out of memory on {self.device} with {len(batch)} inputs at once: "
                "choose smaller batches"
            ) from error
        return checked_vectors(normalised, len(batch), normalised.shape[-1], self.uri)

    def _run(self, forward: Callable[[Any], Any], batch: Any, *, half: bool) -> Any:
        import torch

        if not half:
            return forward(batch).float()
        with torch.autocast(self.device.type, torch.float16):
            return forward(batch).float()


def embed_in_batches(
    images: "Sequence[Image | Path | bytes]",
    prepare: Callable[["Image"], Any],
    embed_prepared: Callable[[Sequence[Any]], F32],
    dimension: int,
) -> F32:
    """Return (n, d) float32 of images, decoded and embedded `IMAGE_BATCH` at a time."""
    parts = [
        embed_prepared([prepare(decoded(image)) for image in batch])
        for batch in batches(images, IMAGE_BATCH)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, dimension), np.float32)


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield `items` in order, `size` at a time."""
    for first in range(0, len(items), size):
        yield items[first : first + size]


def blank_image() -> "Image":
    """Return an image to try a model with."""
    from PIL import Image

    return Image.new("RGB", (64, 64), (127, 127, 127))


def load_failure(uri: str, error: Exception, hint: str) -> CsrError:
    """Return the error for a model that cannot be loaded: what the library says, and `hint`."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if re.search("weights.only", text, re.IGNORECASE):  # torch goes on to advise what is unsafe
        text = "its checkpoint holds other things than tensors, which are never loaded"
        hint = "save the weights as .safetensors"
    text = text if len(text) <= _REASON_LENGTH else text[:_REASON_LENGTH] + "…"
    return CsrError(f"{uri} cannot be loaded ({text}): {hint}")
