"""Parquet files, read a batch at a time; resuming skips whole row groups."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from csr_qdrant.errors import CsrError, MissingExtraError
from csr_qdrant.ids import ExternalId
from csr_qdrant.sources.arrays import as_float32
from csr_qdrant.sources.base import MAX_DIMENSION, Block, too_wide
from csr_qdrant.sources.fields import Fields
from csr_qdrant.sources.files import Files, FileSource, Range, block_ranges, listed, reason
from csr_qdrant.sources.options import TEXT_FIELD, TITLE_FIELD, SourceOptions
from csr_qdrant.sources.values import check_unique, row_ids, row_payload

try:
    import pyarrow
    from pyarrow import compute, parquet, types
except ImportError as error:
    raise MissingExtraError("pyarrow", "parquet") from error

_SCAN_ROWS = 16_384
_BUFFER_BYTES = 2**20
_MAX_BATCH_ROWS = 65_536


def open_parquet(path: Path, options: SourceOptions) -> FileSource:
    """Open a `.parquet` file whose vectors are a column of lists or fixed-size lists of floats."""
    options.refuse(path, "ids", "payload")
    files = Files.opened(path, how=options.as_text())
    with _opened(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
    table = _Table(path, _fields(path, schema, options), schema, rows)
    table.check_types()
    if table.fields.id is None and not rows:
        raise CsrError(f"{path} holds no rows: write it anew")
    if table.fields.id is not None:
        check_unique(str(path), table.ids)
    if table.fields.vector is not None:
        next(table.blocks([(0, 1)]))  # an unusable first vector is reported now
    kind = table.fields.kind
    return FileSource(name=str(path), kind=kind, files=files, rows=rows, read=table.blocks)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        # Buffered, or a batch would hold the whole column of its row group.
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES) as file:
            yield file
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        raise CsrError(
            f"{path} cannot be read as parquet ({reason(error)}): write it anew"
        ) from error


def _fields(path: Path, schema: Any, options: SourceOptions) -> Fields:
    names = schema.names
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise CsrError(f"{path} has the column {twice!r} twice: rename one of them")
    fields = Fields.resolved(names, options, str(path))
    missing = fields.missing_payload(names)
    if missing:
        raise CsrError(
            f"{path} has no column {missing[0]!r} (found: {listed(names)}): "
            "drop it from the payload fields"
        )
    return fields


@dataclass(frozen=True)
class _Table:
    """A parquet file and what its columns mean."""

    path: Path
    fields: Fields
    schema: Any
    rows: int

    def check_types(self) -> None:
        """Raise CsrError if the vector or text column has another type."""
        name = self.fields.vector or self.fields.text
        kind = self.schema.field(name).type
        if self.fields.text is not None:
            kind = kind.value_type if types.is_dictionary(kind) else kind
            fits, wanted = types.is_string(kind) or types.is_large_string(kind), "texts"
        else:
            fits, wanted = _is_list(kind) and types.is_floating(kind.value_type), "lists of floats"
        if not fits:
            raise CsrError(
                f"{self.path} column {name!r} must hold {wanted}, got {kind}: convert it"
            )

    def ids(self) -> Iterator[ExternalId]:
        ranges = block_ranges(self.rows, _SCAN_ROWS, 0)
        for (first, _), table in zip(ranges, self._tables(ranges, [self.fields.id]), strict=True):
            yield from self._ids(table, first)

    def _ids(self, table: Any, first: int) -> list[ExternalId]:
        raw = self._plain(table.column(self.fields.id), first)
        return list(row_ids(enumerate(raw, first), f"{self.path} row"))

    def blocks(self, ranges: Sequence[Range]) -> Iterator[Block]:
        fields, names = self.fields, self.schema.names
        payload = fields.payload_names(names)
        text = [fields.text, *([TITLE_FIELD] if fields.text == TEXT_FIELD else [])]
        text = [name for name in text if name in names]
        needed = {fields.id, fields.vector, *text, *payload}
        tables = self._tables(ranges, [name for name in names if name in needed])
        dimension = None
        for (first, last), table in zip(ranges, tables, strict=True):
            vectors = None
            if fields.vector is not None:
                vectors = self._vectors(table.column(fields.vector), first, dimension)
                dimension = vectors.shape[1]
            yield Block(
                first,
                range(first, last) if fields.id is None else self._ids(table, first),
                vectors=vectors,
                texts=self._texts(table.select(text), first),
                payloads=self._payloads(table.select(payload), first) if payload else None,
            )

    def _texts(self, table: Any, first: int) -> list[str] | None:
        if self.fields.text is None:
            return None
        rows = enumerate(self._plain(table, first), first)
        return [self.fields.joined_text(row, f"{self.path} row {number}") for number, row in rows]

    def _payloads(self, table: Any, first: int) -> list[dict[str, Any]]:
        rows = enumerate(self._plain(table, first), first)
        return [row_payload(row, f"{self.path} row {number}") for number, row in rows]

    def _plain(self, values: Any, first: int) -> list[Any]:
        """Return a column or table as plain values; the file need not keep to UTF-8."""
        try:
            return list(values.to_pylist())
        except UnicodeDecodeError as error:
            raise CsrError(
                f"{self.path} holds what is no UTF-8 text, from row {first} on "
                f"({error.reason}): write it anew"
            ) from None

    def _vectors(self, column: Any, first: int, dimension: int | None) -> npt.NDArray[np.float32]:
        """Return a column of lists as (n, d) float32; raises CsrError that names the bad row."""
        where = f"{self.path} column {self.fields.vector!r} row"
        if column.null_count:
            row = first + int(np.argmax(column.is_null().to_numpy()))
            raise CsrError(f"{where} {row} is missing: every row needs a vector")
        lengths = compute.list_value_length(column).to_numpy()
        dimension = int(lengths[0]) if dimension is None else dimension
        if not dimension:
            raise CsrError(f"{where} {first} is empty: every row needs a vector")
        if dimension > MAX_DIMENSION:
            raise too_wide(dimension, f"{where} {first}")
        odd = lengths != dimension
        if odd.any():
            row = int(np.argmax(odd))
            raise CsrError(
                f"{where} {first + row} has {lengths[row]} numbers where the rows before have "
                f"{dimension}: all vectors need the same dimension"
            )
        values = compute.list_flatten(column)
        if values.null_count:
            row = first + int(np.argmax(values.is_null().to_numpy())) // dimension
            raise CsrError(f"{where} {row} has a missing number: correct that row")
        return as_float32(values.to_numpy().reshape(-1, dimension))

    def _tables(self, ranges: Sequence[Range], columns: Sequence[Any]) -> Iterator[Any]:
        """Yield one table for each range, skipping the row groups before the first."""
        if not ranges:
            return
        start, last = ranges[0]
        with _opened(self.path) as file:
            group, before = _row_group(file.metadata, start)
            batches = file.iter_batches(
                min(last - start, _MAX_BATCH_ROWS),
                row_groups=range(group, file.num_row_groups),
                columns=list(columns),
            )
            wanted = _skipped(batches, start - before)
            held: list[Any] = []
            for first, last in ranges:
                held, table = _taken(held, wanted, last - first)
                yield table


def _row_group(metadata: Any, row: int) -> tuple[int, int]:
    """Return the number of the row group that holds `row`, and the rows before that group."""
    before = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if row < before + rows:
            return group, before
        before += rows
    return metadata.num_row_groups, before


def _skipped(batches: Iterator[Any], rows: int) -> Iterator[Any]:
    """Yield the batches without their first `rows` rows."""
    for batch in batches:
        if rows < len(batch):
            yield batch.slice(rows)
        rows = max(0, rows - len(batch))


def _taken(held: list[Any], batches: Iterator[Any], rows: int) -> tuple[list[Any], Any]:
    """Return what is left over, and a table of the next `rows` rows."""
    count = sum(len(batch) for batch in held)
    while count < rows:
        batch = next(batches, None)
        if batch is None:
            raise CsrError("the parquet file has fewer rows than it says: write it anew")
        held.append(batch)
        count += len(batch)
    table = pyarrow.Table.from_batches(held)
    return table.slice(rows).to_batches(), table.slice(0, rows)


def _is_list(kind: Any) -> bool:
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))
