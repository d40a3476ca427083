"""A folder of texts and judgements as a benchmark's task, its vectors kept on disk."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from csr_qdrant.cli.dense import dense_on_disk
from csr_qdrant.cli.output import Output
from csr_qdrant.errors import CsrError
from csr_qdrant.sources import beir_splits, open_source
from csr_qdrant.sources.beir import BeirSplit, read_beir

if TYPE_CHECKING:
    from csr_qdrant.benchmarks.matrix.task import BenchTask
    from csr_qdrant.embedders import Embedder

READ_ROWS = 8192


class TextsTask:
    """Reads and embeds a BEIR folder; vectors lie in `work`, and a killed run goes on there."""

    def __init__(self, out: Output, folder: Path, embedder: "Embedder", work: Path) -> None:
        """Take what all parts need."""
        self._out, self._folder, self._embedder, self._work = out, folder, embedder, work

    def task(self, name: str, split: str, train: str) -> "BenchTask":
        """Return the task of `split`; pairs are those of `train`, if the folder has it.

        Raises CsrError for a missing split, or one without relevant documents.
        """
        from csr_qdrant.benchmarks.compare import Task
        from csr_qdrant.benchmarks.matrix.task import retrieval

        judged, ids = read_beir(self._folder, split), self._ids()
        self._check(judged, split, ids)
        vectors = self._documents()
        compared = Task(
            doc_ids=ids,
            vectors=vectors,
            query_ids=judged.query_ids,
            queries=self._queries(judged, split, vectors.shape[1]),
            qrels={query: judged.qrels[query] for query in judged.query_ids},
        )
        pairs = None
        if train != split and train in beir_splits(self._folder):
            pairs = self._pairs(read_beir(self._folder, train), train, ids, vectors.shape[1])
        return retrieval(name, compared, embedder=self._embedder.uri, pairs=pairs)

    def _ids(self) -> list[str]:
        source = open_source(self._folder, payload_fields=())
        return [str(each) for block in source.blocks(READ_ROWS) for each in block.ids]

    def _check(self, judged: BeirSplit, split: str, ids: Sequence[str]) -> None:
        known = set(ids)
        relevant = [
            document
            for grades in judged.qrels.values()
            for document, grade in grades.items()
            if grade > 0
        ]
        if not relevant:
            raise CsrError(
                f"{self._folder}: no query of {split} has a relevant document (a grade above 0): "
                "choose another --split"
            )
        if missing := sum(document not in known for document in relevant):
            self._out.warn(
                f"{missing:,} of {len(relevant):,} judgements of {split} name documents that "
                "the corpus lacks: they count as not found"
            )

    def _documents(self) -> Any:
        source = open_source(self._folder, payload_fields=())
        with self._out.progress("embedding", len(source)) as progress:
            return dense_on_disk(
                source,
                self._work / "corpus.npy",
                self._embedder.embed_documents,
                maker=self._embedder.uri,
                on_rows=progress.update,
            )

    def _queries(self, judged: BeirSplit, split: str, d: int) -> Any:
        texts = hashlib.sha256("\n".join(judged.texts).encode()).hexdigest()[:8]
        path = self._work / f"queries-{split}-{texts}.npy"
        vectors = _saved(path, (len(judged.texts), d))
        if vectors is None:
            from csr_qdrant.atomic import replaced_file

            vectors = self._embedder.embed_queries(judged.texts)
            path.parent.mkdir(parents=True, exist_ok=True)
            with replaced_file(path) as temporary, temporary.open("wb") as file:
                np.save(file, vectors)
        return vectors

    def _pairs(self, judged: BeirSplit, train: str, ids: Sequence[str], d: int) -> Any:
        from csr_qdrant.trainer import Pairs

        rows = _judged_rows(judged, {document: row for row, document in enumerate(ids)})
        if not len(rows):
            return None
        return Pairs.of(self._queries(judged, train, d), rows[:, 0], rows[:, 1], rows[:, 2])


def _judged_rows(judged: BeirSplit, row_of: Mapping[str, int]) -> Any:
    """Return (query row, document row, grade) of each relevant document that is there, (p, 3)."""
    found = [
        (row, row_of[document], grade)
        for row, query in enumerate(judged.query_ids)
        for document, grade in judged.qrels[query].items()
        if grade > 0 and document in row_of
    ]
    return np.array(found, np.int64).reshape(-1, 3)


def _saved(path: Path, shape: tuple[int, int]) -> Any:
    """Return what an earlier run embedded, or None."""
    try:
        vectors = np.load(path)
    except (OSError, ValueError):
        return None
    return vectors if vectors.shape == shape else None
