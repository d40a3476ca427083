"""Labelled tasks from files: the authors' layout, ours and MRL's; what is wrong with a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.benchmarks.labelled_metrics import labelled_judge
from csr_qdrant.benchmarks.labelled_parts import Parts
from csr_qdrant.benchmarks.labelled_task import (
    LabelledData,
    LabelledRows,
    load_labelled,
    load_pair,
    load_rows,
)
from csr_qdrant.benchmarks.neighbours import Matrix, exact_neighbours
from csr_qdrant.errors import CsrError
from csr_qdrant.sources import open_source

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 10, 90)
VECTORS = (np.eye(10)[LABELS] + 0.4 * RNG.standard_normal((90, 10))).astype(np.float32)


def _npz(path: Path, data: Any = VECTORS, label: Any = LABELS, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, data=data, label=label, **more)
    return path


def _npy(path: Path, data: Any = VECTORS, label: Any = LABELS) -> Path:
    np.save(path, data)
    np.save(path.with_name(f"{path.stem}_labels.npy"), label)
    return path


# --- layouts ----------------------------------------------------------------------------------


def test_the_authors_layout_is_unpacked_once(tmp_path: Path) -> None:
    path, folder = _npz(tmp_path / "train.npz"), tmp_path / "unpacked"
    rows = load_rows(path, unpacked=folder)
    assert isinstance(rows.vectors, np.memmap) and rows.labels.dtype == np.int64
    np.testing.assert_array_equal(rows.vectors, VECTORS)
    np.testing.assert_array_equal(rows.labels, LABELS)
    (file,) = folder.iterdir()
    written = file.stat().st_mtime_ns
    load_rows(path, unpacked=folder)
    assert [(f, f.stat().st_mtime_ns) for f in folder.iterdir()] == [(file, written)]
    _npz(path, -VECTORS)  # another file by the same name is unpacked anew
    np.testing.assert_array_equal(load_rows(path, unpacked=folder).vectors, -VECTORS)
    np.testing.assert_array_equal(load_rows(path).vectors, -VECTORS)  # and fits into memory, too


def test_parts_stand_by_their_numbers(tmp_path: Path) -> None:
    for first in range(0, 90, 9):  # chunk_9_18 sorts behind chunk_81_90 by letters
        part = slice(first, first + 9)
        name = f"chunk_{first}_{first + 9}.npz"
        _npz(tmp_path / "train" / name, VECTORS[part].astype(np.float16), LABELS[part])
    for folder in (None, tmp_path / "unpacked"):
        rows = load_rows(tmp_path / "train", unpacked=folder)
        assert rows.vectors.dtype == np.float32
        np.testing.assert_array_equal(rows.vectors, VECTORS.astype(np.float16))
        np.testing.assert_array_equal(rows.labels, LABELS)


def test_vectors_beside_labels_are_mapped(tmp_path: Path) -> None:
    rows = load_rows(_npy(tmp_path / "gallery.npy"))
    assert isinstance(rows.vectors, np.memmap)
    np.testing.assert_array_equal(rows.vectors, VECTORS)
    np.testing.assert_array_equal(rows.labels, LABELS)
    narrow = load_rows(_npy(tmp_path / "half.npy", VECTORS.astype(np.float16)), unpacked=tmp_path)
    assert isinstance(narrow.vectors, np.memmap) and narrow.vectors.dtype == np.float32


def test_the_layout_of_mrl(tmp_path: Path) -> None:
    np.save(tmp_path / "V1_val-X.npy", VECTORS)
    np.save(tmp_path / "V1_val-y.npy", LABELS.astype(np.float16)[:, None])
    rows = load_rows(tmp_path / "V1_val-X.npy")
    np.testing.assert_array_equal(rows.labels, LABELS)
    assert rows.labels.dtype == np.int64


def test_classes_by_name_are_numbered_alike(tmp_path: Path) -> None:
    wnids = np.array([f"n{9000 - 100 * number}" for number in range(10)])[LABELS]
    for name, part in (("gallery", slice(0, 60)), ("queries", slice(60, 66))):
        np.save(tmp_path / f"{name}.npy", VECTORS[part])
        np.save(tmp_path / f"{name}.labels.npy", wnids[part])
    task = load_labelled(tmp_path)
    assert len(set(LABELS[60:66])) < 10  # the queries' own numbering would be another
    assert task.gallery.labels.tolist() == (9 - LABELS[:60]).tolist()
    assert task.queries.labels.tolist() == (9 - LABELS[60:66]).tolist()
    np.save(tmp_path / "queries.labels.npy", LABELS[60:66])
    with pytest.raises(CsrError, match=r"gallery.npy and .*queries.npy name their classes differ"):
        load_labelled(tmp_path)


@pytest.mark.parametrize("names", [("gallery.npy", "queries.npz"), ("gallery", "queries-X.npy")])
def test_a_folder_holds_both(names: tuple[str, str], tmp_path: Path) -> None:
    for name, part in zip(names, (slice(0, 60), slice(60, 90)), strict=True):
        data, label = VECTORS[part], LABELS[part]
        if name.endswith("-X.npy"):
            np.save(tmp_path / name, data)
            np.save(tmp_path / name.replace("-X", "-y"), label)
        elif name.endswith(".npy"):
            _npy(tmp_path / name, data, label)
        else:
            _npz(tmp_path / name if "." in name else tmp_path / name / "one.npz", data, label)
    task = load_labelled(tmp_path)
    np.testing.assert_array_equal(task.gallery.vectors, VECTORS[:60])
    np.testing.assert_array_equal(task.queries.labels, LABELS[60:])
    assert task.classes == 10


def test_a_task_is_measured(tmp_path: Path) -> None:
    gallery = _npz(tmp_path / "train.npz", VECTORS[:60], LABELS[:60])
    queries = _npz(tmp_path / "val.npz", VECTORS[60:], LABELS[60:])
    task = load_pair(gallery, queries)
    found = exact_neighbours(task.queries.vectors, task.gallery.vectors, 10)
    values = labelled_judge(task.gallery.labels, task.queries.labels)(found)
    cosines = (VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)).astype(np.float64)
    nearest = (cosines[60:] @ cosines[:60].T).argmax(axis=1)
    assert values["top1"].tolist() == (LABELS[:60][nearest] == LABELS[60:]).tolist()
    assert 0.5 < values["top1"].mean() < 1


def test_blocks_of_parts_begin_anywhere(tmp_path: Path) -> None:
    files = [_npz(tmp_path / f"{i}.npz", VECTORS[i : i + 30], LABELS[i : i + 30]) for i in (0, 30)]
    sources = [open_source(f, vector_field="data", payload_fields=()) for f in files]
    parts = Parts("both", sources)
    for start in (0, 7, 30, 44, 60):
        blocks = list(parts.blocks(8, start))
        found = [block.vectors for block in blocks if block.vectors is not None]
        np.testing.assert_array_equal(
            np.concatenate([np.empty((0, 10)), *found]), VECTORS[start:60]
        )
        assert [i for block in blocks for i in block.ids] == list(range(start, 60))


# --- bad input --------------------------------------------------------------------------------

BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no file": (lambda f: f / "none.npz", "none.npz does not exist: check the path"),
    "no parts": (lambda f: f, "holds no .npz file: give the folder of the parts"),
    "no archive": (
        lambda f: (f / "x.npz").write_bytes(b"PK\x03\x04 nothing"),
        "x.npz cannot be read as .npz",
    ),
    "another key": (
        lambda f: np.savez(f / "x.npz", data=VECTORS, labels=LABELS),
        r"x.npz needs the arrays 'data' and 'label', got 'data', 'labels': write it with",
    ),
    "no vectors": (
        lambda f: np.savez(f / "x.npz", label=LABELS),
        r"needs the arrays 'data' and 'label', got 'label'",
    ),
    "an array": (
        lambda f: np.save(f / "y.npy", VECTORS) or (f / "y.npy").rename(f / "x.npz"),  # type: ignore[func-returns-value]
        "x.npz cannot be read as .npz",
    ),
    "pickles": (
        lambda f: np.savez(f / "x.npz", data=VECTORS, label=np.array([{}] * 90)),
        "x.npz array .label. holds pickled Python objects, which are never loaded",
    ),
    "lengths": (
        lambda f: _npz(f / "x.npz", label=LABELS[1:]),
        "x.npz has 90 vectors and 89 labels: give one label a vector",
    ),
    "fractions": (
        lambda f: _npz(f / "x.npz", label=LABELS + 0.5),
        r"array 'label' must be whole numbers below 9007199254740992",
    ),
    "missing labels": (
        lambda f: _npz(f / "x.npz", label=np.where(LABELS == 3, np.nan, LABELS)),
        r"array 'label' must be whole numbers",
    ),
    "too many classes for the type": (
        lambda f: _npz(f / "x.npz", label=(LABELS * 500).astype(np.float16)),
        r"whole numbers below 2048, all that float16 tells apart: save class numbers as int64",
    ),
    "one-hot labels": (
        lambda f: _npz(f / "x.npz", label=np.eye(10)[LABELS]),
        r"must be one class a vector, by number or by name, got float64 of shape \(90, 10\)",
    ),
    "bytes": (
        lambda f: _npz(f / "x.npz", label=LABELS.astype("S9")),
        r"by number or by name, got \|S9 of shape \(90,\)",
    ),
    "an image without a class": (
        lambda f: _npz(f / "x.npz", label=np.array(["", *["n1"] * 89])),
        "array 'label' has no class for row 0: label it, or leave it out",
    ),
    "no matrix": (
        lambda f: _npz(f / "x.npz", VECTORS[:, 0]),
        r"x.npz array 'data' must be a matrix of shape \(n, d\), got shape \(90,\)",
    ),
    "NaN": (
        lambda f: _npz(f / "x.npz", np.where(np.arange(90)[:, None] == 41, np.nan, VECTORS)),
        "row 41 of .*x.npz holds NaN or infinity: mend or remove it",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_unusable_files(name: str, tmp_path: Path) -> None:
    make, message = BAD[name]
    made = make(tmp_path)
    path = made if isinstance(made, Path) and made.suffix != ".npy" else tmp_path / "x.npz"
    with pytest.raises(CsrError, match=message) as error:
        load_rows(path, unpacked=tmp_path / "unpacked")
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "unpacked").glob("*.npy"))


def test_infinity_in_a_mapped_file(tmp_path: Path) -> None:
    rows = VECTORS.copy()
    rows[[5, 80], 3] = np.inf, -np.inf
    with pytest.raises(CsrError, match=r"row 5 of .*gallery.npy holds NaN or infinity"):
        load_rows(_npy(tmp_path / "gallery.npy", rows))
    # Sums that overflow are no infinity of the data.
    big = _npy(tmp_path / "big.npy", np.full((90, 10), 3e38, np.float32))
    assert np.isfinite(load_rows(big).vectors).all()


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    np.save(tmp_path / "alone.npy", VECTORS)
    with pytest.raises(CsrError, match=r"alone_labels.npy does not exist"):
        load_rows(tmp_path / "alone.npy")
    _npz(tmp_path / "parts" / "1.npz")
    _npz(tmp_path / "parts" / "2.npz", VECTORS[:, :7])
    for folder in (None, tmp_path / "unpacked"):
        with pytest.raises(
            CsrError, match=r"2.npz has 7 dimensions, the parts before it 10: embed"
        ):
            load_rows(tmp_path / "parts", unpacked=folder)


def _rows(name: str, vectors: Matrix, labels: Any) -> LabelledRows:
    return LabelledRows(name=name, vectors=vectors, labels=np.asarray(labels))


def test_tasks_that_cannot_be_measured(tmp_path: Path) -> None:
    gallery = _rows("train", VECTORS, LABELS)
    with pytest.raises(CsrError, match=r"val has 2 vectors and labels of shape \(3,\)"):
        _rows("val", VECTORS[:2], [1, 2, 3])
    with pytest.raises(CsrError, match="train has 10 dimensions and val 9: embed both with one"):
        LabelledData(gallery=gallery, queries=_rows("val", VECTORS[:2, :9], [1, 2]))
    queries = _rows("val", VECTORS[:9], [0, 1, 2, *range(10, 16)])
    with pytest.raises(
        CsrError, match=r"no vector of 6 of the classes of val \(10, 11, 12, 13, 14, …"
    ):
        LabelledData(gallery=gallery, queries=queries)
    with pytest.raises(CsrError, match=r"holds no queries: it needs one of queries.npy, queries-X"):
        load_labelled(_npz(tmp_path / "gallery.npz").parent)
    with pytest.raises(CsrError, match="none is no folder"):
        load_labelled(tmp_path / "none")
