"""Texts of mteb's data sets as the models of its leaderboard read them, and their vectors on disk.

Vectors are kept under a hash of the texts, per embedder: systems, splits and tasks that share
texts share vectors, other texts never meet old ones, and an interrupted embedding goes on.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from csr_qdrant.atomic import write_json
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.embedders import Embedder
from csr_qdrant.errors import CsrError
from csr_qdrant.stores.disk import require_space

BLOCK = 1024  # texts that are embedded, and kept, at a time

Kind = Literal["documents", "queries"]
Tell = Callable[[str], None]


def document_text(row: Mapping[str, Any]) -> str:
    """Return a document as mteb joins it: title, space, text, without space around them."""
    title, text = row.get("title") or "", row.get("text") or ""
    return f"{title} {text}".strip() if title else text.strip()


def query_text(row: Mapping[str, Any]) -> str:
    """Return a query as mteb joins it: the text and its instruction, if it has one.

    A conversation is its turns, `role: content` where roles are given, joined by semicolons, and
    its instruction stands first.
    """
    text, instruction = row.get("text"), row.get("instruction")
    if isinstance(text, list):
        turns = "; ".join(_turn(turn) for turn in text)
        return f"{instruction} {turns}" if instruction else turns
    return f"{text or ''} {instruction}" if instruction is not None else text or ""


def _turn(turn: Any) -> str:
    return turn if isinstance(turn, str) else f"{turn['role']}: {turn['content']}"


def texts_of(dataset: Any, kind: Kind, start: int = 0) -> Iterator[list[str]]:
    """Yield the texts of a data set (with columns) from row `start` on, in blocks."""
    join = document_text if kind == "documents" else query_text
    wanted = {"title", "text", "instruction"} & set(dataset.column_names)
    for first in range(start, len(dataset), BLOCK):
        columns = dataset[first : min(first + BLOCK, len(dataset))]
        rows = zip(*(columns[name] for name in wanted), strict=True)
        yield [join(dict(zip(wanted, row, strict=True))) for row in rows]


class Embeddings:
    """Embeds data sets into a folder; vectors that lie there already are mapped, not computed."""

    def __init__(self, embedder: Embedder, folder: Path, tell: Tell = lambda step: None) -> None:
        """Embed with `embedder`, below `folder`; `tell` is told what begins."""
        self.embedder = embedder
        digest = hashlib.sha256(f"{embedder.uri} {embedder.dimension}".encode()).hexdigest()[:8]
        self.name = f"{slug(embedder.uri)}-{digest}"  # of the embedder, as a folder
        self._folder = folder / self.name
        self._tell = tell
        self._known: list[tuple[Any, Matrix]] = []  # data sets, and where their vectors are mapped

    def documents(self, dataset: Any) -> Matrix:
        """Return the vectors of a corpus, (n, d), mapped from disk."""
        return self._vectors(dataset, "documents", self.embedder.embed_documents)

    def queries(self, dataset: Any) -> Matrix:
        """Return the vectors of queries, (m, d), mapped from disk."""
        return self._vectors(dataset, "queries", self.embedder.embed_queries)

    def _vectors(
        self, dataset: Any, kind: Kind, embed: Callable[[Sequence[str]], Matrix]
    ) -> Matrix:
        for known, mapped in self._known:
            if known is dataset:
                return mapped
        path = self._folder / f"{kind}-{text_digest(dataset, kind)}.npy"
        if not path.exists():
            self._embed(dataset, kind, embed, path)
        vectors: Matrix = np.load(path, mmap_mode="r")
        if kind == "documents":  # what is small is not worth being held
            self._known.append((dataset, vectors))
        return vectors

    def _embed(
        self,
        dataset: Any,
        kind: Kind,
        embed: Callable[[Sequence[str]], Matrix],
        path: Path,
    ) -> None:
        n, d = len(dataset), self.embedder.dimension
        path.parent.mkdir(parents=True, exist_ok=True)
        partial, progress = path.with_suffix(".partial"), path.with_suffix(".json")
        rows = _rows_done(partial, progress, (n, d))
        if not rows:
            require_space(path.parent, 4 * n * d)
        self._tell(f"embedding {n - rows:,} {kind}")
        mode: Literal["r+", "w+"] = "r+" if rows else "w+"
        vectors = np.lib.format.open_memmap(partial, mode, np.float32, (n, d))
        for texts in texts_of(dataset, kind, rows):
            made = embed(texts)
            if not np.isfinite(made).all():
                row = rows + int(np.argmin(np.isfinite(made).all(axis=1)))
                raise CsrError(
                    f"{self.embedder.uri} gave NaN or an infinity for row {row} of the {kind}: "
                    "check the model"
                )
            vectors[rows : rows + len(texts)] = made
            vectors.flush()
            rows += len(texts)
            write_json(progress, {"rows": rows})
        del vectors
        partial.replace(path)
        progress.unlink()


def _rows_done(partial: Path, progress: Path, shape: tuple[int, int]) -> int:
    """Return how many rows an interrupted embedding left; 0 if it left nothing of use."""
    try:
        found = np.load(partial, mmap_mode="r")
        rows = json.loads(progress.read_text("utf-8"))["rows"]
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    return int(rows) if found.shape == shape and found.dtype == np.float32 else 0


def text_digest(dataset: Any, kind: Kind) -> str:
    """Return sixteen hex digits that name the texts of a data set and their order."""
    digest = hashlib.blake2b(digest_size=8)
    for texts in texts_of(dataset, kind):
        for text in texts:
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()


def slug(text: str) -> str:
    """Return a text as a file name."""
    return re.sub(r"[^\w.=-]+", "-", text).strip("-.")
