"""Points that cannot have a code, named in a file instead of ending a run over millions."""

import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from csr_qdrant.atomic import replaced_file
from csr_qdrant.deployment.attach_config import BadPoint
from csr_qdrant.errors import ConfigError, CsrError

EXAMPLES = 10


class BadPoints:
    """Counts bad points, keeps a few, and writes all of them to a file if there is one."""

    def __init__(self, file: TextIO | None) -> None:
        """Write into the open `file`, one JSON object a line; None: only count."""
        self._file = file
        self._lock = threading.Lock()
        self.count = 0
        self.examples: list[BadPoint] = []

    def restart(self) -> None:
        """Forget the points so far: they are looked at once more."""
        self.count = 0
        self.examples.clear()
        if self._file is not None:
            self._file.seek(0)
            self._file.truncate()

    def add(self, points: Sequence[BadPoint]) -> None:
        """Take more bad points, from any thread."""
        with self._lock:
            self.count += len(points)
            self.examples += points[: EXAMPLES - len(self.examples)]
            if self._file is not None:
                self._file.writelines(json.dumps(each._asdict()) + "\n" for each in points)


def check_bad_rows(path: Path | None) -> None:
    """Raise ConfigError if no file can be written at `path`; a run would end without it."""
    if path is None:
        return
    above = next(each for each in path.absolute().parents if each.exists())
    if path.is_dir() or not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"cannot write the ids of bad points to {path}: choose another file")


@contextmanager
def bad_points(path: Path | None) -> Iterator[BadPoints]:
    """Give a list of bad points whose file appears at the end, whole or not at all.

    Without a bad point there is no file: one of an earlier run is removed. Raises CsrError if it
    cannot be written.
    """
    if path is None:
        yield BadPoints(None)
        return
    try:
        with replaced_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            found = BadPoints(file)
            yield found
        if not found.count:
            path.unlink()
    except OSError as error:
        raise CsrError(f"cannot write {path}: {error.strerror}") from error
