"""What codes and shortened vectors are measured on: labels or judgements, test or dev queries."""

import json
from pathlib import Path

import numpy as np
import pytest

from csr_qdrant.benchmarks.dims_task import labelled_task, load_task, nave_dims, tune_split
from csr_qdrant.benchmarks.nave import Nave
from csr_qdrant.benchmarks.neighbours import Matrix, Neighbours
from csr_qdrant.embedders import load_embedder
from csr_qdrant.errors import CsrError


def _random(*shape: int, seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_a_result_is_right_if_the_first_has_the_label() -> None:
    task = labelled_task(_random(3, 2), np.array([4, 5, 6]), _random(3, 2), np.array([5, 5, 6]))
    found = Neighbours(np.array([[1], [2], [-1]]), np.ones((3, 1), np.float32))
    assert task.judge(found).tolist() == [1, 0, 0]
    assert (task.measure, task.depth, task.supervision) == ("1-NN top-1", 1, "labels")


def test_the_tune_split_parts_the_gallery() -> None:
    gallery, labels = _random(60, 3), np.arange(60)
    rest, rest_labels, queries, wanted = tune_split(gallery, labels, 100)
    assert len(queries) == 10  # one row in six, fewer than were asked for
    assert sorted([*rest_labels, *wanted]) == list(range(60))
    assert np.array_equal(rest, gallery[rest_labels])
    assert np.array_equal(queries, gallery[wanted])
    assert len(tune_split(gallery, labels, 4)[2]) == 4


def test_tuning_never_reads_test_queries(tmp_path: Path) -> None:
    gallery = _random(60, 3)
    for name, rows in (("gallery", gallery), ("queries", _random(10, 3, seed=1))):
        np.save(tmp_path / f"{name}.npy", rows)
        np.save(tmp_path / f"{name}_labels.npy", np.zeros(len(rows), np.int64))
    tuned = load_task(tmp_path, tune=True)
    known = {row.tobytes() for row in gallery}
    assert (len(tuned.gallery), len(tuned.queries)) == (50, 10)
    assert {row.tobytes() for row in (*tuned.gallery, *tuned.queries)} == known
    assert len(load_task(tmp_path, tune=False).gallery) == 60


def test_unusable_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CsrError, match=r"gallery.npy cannot be read .*: extract_fashion"):
        load_task(tmp_path, tune=False)
    with pytest.raises(CsrError, match=r"the queries have 4 rows, got labels of shape \(3,\)"):
        labelled_task(_random(2, 2), np.zeros(2, int), _random(4, 2), np.zeros(3, int))


def test_retrieval_is_judged_by_its_split(small: Nave, tmp_path: Path) -> None:
    task = nave_dims(small, tmp_path, "dev", "wordllama:64")
    assert (task.measure, task.depth, task.supervision) == ("nDCG@10", 10, "pairs")
    embedder = load_embedder("wordllama:64")
    assert np.array_equal(task.gallery, embedder.embed_documents(small.texts))
    assert np.array_equal(task.queries, embedder.embed_queries(["sheep", "sea"]))
    assert task.pairs is not None and task.pairs.document_rows.tolist() == [0]
    # "sheep" wants rows 0 and 2: the second and third results of a ranking.
    rows = np.array([[3, 0, 2, 1], [1, 0, 2, 3]])
    value = task.judge(
        Neighbours(rows, np.tile(np.float32(4) - np.arange(4, dtype=np.float32), (2, 1)))
    )
    discounts = 1 / np.log2([2, 3, 4])
    assert value == pytest.approx([discounts[1:].sum() / discounts[:2].sum(), 1])
    assert not (tmp_path / "queries-test.npy").exists()


def test_vectors_are_embedded_once(small: Nave, tmp_path: Path) -> None:
    nave_dims(small, tmp_path, "dev", "wordllama:64")
    np.save(tmp_path / "corpus.npy", np.ones((4, 64), np.float32))
    again = nave_dims(small, tmp_path, "dev", "wordllama:64")
    assert np.array_equal(again.gallery, np.ones((4, 64)))


def test_vectors_of_other_texts_are_refused(small: Nave, tmp_path: Path) -> None:
    for name in ("corpus", "queries-train", "queries-dev"):
        np.save(tmp_path / f"{name}.npy", _random(7, 3))
    with pytest.raises(CsrError, match=r"corpus.npy must have 4 rows, got 7: embed it anew"):
        nave_dims(small, tmp_path, "dev", None)


@pytest.fixture
def small(tmp_path: Path) -> Nave:
    """Return a data set of the shipped one's form: four verses, a train topic, two dev topics."""
    folder = tmp_path / "small"
    (folder / "qrels").mkdir(parents=True)
    verses = ["the shepherd and the flock", "waves of the deep", "a lost lamb", "stones"]
    topics = {"t1": "flocks", "d1": "sheep", "d2": "sea"}
    for name, texts in (("corpus", dict(enumerate(verses))), ("queries", topics)):
        lines = [json.dumps({"_id": str(key), "text": text}) for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    for split, pairs in (("train", ["t1\t0"]), ("dev", ["d1\t0", "d1\t2", "d2\t1"])):
        lines = ["query-id\tcorpus-id\tscore", *(f"{pair}\t1" for pair in pairs)]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    data = Nave()
    data.__dict__["folder"] = folder  # what the cached property would find
    return data
