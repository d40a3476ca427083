"""Functions of Python modules as embedders, named by a URI."""

from collections.abc import Callable, Sequence
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from csr_qdrant.embedders.checks import checked_vectors, text_list
from csr_qdrant.embedders.torch_model import blank_image, embed_in_batches
from csr_qdrant.errors import ConfigError, CsrError

if TYPE_CHECKING:
    from PIL.Image import Image

SCHEME = "python"


class PythonEmbedder:
    """Embeds with a function that takes a list of texts or of RGB images and gives (n, d) numbers.

    Its vectors are taken as they are, not normalised.
    """

    def __init__(self, place: str) -> None:
        """Import the function at `place`, `package.module:function`.

        An attribute `dimension` of the function saves the call that finds it out.

        Raises ConfigError for another form, CsrError if there is no such function.
        """
        self.uri = f"{SCHEME}:{place}"
        self._function = _imported(self.uri, place)
        known = getattr(self._function, "dimension", None)
        self._dimension: int | None = known if isinstance(known, int) else None

    @property
    def dimension(self) -> int:
        """Number of dimensions d: the function's attribute, or what it makes of a sample."""
        if self._dimension is None:
            self._dimension = self._measured()
        return self._dimension

    def embed_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (n, d) float32; raises CsrError if the function gives another shape."""
        return self._called(text_list(texts, self.uri))

    embed_queries = embed_documents

    def prepare(self, image: "Image") -> "Image":
        """Return the image: the function has its own transform."""
        return image

    def embed_prepared(self, prepared: Sequence[Any]) -> npt.NDArray[np.float32]:
        """Return (n, d) float32; raises CsrError if the function gives another shape."""
        return self._called(list(prepared))

    def embed_images(self, images: "Sequence[Image | Path | bytes]") -> npt.NDArray[np.float32]:
        """Return (n, d) float32; raises UndecodableError for what holds no image."""
        dimension = 0 if images else self.dimension
        return embed_in_batches(images, self.prepare, self.embed_prepared, dimension)

    def _called(self, inputs: list[Any]) -> npt.NDArray[np.float32]:
        if not inputs:
            return np.zeros((0, self.dimension), np.float32)
        vectors = self._function(inputs)
        if self._dimension is None:
            self._dimension = self._width(vectors, len(inputs))
        return checked_vectors(vectors, len(inputs), self._dimension, self.uri)

    def _measured(self) -> int:
        """Return d of a text, or else of an image: which of the two it takes is not known."""
        try:
            vectors = self._function(["a"])
        except Exception:  # whatever a function makes of a text where it wants an image
            vectors = self._function([blank_image()])
        return self._width(vectors, 1)

    def _width(self, vectors: Any, inputs: int) -> int:
        shape = np.shape(vectors)
        if len(shape) != 2 or shape[0] != inputs:
            raise CsrError(
                f"{self.uri} must give one vector for each of its {inputs} inputs, got numbers of "
                f"shape {shape}: check the function"
            )
        return int(shape[1])


def _imported(uri: str, place: str) -> Callable[[list[Any]], Any]:
    module, colon, name = place.partition(":")
    if not (module and colon and name):
        raise ConfigError(
            f"{SCHEME} needs a module and a function, got {uri!r}: "
            f"write {SCHEME}:package.module:function"
        )
    try:
        function = attrgetter(name)(import_module(module))
    except Exception as error:  # a module may raise anything
        raise CsrError(
            f"{uri} cannot be imported ({type(error).__name__}: {error}): check the name, and that "
            "the module lies on PYTHONPATH or in the current folder"
        ) from error
    if not callable(function):
        raise CsrError(f"{uri} is no function but {type(function).__name__}: name a function")
    checked: Callable[[list[Any]], Any] = function
    return checked
