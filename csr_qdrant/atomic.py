"""Files and folders that appear whole or not at all: written aside, then renamed."""

import glob
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from csr_qdrant.errors import ConfigError


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise ConfigError if `path` exists and must not be replaced."""
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} already exists: choose another name or pass overwrite")


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it over `path` if the block succeeds."""
    temporary = _temporary(path)
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replaced_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give an empty temporary folder beside `path`; rename it to `path` if the block succeeds.

    Raises ConfigError, before the block and after it, if `path` exists without `overwrite`.
    """
    refuse_existing(path, overwrite)
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush(file)
        refuse_existing(path, overwrite)
        _rename_over(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_whole(path: Path) -> None:
    """Remove a file or folder, if it is there, so that no part of it ever lies under its name.

    What killed processes left beside it goes, too.
    """
    temporary = _temporary(path)
    if path.is_dir() and not path.is_symlink():
        path.rename(temporary)
        _remove(temporary)
    else:
        path.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """Return a free name beside `path`; what killed processes left there is tidied up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in _left(path, "old"):  # what was to be replaced, see `_rename_over`
        if path.exists():
            _remove(left)
        else:
            left.rename(path)
    for left in _left(path, "partial"):
        _remove(left)
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
    _remove(temporary)
    return temporary


def _left(path: Path, kind: str) -> list[Path]:
    found = path.parent.glob(f".{glob.escape(path.name)}.{kind}-*")
    return [each for each in found if not _is_alive(each.name.rpartition("-")[2])]


def _is_alive(pid: str) -> bool:
    if os.name != "posix" or not pid.isdecimal():
        return True  # not known: leave its files alone
    try:
        os.kill(int(pid), 0)  # signal 0 asks, it sends nothing
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Put a file's content on the disk, so that a rename cannot outlive it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _rename_over(new: Path, path: Path) -> None:
    if not path.exists():
        new.rename(path)
        return
    # A rename replaces only empty folders, so the old one steps aside first.
    aside = path.with_name(f".{path.name}.old-{os.getpid()}")
    path.rename(aside)
    try:
        new.rename(path)
    except OSError:
        aside.rename(path)
        raise
    _remove(aside)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path`, whole or not at all."""
    with replaced_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
