"""What an embedder is: texts or images in, dense vectors out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image


class Embedder(Protocol):
    """Turns texts into dense vectors; documents and queries may be prompted differently."""

    @property
    def uri(self) -> str:
        """The text that `load_embedder` made this embedder from."""

    @property
    def dimension(self) -> int:
        """Number of dimensions d of its vectors."""

    def embed_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (n, d) float32."""

    def embed_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (n, d) float32."""


class ImageEmbedder(Protocol):
    """Turns images into dense vectors, in two steps, so that loading can overlap the model."""

    @property
    def uri(self) -> str:
        """The text that `load_image_embedder` made this embedder from."""

    @property
    def dimension(self) -> int:
        """Number of dimensions d of its vectors."""

    def prepare(self, image: "Image") -> Any:
        """Return what `embed_prepared` takes for an RGB image; threads may call it at once."""

    def embed_prepared(self, prepared: Sequence[Any]) -> npt.NDArray[np.float32]:
        """Return (n, d) float32 of images that `prepare` gave, as one batch."""

    def embed_images(self, images: "Sequence[Image | Path | bytes]") -> npt.NDArray[np.float32]:
        """Return (n, d) float32 of open images, files or contents of files, in batches.

        Raises `csr_qdrant.images.UndecodableError` for what holds no image.
        """
