"""Lines of text files, gzipped or not: decoded, numbered, and bounded in length."""

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from csr_qdrant.errors import CsrError
from csr_qdrant.sources.files import reason
from csr_qdrant.sources.values import MAX_BLOCK_BYTES

MAX_LINE_BYTES = 16 * 2**20  # a longer line is not a row, and would fill the memory
_CONTAINER_BYTES = 64  # of an empty list or object: the only values far larger than their text
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for reading bytes, through gzip if it ends with `.gz`.

    Raises CsrError, from within the block too, if the file cannot be read or is damaged.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield cast(IO[bytes], file)  # gzip's class reads like any binary file
    except (OSError, EOFError, zlib.error) as error:
        raise CsrError(
            f"{path} cannot be read ({reason(error)}): check or write it anew"
        ) from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line with its line end); raises CsrError for what is no text."""
    with opened(path) as file:
        number = 0
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                raise CsrError(
                    f"{path} line {number} is longer than {MAX_LINE_BYTES >> 20} MiB: "
                    "put every row on a line of its own"
                )
            yield number, _decoded(raw, path, number)


def _decoded(raw: bytes, path: Path, number: int) -> str:
    try:
        return (raw.removeprefix(_BYTE_ORDER_MARK) if number == 1 else raw).decode()
    except UnicodeDecodeError as error:
        raise CsrError(
            f"{path} line {number} is not UTF-8 text ({error.reason}): convert the file to UTF-8"
        ) from None


class JsonLine(NamedTuple):
    """A line of a file of JSON lines."""

    number: int  # from 1
    value: Any
    size: int  # what the value takes in memory, roughly, in bytes


def read_json_lines(path: Path, skip: int = 0) -> Iterator[JsonLine]:
    """Yield every line that is not blank, less the first `skip`."""
    for number, line in read_lines(path):
        if line.isspace():
            continue
        if skip:
            skip -= 1
            continue
        where = f"{path} line {number}"
        size = len(line) + _CONTAINER_BYTES * (line.count("[") + line.count("{"))
        if size > MAX_BLOCK_BYTES:
            raise CsrError(f"{where} holds too many lists and objects: simplify it")
        yield JsonLine(number, parse_json(line, where), size)


def parse_json(text: str, where: str) -> Any:
    """Return the JSON value of `text`; raises CsrError that begins with `where`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CsrError(
            f"{where} is not valid JSON ({reason(error)}): correct or remove it"
        ) from None
