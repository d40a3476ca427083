"""A dense embedder that remembers its last vectors: two who ask cost one run of the model."""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from csr_qdrant.embedders.checks import text_list
from csr_qdrant.encoder import F32
from csr_qdrant.errors import ConfigError, CsrError

# Rows of 1,024 dimensions: 16 MiB. LlamaIndex embeds 2,048 nodes before it writes the first.
CAPACITY = 4096


class Backbone(Protocol):
    """What makes the dense vectors, whichever library it is of; all give (n, d) numbers."""

    def embed_documents(self, texts: list[str]) -> Any:
        """Embed texts to be stored."""

    def embed_queries(self, texts: list[str]) -> Any:
        """Embed texts to be searched for."""

    async def aembed_documents(self, texts: list[str]) -> Any:
        """Embed texts to be stored, without blocking the loop."""

    async def aembed_queries(self, texts: list[str]) -> Any:
        """Embed texts to be searched for, without blocking the loop."""


class FunctionBackbone:
    """Two functions as a backbone; they run in a thread where a loop must not block."""

    def __init__(
        self, documents: Callable[[list[str]], Any], queries: Callable[[list[str]], Any]
    ) -> None:
        """Embed documents and queries by these functions, which give (n, d) numbers."""
        self._documents, self._queries = documents, queries

    def embed_documents(self, texts: list[str]) -> Any:
        """Return (n, d) numbers."""
        return self._documents(texts)

    def embed_queries(self, texts: list[str]) -> Any:
        """Return (n, d) numbers."""
        return self._queries(texts)

    async def aembed_documents(self, texts: list[str]) -> Any:
        """Return (n, d) numbers, made in a thread."""
        return await asyncio.to_thread(self._documents, texts)

    async def aembed_queries(self, texts: list[str]) -> Any:
        """Return (n, d) numbers, made in a thread."""
        return await asyncio.to_thread(self._queries, texts)


class _Lookup(NamedTuple):
    """What is known of some texts."""

    texts: list[str]
    known: dict[str, F32]  # (d,) each
    missing: list[str]  # the others, each once


class MemoEmbedder:
    """Embeds by a backbone, once per text while it is remembered.

    Documents and queries are remembered apart, for a model may prompt them differently. Any thread
    and any event loop may call; no lock is held while the backbone runs.
    """

    def __init__(self, backbone: Backbone, capacity: int = CAPACITY) -> None:
        """Remember the last `capacity` vectors, or those of the last call if they are more.

        Raises ConfigError for a capacity below 1.
        """
        if capacity < 1:
            raise ConfigError(f"capacity must be at least 1 vector, got {capacity}")
        self.capacity = capacity
        self._backbone = backbone
        self._rows: OrderedDict[tuple[str, str], F32] = OrderedDict()  # the latest used come last
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many vectors are remembered."""
        return len(self._rows)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the backbone alone: another process starts without memory."""
        return type(self), (self._backbone, self.capacity)

    def embed_documents(self, texts: Sequence[str]) -> F32:
        """Return (n, d) float32; raises CsrError if the backbone gives no such matrix."""
        found = self._look_up("document", texts)
        made = self._backbone.embed_documents(found.missing) if found.missing else []
        return self._joined("document", found, made)

    def embed_queries(self, texts: Sequence[str]) -> F32:
        """Return (n, d) float32; raises CsrError if the backbone gives no such matrix."""
        found = self._look_up("query", texts)
        made = self._backbone.embed_queries(found.missing) if found.missing else []
        return self._joined("query", found, made)

    async def aembed_documents(self, texts: Sequence[str]) -> F32:
        """Do as `embed_documents`, without blocking the loop."""
        found = self._look_up("document", texts)
        made = await self._backbone.aembed_documents(found.missing) if found.missing else []
        return self._joined("document", found, made)

    async def aembed_queries(self, texts: Sequence[str]) -> F32:
        """Do as `embed_queries`, without blocking the loop."""
        found = self._look_up("query", texts)
        made = await self._backbone.aembed_queries(found.missing) if found.missing else []
        return self._joined("query", found, made)

    def _look_up(self, role: str, texts: Sequence[str]) -> _Lookup:
        given = text_list(texts, "this embedder")
        known: dict[str, F32] = {}
        with self._lock:
            for text in dict.fromkeys(given):
                row = self._rows.get((role, text))
                if row is not None:
                    self._rows.move_to_end((role, text))
                    known[text] = row
        return _Lookup(given, known, [text for text in dict.fromkeys(given) if text not in known])

    def _joined(self, role: str, found: _Lookup, made: Any) -> F32:
        if not found.texts:
            return np.zeros((0, 0), np.float32)
        rows = dict(found.known)
        if found.missing:
            # Copies, since a row of the matrix would keep all of it alive.
            fresh = [row.copy() for row in _matrix(made, len(found.missing))]
            rows |= zip(found.missing, fresh, strict=True)
            self._remember(role, found.missing, fresh, room=len(rows))
        return np.stack([rows[text] for text in found.texts])

    def _remember(self, role: str, texts: list[str], rows: list[F32], room: int) -> None:
        with self._lock:
            for text, row in zip(texts, rows, strict=True):
                self._rows[role, text] = row
                self._rows.move_to_end((role, text))
            # A batch larger than the capacity stays whole, or who asks next would embed it again.
            while len(self._rows) > max(self.capacity, room):
                self._rows.popitem(last=False)


def _matrix(made: Any, rows: int) -> F32:
    """Return what a backbone made as (rows, d) float32."""
    try:
        with np.errstate(over="ignore"):  # infinity is for the encoder to report
            matrix = np.asarray(made, np.float32)
    except (TypeError, ValueError) as error:
        raise CsrError(f"the embedder must give numbers ({error}): check the model") from error
    if matrix.ndim != 2 or len(matrix) != rows:
        raise CsrError(
            f"the embedder must give a vector for each of {rows} texts, got shape "
            f"{matrix.shape}: check the model"
        )
    return matrix
