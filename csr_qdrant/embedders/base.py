"""What an embedder is: texts in, dense vectors out."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt


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
