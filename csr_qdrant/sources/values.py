"""Ids, payload values and vectors as rows hold them, checked one by one."""

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

import numpy as np
import numpy.typing as npt

from csr_qdrant.errors import CsrError
from csr_qdrant.ids import ID_KEY, ExternalId, normalise_id
from csr_qdrant.sources.base import BLOCK_ROWS, MAX_DIMENSION, too_wide

T = TypeVar("T")

MAX_ID_LENGTH = 2**14
MAX_BLOCK_BYTES = 256 * 2**20  # of the texts and payloads of as many rows as make a block
_SUSPECTS_A_PASS = 100_000  # bounds the memory of the second check


def row_id(raw: Any, where: str) -> ExternalId:
    """Return a row's id as `normalise_id` does; raises CsrError that begins with `where`."""
    if isinstance(raw, str) and len(raw) > MAX_ID_LENGTH:
        raise CsrError(
            f"{where}: ids have up to {MAX_ID_LENGTH:,} characters, got {len(raw):,}: is it one?"
        )
    try:
        return normalise_id(checked_text(raw, where) if isinstance(raw, str) else raw)
    except CsrError as error:
        message = str(error)
        raise CsrError(message if message.startswith(where) else f"{where}: {message}") from None


def row_ids(rows: Iterable[tuple[int, Any]], place: str) -> Iterator[ExternalId]:
    """Yield the ids of (number, raw id); raises CsrError that begins with `place` and number."""
    for number, raw in rows:
        # Nearly all ids are like this, and need neither a check nor the text for a message.
        text = type(raw) is str and 0 < len(raw) <= MAX_ID_LENGTH and raw.isascii()
        if text or (type(raw) is int and 0 <= raw < 2**63):
            yield raw
        else:
            yield row_id(raw, f"{place} {number}")


def checked_text(text: Any, where: str) -> str:
    """Return `text` if it is a str that UTF-8 can hold; raises CsrError otherwise."""
    if not isinstance(text, str):
        raise CsrError(f"{where} must be a text, got {type(text).__name__}: correct that row")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise CsrError(
                f"{where} holds half a surrogate pair, which is no text: correct that row"
            ) from None
    return text


def row_payload(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return `row` with values that JSON knows; raises CsrError where there is no such value.

    NaN and infinity, which JSON lacks, become None; dates and times become ISO texts.
    """
    if ID_KEY in row:
        raise CsrError(
            f"{where} has the payload key {ID_KEY!r}, which is reserved for ids: "
            "rename it or make it the id field"
        )
    try:
        return {checked_text(key, where): _json_value(value, where) for key, value in row.items()}
    except RecursionError:
        raise CsrError(f"{where} nests its payload too deeply: flatten it") from None


def _json_value(value: Any, where: str) -> Any:
    if isinstance(value, str):
        return checked_text(value, where)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_json_value(item, where) for item in value]
    if isinstance(value, Mapping):
        return {checked_text(k, where): _json_value(item, where) for k, item in value.items()}
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, np.generic):
        return _json_value(value.item(), where)
    raise CsrError(
        f"{where} has a payload value of type {type(value).__name__}, which JSON lacks: "
        "leave that field out by naming the payload fields"
    )


def row_vector(value: Any, where: str, dimension: int | None) -> npt.NDArray[np.float32]:
    """Return a list of numbers as (d,) float32; raises CsrError that begins with `where`.

    `dimension` is what the rows before had; None for the first row.
    """
    if not isinstance(value, list) or not value:
        raise CsrError(f"{where} must be a list of numbers, got {_shown(value)}: correct that row")
    if dimension is not None and len(value) != dimension:
        raise CsrError(
            f"{where} has {len(value)} numbers where the rows before have {dimension}: "
            "all vectors need the same dimension"
        )
    if len(value) > MAX_DIMENSION:
        raise too_wide(len(value), where)
    if not set(map(type, value)) <= {float, int}:  # bool, an int too, is no number here
        raise CsrError(f"{where} must hold numbers only, got {_shown(value)}: correct that row")
    try:
        with np.errstate(over="ignore"):  # becomes infinity, which indexing reports
            return np.array(value, np.float64).astype(np.float32)
    except OverflowError:
        raise CsrError(f"{where} holds an integer too large for a float: correct it") from None


def _shown(value: Any) -> str:
    if isinstance(value, list):
        odd = next((item for item in value if type(item) not in (float, int)), None)
        return f"{type(odd).__name__} in it" if value else "an empty list"
    return type(value).__name__


def check_unique(name: str, read: Callable[[], Iterable[ExternalId]]) -> int:
    """Return how many ids `read()` gives; raises CsrError if one comes twice or there are none.

    Holds 8 bytes an id: their hashes. Only ids whose hash comes twice are compared themselves, in
    further passes, so that two ids of one hash are no mistake.
    """
    hashes = array("q")
    for external in read():
        hashes.append(hash(external))
    if not hashes:
        raise CsrError(f"{name} holds no rows: write it anew")
    ordered = np.frombuffer(hashes, np.int64)
    ordered.sort()
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    for first in range(0, len(repeated), _SUSPECTS_A_PASS):
        _compare(name, read(), set(repeated[first : first + _SUSPECTS_A_PASS].tolist()))
    return len(hashes)


def _compare(name: str, ids: Iterable[ExternalId], suspects: set[int]) -> None:
    seen: dict[ExternalId, int] = {}
    for row, external in enumerate(ids):
        if hash(external) not in suspects:
            continue
        if external in seen:
            raise CsrError(
                f"{name} has the id {external!r} twice, in rows {seen[external]} and {row} "
                "(counted from 0): give each row an id of its own"
            )
        seen[external] = row


class Held:
    """Adds up what the rows of a block hold, for texts and payloads may be of any size.

    Compressed, a file of a few megabytes could otherwise make blocks that fill the memory.
    """

    def __init__(self, name: str, kind: str) -> None:
        """Take what to call the rows in messages, and the kind of their source."""
        self._name, self._rows = name, BLOCK_ROWS[kind]
        self._row = self._bytes = 0

    def add(self, size: int) -> None:
        """Note a row of `size` bytes; raises CsrError where a block of rows holds too much."""
        if self._row % self._rows == 0:
            self._bytes = 0
        self._row += 1
        self._bytes += size
        if self._bytes > MAX_BLOCK_BYTES:
            raise CsrError(
                f"{self._name} holds more than {MAX_BLOCK_BYTES >> 20} MiB of texts and payload in "
                f"{self._rows} rows: keep large fields elsewhere"
            )


def take(rows: Iterator[T], count: int, name: str) -> list[T]:
    """Return the next `count` rows; raises CsrError if fewer are left."""
    taken = list(islice(rows, count))
    if len(taken) < count:
        raise CsrError(f"{name} ends too early, it changed while being read: open it again")
    return taken
