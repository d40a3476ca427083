"""The queries of `csr query`: from arguments, a file, or lines of stdin; in batches."""

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import CsrError

BATCH = 64  # queries that one call to the engine answers

Contents = Sequence[str] | npt.NDArray[np.float32] | SparseCodes


class Batch(NamedTuple):
    """Queries of one kind."""

    names: list[Any]  # the text of each, or the id of a row
    contents: Contents


def from_texts(texts: Sequence[str]) -> Iterator[Batch]:
    """Yield texts in batches."""
    for start in range(0, len(texts), BATCH):
        part = list(texts[start : start + BATCH])
        yield Batch(part, part)


def from_file(path: Path) -> Iterator[Batch]:
    """Yield the rows of any source: vectors, texts or codes."""
    from csr_qdrant.sources import open_source

    for block in open_source(path).blocks(BATCH):
        contents = next(c for c in (block.vectors, block.texts, block.codes) if c is not None)
        yield Batch(list(block.ids), contents)


def from_stdin() -> Iterator[Batch]:
    """Yield lines of stdin: JSON arrays are vectors, everything else is text.

    Vectors are named by their row, from 0 on. On a terminal every line is answered at once.
    """
    rows = enumerate(_lines())
    size = 1 if sys.stdin.isatty() else BATCH
    while part := list(islice(rows, size)):
        parsed = [(row, _vector(line), line) for row, line in part]
        for is_text, group in groupby(parsed, lambda each: each[1] is None):
            found = list(group)
            if is_text:
                texts = [line for _, _, line in found]
                yield Batch(list(texts), texts)
            else:
                yield Batch([row for row, _, _ in found], _matrix(found))


def _lines() -> Iterator[str]:
    for number, raw in enumerate(sys.stdin.buffer, 1):
        try:
            line = raw.decode().strip()
        except UnicodeDecodeError as error:
            raise CsrError(
                f"line {number} of stdin is not UTF-8 text ({error.reason}): convert it to UTF-8"
            ) from None
        if line:
            yield line


def _vector(line: str) -> npt.NDArray[np.float32] | None:
    """Return the vector that a line holds, None if it is text."""
    if not line.startswith("["):
        return None
    try:
        value = json.loads(line)
        numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in value)
        with np.errstate(over="ignore"):  # infinity is refused with the other vectors
            return np.array(value, np.float32) if value and numbers else None
    except (ValueError, OverflowError, RecursionError):
        return None


def _matrix(rows: list[Any]) -> npt.NDArray[np.float32]:
    size = len(rows[0][1])
    for row, vector, _ in rows:
        if len(vector) != size:
            raise CsrError(
                f"row {row} of stdin has {len(vector)} dimensions where the rows before have "
                f"{size}: all queries need the same"
            )
    return np.stack([vector for _, vector, _ in rows])
