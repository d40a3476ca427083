"""Vectors in a `.npz` file, compressed or not, streamed a few rows at a time."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from csr_qdrant.errors import CsrError
from csr_qdrant.ids import ExternalId
from csr_qdrant.sources.arrays import Payloads, as_float32, beside, check_columns, side_files
from csr_qdrant.sources.base import Block
from csr_qdrant.sources.columns import (
    MAX_ITEM_BYTES,
    Column,
    check_id_array,
    chunk_rows,
    values_of,
)
from csr_qdrant.sources.files import Files, FileSource, Range, listed, reason
from csr_qdrant.sources.npy import Header, check_matrix, read_header
from csr_qdrant.sources.options import SourceOptions
from csr_qdrant.sources.values import row_ids, row_payload

VECTOR_KEYS = ("vectors", "embeddings", "data")
ID_KEY = "ids"
MAX_ARRAY_BYTES = 2**30  # of an array that is read whole


def open_npz(path: Path, options: SourceOptions) -> FileSource:
    """Open a `.npz`: a matrix of vectors, perhaps `ids`, and columns that become payload."""
    options.refuse(path, "text_field")
    files = Files.opened(path, options.ids, options.payload, how=options.as_text())
    members = _members(path)
    vectors = _vectors_member(path, members, options.vector_field)
    rows = vectors.header.shape[0]
    ids, payloads = side_files(options)
    ids = ids or _ids_member(path, members, options.id_field)
    payloads = payloads or _payload_members(members, rows, options)
    check_columns(ids, payloads, rows, str(path))
    read = partial(_blocks, vectors, ids, payloads)
    return FileSource(name=str(path), kind="vectors", files=files, rows=rows, read=read)


@dataclass(frozen=True)
class _Member:
    """One array of the archive."""

    path: Path
    key: str
    header: Header

    @property
    def name(self) -> str:
        return f"{self.path} array {self.key!r}"

    @contextmanager
    def opened(self, row: int) -> Iterator[IO[bytes]]:
        """Open the array's bytes at the given row."""
        row_bytes = self.header.end - self.header.offset
        row_bytes //= max((1, *self.header.shape[:1]))
        with _archive(self.path) as archive, archive.open(f"{self.key}.npy") as file:
            file.seek(self.header.offset + row * row_bytes)
            yield file

    def read(self, file: IO[bytes], count: int) -> npt.NDArray[Any]:
        """Return the next `count` rows of an opened member."""
        shape = (count, *self.header.shape[1:])
        size = int(np.prod(shape)) * self.header.dtype.itemsize
        raw = file.read(size)
        if len(raw) < size:
            raise CsrError(f"{self.name} is truncated: write the file anew")
        return np.frombuffer(raw, self.header.dtype).reshape(shape)


def read_array(path: Path, key: str) -> npt.NDArray[Any] | None:
    """Return one array of the file, None if there is none called `key`.

    Raises CsrError for pickled objects, and for more than `MAX_ARRAY_BYTES`: compressed, any size
    may be claimed by a small file.
    """
    member = _members(path).get(key)
    if member is None:
        return None
    member.header.refuse_objects(member.name)
    size = member.header.end - member.header.offset
    if size > MAX_ARRAY_BYTES:
        raise CsrError(
            f"{member.name} takes {size:,} bytes, above {MAX_ARRAY_BYTES:,}: save it as a .npy file"
        )
    with member.opened(0) as file:
        raw = file.read(size)
    if len(raw) < size:
        raise CsrError(f"{member.name} is truncated: write the file anew")
    values = np.frombuffer(raw, member.header.dtype)
    return values.reshape(member.header.shape, order="F" if member.header.fortran else "C")


def array_names(path: Path) -> list[str]:
    """Return the names of the arrays in the file."""
    return list(_members(path))


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open the archive; what fails while it is open, in the block too, becomes a CsrError."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, UnicodeError) as error:
        # RuntimeError: encrypted members, and (as NotImplementedError) unknown compressions
        raise CsrError(f"{path} cannot be read as .npz ({reason(error)}): write it anew") from error


def _members(path: Path) -> dict[str, _Member]:
    """Return the arrays of the archive by key; only their headers are read."""
    found = {}
    with _archive(path) as archive:
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                continue
            key = info.filename.removesuffix(".npy")
            with archive.open(info) as file:
                header = read_header(file, f"{path} array {key!r}")
            if not header.dtype.hasobject and info.file_size < header.end:
                raise CsrError(f"{path} array {key!r} is truncated: write the file anew")
            found[key] = _Member(path, key, header)
    return found


def _chosen(members: Mapping[str, _Member], keys: Sequence[str]) -> _Member | None:
    member = next((members[key] for key in keys if key in members), None)
    if member is not None:
        member.header.refuse_objects(member.name)
        if member.header.fortran and len(member.header.shape) > 1:
            raise CsrError(
                f"{member.name} is in Fortran order, which cannot be streamed: "
                "save np.ascontiguousarray of it"
            )
    return member


def _vectors_member(path: Path, members: Mapping[str, _Member], field: str | None) -> _Member:
    keys = VECTOR_KEYS if field is None else (field,)
    member = _chosen(members, keys)
    if member is None:
        raise CsrError(
            f"{path} has no array {' or '.join(map(repr, keys))} "
            f"(found: {listed(members)}): name the vector field"
        )
    check_matrix(member.header.shape, member.header.dtype, member.name)
    return member


def _ids_member(
    path: Path, members: Mapping[str, _Member], field: str | None
) -> Column[ExternalId] | None:
    member = _chosen(members, (field or ID_KEY,))
    if member is None and field is not None:
        raise CsrError(
            f"{path} has no array {field!r} (found: {listed(members)}): name the id field"
        )
    if member is None:
        return None
    check_id_array(member.header.dtype, member.header.shape, member.name)
    return Column(member.name, partial(_read_ids, member))


def _read_ids(member: _Member, start: int) -> Iterator[ExternalId]:
    return row_ids(enumerate(_read_values(member, start), start), f"{member.name} row")


def _read_values(member: _Member, start: int) -> Iterator[Any]:
    rows, step = member.header.shape[0], chunk_rows(member.header.dtype)
    with member.opened(start) as file:
        for first in range(start, rows, step):
            yield from values_of(member.read(file, min(step, rows - first)), member.name)


def _payload_members(
    members: Mapping[str, _Member], rows: int, options: SourceOptions
) -> Payloads | None:
    """Return the one-dimensional arrays of `rows` values as a payload column."""
    taken = {options.id_field or ID_KEY}
    wanted = [key for key in members if key not in taken]
    if options.payload_fields is not None:
        wanted = list(options.payload_fields)
    columns = {}
    for key in wanted:
        if key in members and members[key].header.shape == (rows,):
            columns[key] = _payload_member(members[key])
        elif options.payload_fields is not None:
            raise CsrError(
                f"{key!r} is no column of {rows} values (arrays found: {listed(members)}): "
                "drop it from the payload fields"
            )
    if not columns:
        return None
    return Column(", ".join(member.name for member in columns.values()), partial(_rows, columns))


def _payload_member(member: _Member) -> _Member:
    member.header.refuse_objects(member.name)
    if member.header.dtype.kind not in "biufUS" or member.header.dtype.itemsize > MAX_ITEM_BYTES:
        raise CsrError(
            f"{member.name} cannot be payload, its type is {member.header.dtype}: "
            "leave it out by naming the payload fields"
        )
    return member


def _rows(columns: Mapping[str, _Member], start: int) -> Iterator[Mapping[str, Any]]:
    where = f"{next(iter(columns.values())).path} row"
    streams = [_read_values(member, start) for member in columns.values()]
    for row, values in enumerate(zip(*streams, strict=True), start):
        yield row_payload(dict(zip(columns, values, strict=True)), f"{where} {row}")


def _blocks(
    vectors: _Member,
    ids: Column[ExternalId] | None,
    payloads: Payloads | None,
    ranges: Sequence[Range],
) -> Iterator[Block]:
    with vectors.opened(ranges[0][0]) as file:

        def read(first: int, last: int) -> dict[str, Any]:
            return {"vectors": as_float32(vectors.read(file, last - first))}

        yield from beside(read, ids, payloads, ranges)
