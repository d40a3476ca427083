"""Vectors of any source in one array on disk, written so that a killed run goes on."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from csr_qdrant.atomic import write_json
from csr_qdrant.errors import CsrError
from csr_qdrant.json_files import read_json
from csr_qdrant.sources import Source
from csr_qdrant.sources.base import BLOCK_ROWS
from csr_qdrant.sources.npy import map_npy

F32 = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], F32]


def dense_on_disk(
    source: Source,
    path: Path,
    embed: Embed | None = None,
    *,
    maker: str | None = None,
    on_rows: Callable[[int], None] = lambda done: None,
) -> npt.NDArray[Any]:
    """Return the (n, d) vectors of `source`, readable at any row.

    Vectors that can be mapped already are returned as they are. Others are appended to `path`,
    texts through `embed`; what an earlier run has left there is kept, if `path` + `.json` says that
    it came from the same rows and the same `maker` (the embedder's URI). `on_rows` is called with
    the number of rows that are done.

    Raises CsrError for a source of codes, and for rows that are not finite or of another dimension.
    """
    array: npt.NDArray[Any] | None = getattr(source, "array", None)
    if array is not None and array.flags.c_contiguous and array.dtype.isnative:
        return array
    if source.kind == "codes":
        raise CsrError(f"{source.name} holds codes, dense vectors are needed: name their file")
    write_dense(source, path, embed, maker=maker, on_rows=on_rows)
    return map_npy(path)


def write_dense(
    source: Source,
    path: Path,
    embed: Embed | None,
    *,
    maker: str | None,
    on_rows: Callable[[int], None],
) -> None:
    """Write the vectors of `source` to `path` (.npy, float32), going on where a run stopped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    origin = {"source": source.fingerprint, "rows": len(source), "embedder": maker}
    dimension = _earlier_dimension(path, origin)
    if dimension is None:
        path.unlink(missing_ok=True)
        dimension = _first_dimension(source, embed)
        write_json(_note(path), origin | {"dimension": dimension})
    with path.open("r+b" if path.exists() else "w+b") as file:
        done = _prepared(file, len(source), dimension)
        on_rows(done)
        for block in _blocks(source, embed, done):
            _check(block, dimension, done, source.name)
            file.write(np.ascontiguousarray(block, "<f4").data)
            done += len(block)
            on_rows(done)
        file.flush()
        os.fsync(file.fileno())


def remove_dense(path: Path) -> None:
    """Remove what `write_dense` wrote."""
    path.unlink(missing_ok=True)
    _note(path).unlink(missing_ok=True)


def first_dimension(source: Source, embed: Embed | None) -> int:
    """Return d of the vectors of `source`, of one row if nothing else tells."""
    array = getattr(source, "array", None)
    return int(array.shape[1]) if array is not None else _first_dimension(source, embed)


def _first_dimension(source: Source, embed: Embed | None) -> int:
    first = next(source.blocks(1), None)
    if first is None:
        raise CsrError(f"{source.name} holds no rows: write it anew")
    if first.codes is not None:
        raise CsrError(f"{source.name} holds codes, dense vectors are needed: name their file")
    return int(_vectors(first.vectors, first.texts, embed).shape[1])


def _vectors(vectors: F32 | None, texts: Sequence[str] | None, embed: Embed | None) -> F32:
    if vectors is not None:
        return vectors
    assert texts is not None and embed is not None, "texts come with an embedder"
    return embed(texts)


def _blocks(source: Source, embed: Embed | None, start: int) -> Iterator[F32]:
    for block in source.blocks(BLOCK_ROWS[source.kind], start):
        yield _vectors(block.vectors, block.texts, embed)


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _earlier_dimension(path: Path, origin: dict[str, Any]) -> int | None:
    """Return d of what an earlier run has begun, None if it was another source or embedder."""
    try:
        note = read_json(_note(path))
        dimension = int(note.pop("dimension"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
    return dimension if note == origin else None


def _prepared(file: BinaryIO, rows: int, dimension: int) -> int:
    """Write the header, cut off a row that was half written, and return the number of rows."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, dimension)}
    npy_format.write_array_header_1_0(file, header)  # the same bytes as an earlier run's
    offset, width = file.tell(), 4 * dimension
    done = min(max(file.seek(0, 2) - offset, 0) // width, rows)
    file.truncate(offset + done * width)
    file.seek(offset + done * width)
    return done


def _check(block: F32, dimension: int, first: int, name: str) -> None:
    if block.shape[1] != dimension:
        raise CsrError(
            f"{name} row {first} has {block.shape[1]} dimensions, the rows before have "
            f"{dimension}: all vectors need the same"
        )
    finite = np.isfinite(block).all(axis=1)
    if not finite.all():
        bad = first + int(np.flatnonzero(~finite)[0])
        raise CsrError(
            f"row {bad} of {name} holds NaN, infinity or values too large for float32: mend or "
            f"remove it"
        )
