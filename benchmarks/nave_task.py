"""The shipped data set as vectors, pairs and a task."""

from typing import NamedTuple

import numpy as np

from csr_qdrant.benchmarks.compare import Task
from csr_qdrant.benchmarks.nave import Nave
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.embedders import Embedder
from csr_qdrant.trainer import Pairs

EMBEDDER = "wordllama"


class Embedded(NamedTuple):
    """The data set as vectors."""

    corpus: Matrix  # (n, d)
    queries: dict[str, Matrix]  # of each split, (m, d)


def embed(data: Nave, embedder: Embedder, splits: tuple[str, ...] = ("train", "test")) -> Embedded:
    """Embed the verses, and the topics of some splits."""
    queries = {split: embedder.embed_queries(data.split(split).texts) for split in splits}
    return Embedded(embedder.embed_documents(data.texts), queries)


def train_pairs(data: Nave, queries: Matrix) -> Pairs:
    """Return the train split as pairs of query rows and verse rows."""
    split = data.split("train")
    row_of = {name: row for row, name in enumerate(data.ids)}
    judged = [
        (row, row_of[verse], grade)
        for row, name in enumerate(split.query_ids)
        for verse, grade in split.qrels[name].items()
    ]
    rows = np.array(judged, np.int64)
    return Pairs.of(queries, rows[:, 0], rows[:, 1], rows[:, 2])


def nave_task(
    data: Nave, embedded: Embedded, split_name: str = "test", limit: int | None = None
) -> Task:
    """Return a split (its first `limit` queries) as a task."""
    split = data.split(split_name)
    ids = split.query_ids[:limit]
    return Task(
        doc_ids=data.ids,
        vectors=embedded.corpus,
        query_ids=ids,
        queries=embedded.queries[split_name][:limit],
        qrels={name: split.qrels[name] for name in ids},
    )
