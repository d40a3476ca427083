"""What `dims` measures on: vectors to search, queries, and what tells whether a result is right."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from csr_qdrant.atomic import replaced_file
from csr_qdrant.benchmarks.metrics import Floats, Rows, ndcg, run_of
from csr_qdrant.benchmarks.nave import Nave, Split
from csr_qdrant.benchmarks.nave_task import train_pairs
from csr_qdrant.benchmarks.neighbours import Matrix, Neighbours
from csr_qdrant.embedders import load_embedder
from csr_qdrant.errors import CsrError
from csr_qdrant.trainer import Pairs

LABELLED = ("gallery", "gallery_labels", "queries", "queries_labels")
DEV_SHARE = 6  # of a labelled gallery, at most one row in so many is a query of the tune split


@dataclass(frozen=True)
class DimsTask:
    """Vectors, queries, and a measure of each query's results."""

    gallery: Matrix  # (n, d)
    queries: Matrix  # (m, d)
    measure: str  # what `judge` returns
    depth: int  # results that it needs
    judge: Callable[[Neighbours], Floats]  # (m, depth) results -> (m,) in 0..1
    labels: Rows | None = None  # of the gallery
    pairs: Pairs | None = None

    @property
    def supervision(self) -> str | None:
        """What systems may learn from beside the gallery: `labels`, `pairs` or None."""
        if self.labels is not None:
            return "labels"
        return None if self.pairs is None else "pairs"


def load_task(folder: Path, *, tune: bool, embedder: str | None = None) -> DimsTask:
    """Return the task whose vectors lie in `folder`.

    Args:
        folder: with gallery.npy, gallery_labels.npy, queries.npy and queries_labels.npy, or with
            vectors of the shipped data set: corpus.npy and queries-SPLIT.npy of its splits.
        tune: take dev queries, never those of the test.
        embedder: makes vectors of the shipped data set that `folder` lacks.

    Raises CsrError if files are missing or do not fit together.
    """
    if embedder is not None or (folder / "corpus.npy").exists():
        return nave_dims(Nave(), folder, "dev" if tune else "test", embedder)
    gallery, labels, queries, wanted = (_loaded(folder / f"{name}.npy") for name in LABELLED)
    if tune:
        gallery, labels, queries, wanted = tune_split(gallery, labels, len(queries))
    return labelled_task(gallery, labels, queries, wanted)


def labelled_task(gallery: Matrix, labels: Rows, queries: Matrix, wanted: Rows) -> DimsTask:
    """Return a task of nearest-neighbour classification: is the first result's label right?"""
    for name, rows, given in (("gallery", gallery, labels), ("queries", queries, wanted)):
        if given.shape != (len(rows),):
            raise CsrError(f"the {name} have {len(rows)} rows, got labels of shape {given.shape}")
    judge = partial(_right_label, labels, wanted)
    return DimsTask(gallery, queries, "1-NN top-1", 1, judge, labels=labels)


def _right_label(labels: Rows, wanted: Rows, found: Neighbours) -> Floats:
    first = found.rows[:, 0]
    return np.asarray((first >= 0) & (labels[first] == wanted), np.float64)


def tune_split(
    gallery: Matrix, labels: Rows, count: int, seed: int = 0
) -> tuple[Matrix, Rows, Matrix, Rows]:
    """Part a gallery into a smaller one and at most `count` dev queries, chosen at random.

    At most one row in six becomes a query. Returns both parts, each followed by its labels.
    """
    order = np.random.default_rng(seed).permutation(len(gallery))
    cut = min(count, len(gallery) // DEV_SHARE)
    queries, rest = np.sort(order[:cut]), np.sort(order[cut:])
    return gallery[rest], labels[rest], gallery[queries], labels[queries]


# --- the shipped data set ---------------------------------------------------------------------


def nave_dims(data: Nave, folder: Path, split_name: str, embedder: str | None) -> DimsTask:
    """Return a split of the data set, with the train split's pairs as supervision.

    Its vectors lie in `folder`; those that do not are made by the embedder, if one is given.
    """
    splits = ("train", split_name)
    if embedder is not None:
        embed_missing(data, folder, embedder, splits)
    corpus = _loaded(folder / "corpus.npy")
    train, queries = (_loaded(folder / f"queries-{split}.npy") for split in splits)
    split = data.split(split_name)
    for name, rows, n in (
        ("corpus.npy", corpus, len(data.ids)),
        ("queries-train.npy", train, len(data.split("train").texts)),
        (f"queries-{split_name}.npy", queries, len(split.texts)),
    ):
        if len(rows) != n:
            raise CsrError(f"{folder / name} must have {n} rows, got {len(rows)}: embed it anew")
    judge = partial(_ndcg, data, split)
    return DimsTask(corpus, queries, "nDCG@10", 10, judge, pairs=train_pairs(data, train))


def _ndcg(data: Nave, split: Split, found: Neighbours) -> Floats:
    ids = split.query_ids[: len(found.rows)]
    run = run_of(ids, data.ids, found.rows, found.scores)
    return ndcg(run, {name: split.qrels[name] for name in ids})


def embed_missing(data: Nave, folder: Path, uri: str, splits: tuple[str, ...]) -> None:
    """Write the vectors of the verses and of some splits' topics that `folder` lacks."""
    texts = {"corpus.npy": data.texts}
    texts |= {f"queries-{split}.npy": list(data.split(split).texts) for split in splits}
    missing = [name for name in texts if not (folder / name).exists()]
    embedder = load_embedder(uri) if missing else None
    for name in missing:
        assert embedder is not None
        verses = name == "corpus.npy"
        embed = embedder.embed_documents if verses else embedder.embed_queries
        with replaced_file(folder / name) as temporary, temporary.open("wb") as file:
            np.save(file, embed(texts[name]))


def _loaded(path: Path) -> Any:
    try:
        return np.load(path)
    except (OSError, ValueError) as error:
        raise CsrError(
            f"{path} cannot be read ({error}): extract_fashion and --embedder make such files"
        ) from error
