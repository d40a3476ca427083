"""Sources of images: folders and webdataset shards, as rows that hold what to decode."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from csr_qdrant.errors import CsrError
from csr_qdrant.images import ImageData, is_image_name


class ImageRow(NamedTuple):
    """One image, not decoded yet, and what is known about it."""

    id: str  # path within the folder, or key within the shards
    data: ImageData
    label: str | int | None = None
    captions: tuple[str, ...] = ()
    payload: Mapping[str, Any] = MappingProxyType({})  # what else belongs to it
    refused: str | None = None  # why `data` is left empty: it was not safe to read


class ImageSource(Protocol):
    """Images on disk in a fixed order; opening has counted them and decoded none."""

    @property
    def name(self) -> str:
        """What to call the source in messages: its path."""

    @property
    def fingerprint(self) -> str:
        """Text that changes whenever the files change."""

    def __len__(self) -> int:
        """Return the number of rows, those included that will turn out to be undecodable."""

    def rows(self, start: int = 0) -> Iterator[ImageRow]:
        """Yield rows `start`.. one by one; the content of at most one is held in memory."""


class ImageFolder:
    """The images of a folder, in the order of torchvision's class of this name.

    Each subfolder is a class and its name the label of all images below it; images that lie in the
    folder itself come first and have no label.
    """

    def __init__(self, path: Path) -> None:
        """List the images of `path`; raises CsrError if there are none."""
        self.name = str(path)
        self._path = path
        self._files = list(_found(path))  # texts: a path object takes several times the memory
        if not self._files:
            raise CsrError(f"{path} holds no images: check the path")
        self.fingerprint = files_fingerprint(path / file for file, _ in self._files)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._files)

    def rows(self, start: int = 0) -> Iterator[ImageRow]:
        """Yield rows `start`..; their data are paths."""
        for file, label in self._files[start:]:
            yield ImageRow(as_text(file), self._path / file, label)


def holds_images(path: Path) -> bool:
    """Tell whether `path` is webdataset shards or a folder of images, and no BEIR folder."""
    if not path.is_dir():
        return path.name.endswith(".tar") and path.is_file()
    if any((path / name).is_file() for name in ("corpus.jsonl", "corpus.jsonl.gz")):
        return False
    return bool(_shards(path)) or next(_found(path), None) is not None


def open_images(path: str | Path) -> ImageSource:
    """Open a folder of images, a `.tar` shard or a folder of shards.

    Raises CsrError if there are no images, or a shard is damaged.
    """
    from csr_qdrant.sources.webdataset import Webdataset

    path = Path(path)
    if not path.exists():
        raise CsrError(f"{path} does not exist: check the path")
    if path.is_dir():
        shards = _shards(path)
        return Webdataset(path, shards) if shards else ImageFolder(path)
    if path.name.endswith(".tar"):
        return Webdataset(path, [path])
    raise CsrError(f"{path} holds no images: give a folder of images or .tar shards")


def files_fingerprint(paths: Iterable[Path]) -> str:
    """Return a hash of the paths, sizes and times of files."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            state = path.stat()
            size, time = state.st_size, state.st_mtime_ns
        except OSError:  # a link to nowhere, say: a row that will turn out to be undecodable
            size, time = 0, 0
        digest.update(b"\0%s\0%d\0%d" % (os.fsencode(path.absolute()), size, time))
    return digest.hexdigest()


def as_text(name: str) -> str:
    """Return a file name as text; bytes that are not UTF-8 are written out."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _shards(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.tar") if path.is_file())


def _found(folder: Path) -> Iterator[tuple[str, str | None]]:
    """Yield (path within the folder, label): first the folder's own images, then by class."""
    entries = sorted(folder.iterdir())
    yield from ((e.name, None) for e in entries if is_image_name(e.name) and e.is_file())
    for entry in entries:
        if entry.is_dir():  # classes may be links; links further down are not followed: no loops
            label, start = as_text(entry.name), len(str(entry))
            for parent, _, names in sorted(os.walk(entry)):
                inner = entry.name + parent[start:].replace(os.sep, "/")
                yield from ((f"{inner}/{n}", label) for n in sorted(names) if is_image_name(n))
