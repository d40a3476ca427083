"""Vectors that lie in an array: in memory, or mapped from a `.npy` file."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from csr_qdrant.ids import ExternalId
from csr_qdrant.sources.base import Block
from csr_qdrant.sources.columns import (
    Column,
    checked_ids,
    checked_payload,
    ids_file,
    payload_file,
    row_numbers,
    sequence_ids,
    sequence_payloads,
)
from csr_qdrant.sources.files import Files, FileSource, Range, block_ranges
from csr_qdrant.sources.npy import check_matrix, map_npy
from csr_qdrant.sources.options import SourceOptions
from csr_qdrant.sources.values import take

Ids = Column[ExternalId]
Payloads = Column[Mapping[str, Any]]


class ArraySource:
    """A source over an (n, d) floating array or memory map, with ids and payloads beside it."""

    kind = "vectors"

    def __init__(
        self,
        vectors: npt.NDArray[Any],
        ids: Sequence[Any] | npt.NDArray[Any] | None = None,
        payloads: Sequence[Mapping[str, Any]] | None = None,
        *,
        name: str = "vectors",
    ) -> None:
        """Take (n, d) `vectors`; without `ids` the row numbers are the ids.

        Raises CsrError for other shapes and dtypes, unequal lengths and ids that come twice.
        """
        self.name = name
        self.array = np.asanyarray(vectors)
        check_matrix(self.array.shape, self.array.dtype, name)
        self._ids = None if ids is None else sequence_ids(ids, f"ids of {name}")
        self._payloads = (
            None if payloads is None else sequence_payloads(payloads, f"payloads of {name}")
        )
        check_columns(self._ids, self._payloads, len(self), name)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.array)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all values, ids and payloads: reads everything once."""
        digest = hashlib.sha256(f"{self.array.shape} {self.array.dtype}".encode())
        for first in range(0, len(self), 4096):
            digest.update(np.ascontiguousarray(self.array[first : first + 4096]).data)
        for column in (self._ids, self._payloads):
            digest.update(b"\0column")
            for value in () if column is None else column.read(0):
                digest.update(json.dumps(value, sort_keys=True).encode() + b"\n")
        return digest.hexdigest()

    def blocks(self, size: int, start: int = 0) -> Iterator[Block]:
        """Yield blocks; float32 vectors in C order are views of the array."""
        ranges = block_ranges(len(self), size, start)
        read = partial(_read_vectors, self.array)
        return beside(read, self._ids, self._payloads, ranges) if ranges else iter(())


def open_npy(path: Path, options: SourceOptions) -> FileSource:
    """Open a `.npy` file, memory-mapped, and the files that `options` names."""
    options.refuse(path, "text_field", "vector_field")
    files = Files.opened(path, options.ids, options.payload, how=options.as_text())
    vectors = map_npy(path)
    check_matrix(vectors.shape, vectors.dtype, str(path))
    ids, payloads = side_files(options)
    check_columns(ids, payloads, len(vectors), str(path))
    read = partial(beside, partial(_read_vectors, vectors), ids, payloads)
    return FileSource(
        name=str(path), kind="vectors", files=files, rows=len(vectors), read=read, array=vectors
    )


def _read_vectors(array: npt.NDArray[Any], first: int, last: int) -> dict[str, Any]:
    return {"vectors": as_float32(array[first:last])}


def side_files(options: SourceOptions) -> tuple[Ids | None, Payloads | None]:
    """Return the columns of the files that `options` names."""
    ids = None if options.ids is None else ids_file(options.ids, options)
    payloads = None if options.payload is None else payload_file(options.payload, options)
    return ids, payloads


def check_columns(ids: Ids | None, payloads: Payloads | None, rows: int, name: str) -> None:
    """Raise CsrError unless both columns fit to the `rows` of `name`; reads them once."""
    if ids is not None:
        checked_ids(ids, rows, name)
    if payloads is not None:
        checked_payload(payloads, rows, name)


def as_float32(rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return rows as a plain C-contiguous float32 array; what is too large becomes infinity."""
    with np.errstate(over="ignore"):  # infinity is for indexing to report, with its row
        return np.asarray(np.ascontiguousarray(rows, np.float32))


def beside(
    read: Callable[[int, int], dict[str, Any]],
    ids: Ids | None,
    payloads: Payloads | None,
    ranges: Sequence[Range],
) -> Iterator[Block]:
    """Yield a block for each range, from `read(first, last)` and the columns beside it."""
    start = ranges[0][0]
    ids = ids or row_numbers()
    id_rows = ids.read(start)
    payload_rows = payloads.read(start) if payloads else None
    for first, last in ranges:
        yield Block(
            first,
            take(id_rows, last - first, ids.name),
            payloads=take(payload_rows, last - first, payloads.name)
            if payloads and payload_rows
            else None,
            **read(first, last),
        )
