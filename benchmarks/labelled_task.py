"""Labelled vectors on disk: a gallery and queries, each row with the class that it belongs to.

Three layouts are read:

NAME.npz            arrays `data` (n, d) and `label` (n,), as the authors of CSR publish embeddings
                    of ImageNet (W1nd-navigator/CSR-precompute-embeds); or a folder of such files,
                    parts of one in the order of the numbers in their names (`chunk_0_10000.npz`, …)
NAME.npy            vectors, with NAME.labels.npy beside it, as `csr embed` writes them, or
                    NAME_labels.npy, as `extract_fashion` does
NAME-X.npy          vectors, with NAME-y.npy beside it, as RAIVNLab/MRL writes them

Classes are whole numbers of any type, or names, which are numbered in their order. `.npy` files
are memory-mapped. A `.npz` cannot be: it is unpacked once into a folder, if one is given, and
mapped from there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from csr_qdrant.benchmarks.labelled_parts import Parts, natural_key
from csr_qdrant.benchmarks.metrics import Rows
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.errors import CsrError
from csr_qdrant.sources import Source, as_memmap, open_source
from csr_qdrant.sources.files import existing_file, listed
from csr_qdrant.sources.npy import map_npy
from csr_qdrant.sources.npz import array_names, read_array

DATA, LABEL = "data", "label"
PARTS = ("gallery", "queries")
ROWS = 4096  # that are read at a time


@dataclass(frozen=True, kw_only=True)
class LabelledRows:
    """Vectors and the number of each one's class. Raises CsrError if they do not fit together."""

    name: str  # what to call them in messages
    vectors: Matrix  # (n, d), may be a memory map
    labels: Rows  # (n,)

    def __post_init__(self) -> None:
        """Check the number of labels."""
        if self.labels.shape != (len(self.vectors),):
            raise CsrError(
                f"{self.name} has {len(self.vectors)} vectors and labels of shape "
                f"{self.labels.shape}: give one label a vector"
            )


@dataclass(frozen=True, kw_only=True)
class LabelledData:
    """What is searched, and what is searched for. Raises CsrError if it cannot be measured."""

    gallery: LabelledRows
    queries: LabelledRows

    def __post_init__(self) -> None:
        """Check that both have the same dimensions, and the gallery rows of each query's class."""
        gallery, queries = self.gallery, self.queries
        if gallery.vectors.shape[1] != queries.vectors.shape[1]:
            raise CsrError(
                f"{gallery.name} has {gallery.vectors.shape[1]} dimensions and {queries.name} "
                f"{queries.vectors.shape[1]}: embed both with one model"
            )
        lacking = np.setdiff1d(queries.labels, gallery.labels)
        if len(lacking):
            some = ", ".join(map(str, lacking[:5])) + (", …" if len(lacking) > 5 else "")
            raise CsrError(
                f"{gallery.name} has no vector of {len(lacking)} of the classes of {queries.name} "
                f"({some}), which no search could find: number the classes alike, or leave those "
                f"queries out"
            )

    @property
    def classes(self) -> int:
        """Number of classes of the gallery."""
        return len(np.unique(self.gallery.labels))


def load_labelled(folder: Path, *, unpacked: Path | None = None) -> LabelledData:
    """Return the task in `folder`: `gallery` and `queries`, each in one of the layouts above.

    See `load_pair`, which takes the two by any names.
    """
    if not folder.is_dir():
        raise CsrError(f"{folder} is no folder: give one that holds gallery and queries")
    return load_pair(*(_part(folder, name) for name in PARTS), unpacked=unpacked)


def _part(folder: Path, name: str) -> Path:
    options = (f"{name}.npy", f"{name}-X.npy", f"{name}.npz", name)
    for option in options:
        if (folder / option).exists():
            return folder / option
    raise CsrError(f"{folder} holds no {name}: it needs one of {', '.join(options)}")


def load_pair(gallery: Path, queries: Path, *, unpacked: Path | None = None) -> LabelledData:
    """Return gallery and queries, each in one of the layouts above.

    Args:
        gallery: what is searched; ImageNet's train set.
        queries: what is searched for; ImageNet's validation set.
        unpacked: folder for the float32 vectors of what cannot be mapped as it is (`.npz`, other
            types); made where it is missing, and used again. None: they are held in memory.

    Raises CsrError for files that are missing or damaged, other keys and shapes, labels that are
    not one class a vector, NaN or infinity, and classes that the gallery lacks.
    """
    both = [_read(path, unpacked) for path in (gallery, queries)]
    rows = [
        LabelledRows(name=each.name, vectors=each.vectors, labels=labels)
        for each, labels in zip(both, _numbered(both), strict=True)
    ]
    return LabelledData(gallery=rows[0], queries=rows[1])


def load_rows(path: Path, *, unpacked: Path | None = None) -> LabelledRows:
    """Return the vectors and labels of one file, or of a folder of `.npz` parts."""
    read = _read(path, unpacked)
    return LabelledRows(name=read.name, vectors=read.vectors, labels=_numbered([read])[0])


class _Read(NamedTuple):
    name: str
    vectors: Matrix
    labels: npt.NDArray[Any]  # (n,) int64, or names


def _read(path: Path, unpacked: Path | None) -> _Read:
    if path.suffix == ".npy":
        sources: list[Source] = [open_source(path)]
        labels = [_labels(map_npy(_labels_path(path)), str(_labels_path(path)))]
    else:
        files = _parts(path) if path.is_dir() else [existing_file(path)]
        labels = [_npz_labels(file) for file in files]  # before gigabytes are unpacked
        sources = [open_source(file, vector_field=DATA, payload_fields=()) for file in files]
    for source, given in zip(sources, labels, strict=True):
        if len(source) != len(given):
            raise CsrError(
                f"{source.name} has {len(source)} vectors and {len(given)} labels: give one label "
                f"a vector"
            )
    return _Read(str(path), _vectors(Parts(str(path), sources), unpacked), np.concatenate(labels))


def _numbered(read: Sequence[_Read]) -> list[Rows]:
    """Return the class numbers of each; names are numbered alike in all."""
    named = [each.labels.dtype.kind == "U" for each in read]
    if not any(named):
        return [each.labels for each in read]
    if not all(named):
        raise CsrError(
            f"{' and '.join(each.name for each in read)} name their classes differently, by "
            f"numbers and by texts: write the labels of both alike"
        )
    names = np.unique(np.concatenate([each.labels for each in read]))
    return [np.asarray(np.searchsorted(names, each.labels), np.int64) for each in read]


def _labels_path(path: Path) -> Path:
    if path.name.endswith("-X.npy"):
        return path.with_name(path.name.removesuffix("-X.npy") + "-y.npy")
    written = path.with_suffix(".labels.npy")
    return written if written.exists() else path.with_name(f"{path.stem}_labels.npy")


def _parts(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.npz"), key=lambda file: natural_key(file.name))
    if not files:
        raise CsrError(f"{folder} holds no .npz file: give the folder of the parts")
    return files


def _npz_labels(path: Path) -> npt.NDArray[Any]:
    keys, labels = array_names(path), read_array(path, LABEL)
    if labels is None or DATA not in keys:
        raise CsrError(
            f"{path} needs the arrays {DATA!r} and {LABEL!r}, got "
            f"{listed(map(repr, keys))}: write it with "
            f"np.savez(path, data=vectors, label=labels)"
        )
    return _labels(labels, f"{path} array {LABEL!r}")


def _labels(array: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """Return classes, (n,) int64 or names, of (n,) or (n, 1) whole numbers of any type, or names.

    Raises CsrError for anything else.
    """
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iufU":
        raise CsrError(
            f"{name} must be one class a vector, by number or by name, got {array.dtype} of shape "
            f"{array.shape}"
        )
    if array.dtype.kind == "U":
        if len(blank := np.flatnonzero(array == "")):
            raise CsrError(f"{name} has no class for row {blank[0]}: label it, or leave it out")
        return np.asarray(array)
    if array.dtype.kind == "f":
        limit = 2 ** (np.finfo(array.dtype).nmant + 1)  # 1 more than this is not in the type
        if not (np.abs(array) < limit).all() or (array != np.round(array)).any():
            raise CsrError(
                f"{name} must be whole numbers below {limit}, all that {array.dtype} tells "
                f"apart: save class numbers as int64"
            )
    return np.asarray(array, np.int64)


def _vectors(source: Parts, folder: Path | None) -> Matrix:
    """Return all rows, mapped if possible; raises CsrError for NaN and infinity."""
    mapped = source.mapped
    if mapped is not None:
        for _ in source.blocks(ROWS):  # checked as they pass
            pass
        return mapped
    if folder is not None:
        path = folder / f"{Path(source.name).stem}-{source.fingerprint[:12]}.npy"
        return map_npy(path) if path.exists() else as_memmap(source, path)
    held: Matrix | None = None
    for block in source.blocks(ROWS):
        assert block.vectors is not None
        if held is None:
            held = np.empty((len(source), block.vectors.shape[1]), np.float32)
        held[block.start : block.start + len(block)] = block.vectors
    assert held is not None
    return held
