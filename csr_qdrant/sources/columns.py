"""Columns beside the vectors: ids and payloads, one value a row, read in order."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.ids import ExternalId
from csr_qdrant.sources.files import listed
from csr_qdrant.sources.lines import read_json_lines, read_lines
from csr_qdrant.sources.npy import map_npy
from csr_qdrant.sources.options import ID_FIELDS, SourceOptions
from csr_qdrant.sources.values import Held, check_unique, row_id, row_ids, row_payload

T_co = TypeVar("T_co", covariant=True)

MAX_ITEM_BYTES = 2**20  # of one id or value in an array
_CHUNK_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Column(Generic[T_co]):
    """Values of consecutive rows, readable in order from any row on."""

    name: str
    read: Callable[[int], Iterator[T_co]]  # from row number


def row_numbers() -> Column[ExternalId]:
    """Return the column of ids that are the row numbers; it has no end."""

    def read(start: int) -> Iterator[ExternalId]:
        while True:
            yield start
            start += 1

    return Column("row numbers", read)


def checked_ids(column: Column[ExternalId], rows: int, owner: str) -> Column[ExternalId]:
    """Return `column` if it gives `rows` different ids; raises CsrError otherwise."""
    _same_count(column.name, check_unique(column.name, lambda: column.read(0)), rows, owner)
    return column


def checked_payload(
    column: Column[Mapping[str, Any]], rows: int, owner: str
) -> Column[Mapping[str, Any]]:
    """Return `column` if it gives `rows` payloads; raises CsrError otherwise."""
    _same_count(column.name, sum(1 for _ in column.read(0)), rows, owner)
    return column


def _same_count(name: str, count: int, rows: int, owner: str) -> None:
    if count != rows:
        raise CsrError(
            f"{name} has {count} rows but {owner} has {rows}: they must match row by row"
        )


def ids_file(path: Path, options: SourceOptions) -> Column[ExternalId]:
    """Return the ids of a `.npy`, `.txt` or `.jsonl` file (the latter two gzipped or not).

    Ids of a `.txt` are texts, also those that look like numbers.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix
    if suffix == ".npy":
        return array_ids(map_npy(path), str(path))
    if suffix == ".txt":
        return Column(str(path), lambda start: _line_ids(path, start))
    if suffix == ".jsonl":
        return Column(str(path), lambda start: _json_ids(path, start, options.id_field))
    raise ConfigError(f"{path} cannot be read as ids: give a .npy, .txt or .jsonl file")


def _line_ids(path: Path, start: int) -> Iterator[ExternalId]:
    lines = (
        (number, line.rstrip("\r\n")) for number, line in islice(read_lines(path), start, None)
    )
    return row_ids(lines, f"{path} line")


def _json_ids(path: Path, start: int, field: str | None) -> Iterator[ExternalId]:
    for number, value, _ in read_json_lines(path, start):
        where = f"{path} line {number}"
        yield row_id(_field_of(value, field, where) if isinstance(value, dict) else value, where)


def _field_of(row: dict[str, Any], field: str | None, where: str) -> Any:
    for name in ID_FIELDS if field is None else (field,):
        if name in row:
            return row[name]
    raise CsrError(f"{where} has no id (fields found: {listed(row)}): name the id field")


def payload_file(path: Path, options: SourceOptions) -> Column[Mapping[str, Any]]:
    """Return the payloads of a `.jsonl` or `.jsonl.gz` file, one object a row.

    Where the ids come from the same file, the field that holds them is not part of the payload.
    """
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise ConfigError(f"{path} cannot be read as payloads: give a .jsonl file")
    same = options.ids is not None and options.ids == path
    id_names = ID_FIELDS if options.id_field is None else (options.id_field,)

    def read(start: int) -> Iterator[Mapping[str, Any]]:
        held = Held(str(path), "vectors")
        for number, row, size in read_json_lines(path, start):
            held.add(size)
            where = f"{path} line {number}"
            if not isinstance(row, dict):
                raise CsrError(f"{where} must hold a JSON object, got {type(row).__name__}")
            own = next((name for name in id_names if name in row), None) if same else None
            chosen = options.chosen_payload({k: v for k, v in row.items() if k != own})
            yield row_payload(chosen, where)

    return Column(str(path), read)


def array_ids(ids: npt.NDArray[Any], name: str) -> Column[ExternalId]:
    """Return the ids of a one-dimensional array of integers or texts."""
    check_id_array(ids.dtype, ids.shape, name)

    def read(start: int) -> Iterator[ExternalId]:
        step = chunk_rows(ids.dtype)
        for first in range(start, len(ids), step):
            raw = values_of(ids[first : first + step], name)
            yield from row_ids(enumerate(raw, first), f"{name} row")

    return Column(name, read)


def check_id_array(dtype: np.dtype[Any], shape: tuple[int, ...], name: str) -> None:
    """Raise CsrError unless an array of this kind can hold ids."""
    if len(shape) != 1 or dtype.kind not in "iuUS" or dtype.itemsize > MAX_ITEM_BYTES:
        raise CsrError(
            f"{name} must be a one-dimensional array of integers or texts, "
            f"got shape {shape} of {dtype}: save the ids in that form"
        )


def chunk_rows(dtype: np.dtype[Any]) -> int:
    """Return how many values of `dtype` to read at once."""
    return max(1, _CHUNK_BYTES // max(dtype.itemsize, 1))


def values_of(values: npt.NDArray[Any], name: str) -> list[Any]:
    """Return the array's values as plain Python values; bytes are decoded as UTF-8."""
    try:
        plain = values.tolist()
        return [item.decode() for item in plain] if values.dtype.kind == "S" else plain
    except (ValueError, SystemError) as error:  # no UTF-8, and no characters at all
        raise CsrError(f"{name} holds what is no text ({error}): save it anew") from None


def sequence_ids(ids: Sequence[Any] | npt.NDArray[Any], name: str) -> Column[ExternalId]:
    """Return the ids of a Python sequence or an array."""
    if isinstance(ids, np.ndarray):
        return array_ids(ids, name)

    def read(start: int) -> Iterator[ExternalId]:
        rows = ((row, ids[row]) for row in range(start, len(ids)))
        return row_ids(rows, f"{name} row")

    return Column(name, read)


def sequence_payloads(
    payloads: Sequence[Mapping[str, Any]], name: str
) -> Column[Mapping[str, Any]]:
    """Return the payloads of a Python sequence of mappings."""

    def read(start: int) -> Iterator[Mapping[str, Any]]:
        for row in range(start, len(payloads)):
            yield row_payload(payloads[row], f"{name} row {row}")

    return Column(name, read)
