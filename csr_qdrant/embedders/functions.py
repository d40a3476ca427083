"""Any Python function as an embedder."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from csr_qdrant.embedders.checks import checked_vectors, text_list
from csr_qdrant.errors import ConfigError


class CallableEmbedder:
    """Embeds with a function that takes a list of texts and gives (n, d) numbers."""

    def __init__(
        self,
        function: Callable[[list[str]], Any],
        dimension: int,
        uri: str,
        *,
        query_function: Callable[[list[str]], Any] | None = None,
    ) -> None:
        """Wrap `function`, and `query_function` for queries where they are embedded otherwise.

        `uri` is the name that collections store; `load_embedder` cannot load it.
        """
        if dimension < 1:
            raise ConfigError(f"dimension must be at least 1, got {dimension}")
        self.uri = uri
        self.dimension = dimension
        self._document_function = function
        self._query_function = query_function or function

    def embed_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (n, d) float32; raises CsrError if the function gives another shape."""
        return self._embed(self._document_function, texts)

    def embed_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (n, d) float32; raises CsrError if the function gives another shape."""
        return self._embed(self._query_function, texts)

    def _embed(
        self, function: Callable[[list[str]], Any], texts: Sequence[str]
    ) -> npt.NDArray[np.float32]:
        given = text_list(texts, self.uri)
        if not given:
            return np.zeros((0, self.dimension), np.float32)
        return checked_vectors(function(given), len(given), self.dimension, self.uri)
