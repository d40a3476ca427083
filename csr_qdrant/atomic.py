"""Files and folders that appear whole or not at all: written aside, then renamed."""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from csr_qdrant.errors import ConfigError

# What stands between the name of a path and the number of a process, in names beside the path.
PARTIAL, REPLACED = "partial", "csr-replaced"


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise ConfigError if `path` exists and must not be replaced.

    A folder that a killed process had put aside, to replace it, is there again first.
    """
    _bring_back(path)
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

    What killed processes left beside it goes, too. Raises ConfigError for a link to a folder, and
    for a folder without a name of its own, such as `.`.
    """
    if not path.name:
        raise ConfigError(f"the folder {str(path)!r} has to be removed from outside: give its name")
    if path.is_symlink() and path.is_dir():
        raise ConfigError(f"{path} is a link to a folder: give the folder, or remove the link")
    _bring_back(path)
    temporary = _temporary(path)
    if path.is_dir():
        _discard(path, temporary)
    else:
        path.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """Return a free name beside `path`; what killed processes left there is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in _left(path, PARTIAL):
        _remove(left)
    return _beside(path, PARTIAL)


def _bring_back(path: Path) -> None:
    """Give back its name to what a killed process was replacing, see `_rename_over`."""
    for left in _left(path, REPLACED):
        with suppress(FileNotFoundError):  # another process was quicker
            if path.exists():
                _discard(left, _temporary(path))
            else:
                left.rename(path)


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}-{os.getpid()}")


def _left(path: Path, kind: str) -> list[Path]:
    """Return what lies beside `path` of processes that have ended."""
    name = re.compile(rf"\.{re.escape(path.name)}\.{kind}-(\d+)")
    found = [(each, name.fullmatch(each.name)) for each in path.parent.glob(f".*.{kind}-*")]
    own = str(os.getpid())  # as an earlier process had, in a container
    return [each for each, match in found if match and (match[1] == own or not _is_alive(match[1]))]


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
    aside = _beside(path, REPLACED)
    path.rename(aside)
    try:
        new.rename(path)
    except BaseException:
        aside.rename(path)
        raise
    _discard(aside, new)


def _discard(folder: Path, temporary: Path) -> None:
    """Remove `folder` under the name `temporary`, so that its own never stands for a part of it."""
    try:
        folder.rename(temporary)
    except OSError as error:
        if error.errno != errno.EXDEV:  # folders of a container's image cannot be renamed
            raise
        temporary = folder
    _remove(temporary)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path`, whole or not at all."""
    with replaced_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
