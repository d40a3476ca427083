"""The files behind a source: they exist, hold something, and have not changed since."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy.typing as npt

from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.sources.base import Block

_REASON_LENGTH = 200
_NAMES, _NAME_LENGTH = 30, 60  # of what a file holds, in messages

Range = tuple[int, int]  # first row, row after the last


def reason(error: Exception) -> str:
    """Return the first line of an error of another library, cut to what a sentence can hold."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= _REASON_LENGTH else lines[0][:_REASON_LENGTH] + "…"


def listed(names: Iterable[Any]) -> str:
    """Return names as they can stand in a sentence: on one line, the first few, none too long."""
    shown = [" ".join(str(name).split())[:_NAME_LENGTH] for name in islice(names, _NAMES + 1)]
    return ", ".join(shown[:_NAMES]) + (", …" if len(shown) > _NAMES else "") or "none"


def existing_file(path: Path) -> Path:
    """Return `path` if it is a file that holds something; raises CsrError otherwise."""
    try:
        if path.is_file() and path.stat().st_size:
            return path
    except OSError as error:
        raise CsrError(f"{path} cannot be read ({reason(error)}): check the path") from error
    if path.is_dir():
        raise CsrError(f"{path} is a folder, a file is needed: name a file in it")
    if path.exists():
        raise CsrError(f"{path} is empty: write it anew")
    raise CsrError(f"{path} does not exist: check the path")


@dataclass(frozen=True)
class Files:
    """Files as they were when the source was opened, and how they are read."""

    paths: tuple[Path, ...]
    how: str  # the options, as text
    fingerprint: str

    @classmethod
    def opened(cls, *paths: Path | None, how: str) -> "Files":
        """Remember the state of `paths` (None is skipped); raises CsrError if one is unusable."""
        present = tuple(existing_file(path) for path in paths if path is not None)
        return cls(present, how, _fingerprint(present, how))

    def check_unchanged(self) -> None:
        """Raise CsrError if a file has changed since the source was opened."""
        for path in self.paths:
            existing_file(path)
        if _fingerprint(self.paths, self.how) != self.fingerprint:
            names = ", ".join(map(str, self.paths))
            raise CsrError(f"{names} changed after being opened: open the source again")


def _fingerprint(paths: tuple[Path, ...], how: str) -> str:
    digest = hashlib.sha256(how.encode())
    for path in paths:
        state = path.stat()
        digest.update(f"\0{path.resolve()}\0{state.st_size}\0{state.st_mtime_ns}".encode())
    return digest.hexdigest()


def block_ranges(rows: int, size: int, start: int) -> list[Range]:
    """Return (first, last) of each block of `size` rows from `start` on.

    Raises ConfigError for a size below 1 or a start outside 0..rows.
    """
    if size < 1:
        raise ConfigError(f"blocks need at least 1 row each, got {size}")
    if not 0 <= start <= rows:
        raise ConfigError(f"start must be in 0..{rows} (number of rows), got {start}")
    return [(first, min(first + size, rows)) for first in range(start, rows, size)]


@dataclass(frozen=True, eq=False, kw_only=True)
class FileSource:
    """The source of every file format: the format's own part is `read`."""

    name: str
    kind: str
    files: Files
    rows: int
    read: Callable[[Sequence[Range]], Iterator[Block]]  # one block for each range
    array: npt.NDArray[Any] | None = None  # (n, d), where the vectors can be mapped

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.rows

    @property
    def fingerprint(self) -> str:
        """Hash of the files' paths, sizes and times, and of the options."""
        return self.files.fingerprint

    def blocks(self, size: int, start: int = 0) -> Iterator[Block]:
        """Yield rows `start`.. in blocks of `size`; raises CsrError if a file has changed."""
        ranges = block_ranges(len(self), size, start)
        self.files.check_unchanged()
        return self.read(ranges) if ranges else iter(())
