"""Rows of named fields, one after the other: JSON lines and CSV, gzipped or not."""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from csr_qdrant.errors import CsrError
from csr_qdrant.ids import ExternalId
from csr_qdrant.sources.base import Block
from csr_qdrant.sources.fields import Fields
from csr_qdrant.sources.files import Files, FileSource, Range, listed, reason
from csr_qdrant.sources.lines import MAX_LINE_BYTES, parse_json, read_json_lines, read_lines
from csr_qdrant.sources.options import SourceOptions
from csr_qdrant.sources.values import Held, check_unique, row_id, row_payload, row_vector, take


class Record(NamedTuple):
    """The fields of one row, and where it stands, for messages."""

    where: str
    fields: dict[str, Any]
    size: int  # what the row takes in memory, roughly, in bytes


_NUMBER_BYTES = 25  # that a number takes as text at most: vectors are not held in that form

Reader = Callable[[int], Iterator[Record]]  # from row number


class _Row(NamedTuple):
    id: ExternalId
    vector: npt.NDArray[np.float32] | None  # (d,)
    text: str | None
    payload: dict[str, Any]


def open_jsonl(path: Path, options: SourceOptions) -> FileSource:
    """Open a `.jsonl` or `.jsonl.gz` file, one object a line."""
    return open_records(path, options, partial(read_jsonl, path))


def open_csv(path: Path, options: SourceOptions) -> FileSource:
    """Open a `.csv` or `.csv.gz` file with a header; vectors are JSON lists in their cells.

    All other values, ids too, are texts.
    """
    return open_records(path, options, partial(read_csv, path, options))


def open_records(
    path: Path, options: SourceOptions, read: Reader, *, text_ids: bool = False
) -> FileSource:
    """Open what `read` gives: every row is parsed once, so that errors come now.

    With `text_ids`, integer ids become texts.
    """
    options.refuse(path, "ids", "payload")
    files = Files.opened(path, how=options.as_text())
    first = next(read(0), None)
    if first is None:
        raise CsrError(f"{path} holds no rows: write it anew")
    fields = Fields.resolved(list(first.fields), options, str(path))
    table = _Table(str(path), fields, read, text_ids)
    rows = check_unique(str(path), table.ids)
    table.check_payload_fields()
    return FileSource(name=str(path), kind=fields.kind, files=files, rows=rows, read=table.blocks)


@dataclass(frozen=True)
class _Table:
    """Records and what their fields mean."""

    name: str
    fields: Fields
    read: Reader
    text_ids: bool

    def ids(self) -> Iterator[ExternalId]:
        return (row.id for row in self._rows(0))

    def check_payload_fields(self) -> None:
        """Raise CsrError if a payload field that was asked for stands in no row."""
        if not self.fields.options.payload_fields:
            return
        missing = set(self.fields.options.payload_fields)
        found: dict[str, None] = {}
        for record in self.read(0):
            found.update(dict.fromkeys(record.fields))
            missing -= record.fields.keys()
            if not missing:
                return
        raise CsrError(
            f"{self.name} has no field {sorted(missing)[0]!r} (found: {listed(found)}): "
            "drop it from the payload fields"
        )

    def blocks(self, ranges: Sequence[Range]) -> Iterator[Block]:
        rows = self._rows(ranges[0][0])
        for first, last in ranges:
            part = take(rows, last - first, self.name)
            vectors = [row.vector for row in part if row.vector is not None]
            yield Block(
                first,
                [row.id for row in part],
                vectors=np.stack(vectors) if vectors else None,
                texts=None if vectors else [row.text or "" for row in part],
                payloads=[row.payload for row in part],
            )

    def _rows(self, start: int) -> Iterator[_Row]:
        dimension = None
        held = Held(self.name, self.fields.kind)
        for number, record in enumerate(self.read(start), start):
            row = self._parsed(record, number, dimension)
            dimension = None if row.vector is None else len(row.vector)
            held.add(max(0, record.size - _NUMBER_BYTES * (dimension or 0)))
            yield row

    def _parsed(self, record: Record, number: int, dimension: int | None) -> _Row:
        where, row, _ = record
        fields, vector, text = self.fields, None, None
        external: Any = number if fields.id is None else _field(record, fields.id)
        if self.text_ids and type(external) is int:
            external = str(external)
        if fields.vector is None:
            text = fields.joined_text(row, where)
        else:
            place = f"{where} field {fields.vector!r}"
            vector = row_vector(_field(record, fields.vector), place, dimension)
        payload = {name: row[name] for name in fields.payload_names(row)}
        return _Row(row_id(external, where), vector, text, row_payload(payload, where))


def _field(record: Record, name: str) -> Any:
    if name not in record.fields:
        raise CsrError(
            f"{record.where} has no field {name!r} (found: {listed(record.fields)}): "
            "every row needs it"
        )
    return record.fields[name]


def read_jsonl(path: Path, start: int) -> Iterator[Record]:
    """Yield the objects of a file of JSON lines from row `start` on."""
    for number, value, size in read_json_lines(path, start):
        where = f"{path} line {number}"
        if not isinstance(value, dict):
            raise CsrError(f"{where} must hold a JSON object, got {type(value).__name__}")
        yield Record(where, value, size)


def read_csv(path: Path, options: SourceOptions, start: int) -> Iterator[Record]:
    """Yield the rows of a CSV file from row `start` on; cells of the vector field are parsed."""
    # The limit is the process's; the default of 128 KiB is less than one long vector or text.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    lines = _RowLines(path)
    reader = csv.reader(lines, strict=True)
    try:
        header = _header(path, next(reader, []))
        vector = Fields.resolved(header, options, str(path)).vector
        for number, cells in enumerate(lines.rows(reader)):
            if number >= start:
                yield _csv_record(f"{path} line {reader.line_num}", header, cells, vector)
    except csv.Error as error:
        raise CsrError(
            f"{path} line {reader.line_num} is not valid CSV ({reason(error)}): correct it"
        ) from None


class _RowLines(Iterator[str]):
    """The lines of a CSV file; a row of many, which quoted cells may be, is bounded in length."""

    def __init__(self, path: Path) -> None:
        self._path, self._lines, self._length = path, read_lines(path), 0

    def __next__(self) -> str:
        number, line = next(self._lines)
        self._length += len(line)
        if self._length > MAX_LINE_BYTES:
            raise CsrError(
                f"{self._path} line {number} goes on with a row that is longer than "
                f"{MAX_LINE_BYTES >> 20} MiB: is a quote never closed?"
            )
        return line

    def rows(self, reader: Iterator[list[str]]) -> Iterator[list[str]]:
        """Yield the rows of `reader` that are not empty."""
        for cells in reader:
            self._length = 0
            if cells:
                yield cells


def _header(path: Path, names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise CsrError(f"{path} has the column {twice!r} twice: rename one of them")
    return names


def _csv_record(where: str, header: list[str], cells: list[str], vector: str | None) -> Record:
    if len(cells) != len(header):
        raise CsrError(f"{where} has {len(cells)} cells but the header has {len(header)}")
    row: dict[str, Any] = dict(zip(header, cells, strict=True))
    if vector is not None:
        row[vector] = parse_json(row[vector], f"{where} field {vector!r}")
    return Record(where, row, sum(map(len, cells)))
