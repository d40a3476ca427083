"""Webdataset shards: tar files whose members share a key and differ in what follows its dot."""

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, cast

from csr_qdrant.errors import CsrError
from csr_qdrant.images import MAX_BYTES, is_image_name
from csr_qdrant.sources.files import reason
from csr_qdrant.sources.images import ImageRow, as_text, files_fingerprint
from csr_qdrant.sources.values import check_unique, row_payload

MAX_TEXT_BYTES = 2**20  # of captions, a label or a JSON object
_TEXTS = ("txt", "cls", "json")
_IMAGE = "image"


class Webdataset:
    """The images of shards, in their order; captions from .txt, labels from .cls, more from .json.

    A caption a line. Where there is no .txt or .cls, the JSON object's `caption` (or `captions`)
    and `label` take their place. Rows of a folder of shards have the shard's name before their key.
    A second image of one key is left alone, and so are members of other kinds.
    """

    def __init__(self, path: Path, shards: Sequence[Path]) -> None:
        """Read the headers of all members of the shards, and nothing of their content.

        Raises CsrError for a damaged shard, for a key that comes twice, and if there are no images.
        """
        self.name = str(path)
        alone = shards == [path]
        self._shards = [_Shard(shard, "" if alone else f"{shard.stem}/") for shard in shards]
        self._sizes = [sum(1 for _ in shard.ids()) for shard in self._shards]
        if not sum(self._sizes):
            raise CsrError(f"{path} holds no images: check the path")
        check_unique(self.name, lambda: (each for shard in self._shards for each in shard.ids()))
        self.fingerprint = files_fingerprint(shards)

    def __len__(self) -> int:
        """Return the number of images."""
        return sum(self._sizes)

    def rows(self, start: int = 0) -> Iterator[ImageRow]:
        """Yield rows `start`..; their data are bytes. Shards before are not opened at all."""
        for shard, size in zip(self._shards, self._sizes, strict=True):
            if start < size:
                yield from shard.rows(start)
            start = max(start - size, 0)


class _Member(NamedTuple):
    key: str
    kind: str  # "image", or one of _TEXTS
    info: tarfile.TarInfo


_Sample = dict[str, tarfile.TarInfo]  # by kind; an image among them


@dataclass(frozen=True)
class _Shard:
    """One tar file, read from its start to its end; nothing is ever unpacked to disk."""

    path: Path
    prefix: str  # of the ids

    def ids(self) -> Iterator[str]:
        """Yield the ids of the images, from the headers alone."""
        with _opened(self.path) as tar:
            yield from (self.prefix + key for key, _ in _samples(tar, self.path))

    def rows(self, start: int) -> Iterator[ImageRow]:
        """Yield the rows from the `start`th on; the content of those before is not read."""
        with _opened(self.path) as tar:
            for key, sample in islice(_samples(tar, self.path), start, None):
                yield _row(tar, self.prefix + key, sample)


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        # Without "|": headers are found by seeking, so that content is read only where it is used.
        with (
            path.open("rb") as file,
            tarfile.open(fileobj=cast(IO[bytes], _Bounded(file)), mode="r:") as tar,
        ):
            yield tar
    except CsrError:
        raise
    except Exception as error:  # hostile headers also end in IndexError and RecursionError
        raise _damaged(path, reason(error)) from error


class _Bounded:
    """A file that gives no more at once than one picture may take: long names are read whole."""

    def __init__(self, file: IO[bytes]) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_BYTES:
            raise ValueError(f"a header claims {size:,} bytes")
        return self._read(size)


def _damaged(path: Path, why: str) -> CsrError:
    return CsrError(f"{path} is no whole tar file ({why}): write it anew")


def _samples(tar: tarfile.TarFile, path: Path) -> Iterator[tuple[str, _Sample]]:
    """Yield (key, members) of consecutive members of one key, where one of them is an image."""
    for key, members in groupby(_members(tar, path), attrgetter("key")):
        sample: _Sample = {}
        for member in members:
            sample.setdefault(member.kind, member.info)
        if _IMAGE in sample:
            yield key, sample


def _members(tar: tarfile.TarFile, path: Path) -> Iterator[_Member]:
    """Yield the members that are images or texts; raises CsrError where the shard is damaged."""
    last = -1
    remembered: Any = tar  # its list of members is not in the stubs
    while (info := tar.next()) is not None:
        remembered.members.clear()  # or the list of all would grow in memory
        if info.size < 0 or info.offset <= last:  # older Pythons go round in circles there
            raise _damaged(path, f"the size of {as_text(info.name)!r} is damaged")
        last = info.offset
        if (member := _member(info)) is not None:
            yield member
    assert tar.fileobj is not None, "it is open"
    tar.fileobj.seek(tar.offset)
    if any(tar.fileobj.read(tarfile.BLOCKSIZE)):  # tarfile takes what is no header for the end
        raise _damaged(path, f"no member begins at byte {tar.offset:,}")


def _member(info: tarfile.TarInfo) -> _Member | None:
    """Return what a member is for; None for folders and for kinds that mean nothing here."""
    name = PurePosixPath(as_text(info.name))  # drops a leading "./"
    base, _, ending = name.name.partition(".")
    ending = ending.lower()
    if info.isdir() or not base:
        return None
    key = str(name.parent / base)
    if "." not in ending and is_image_name(f".{ending}"):
        return _Member(key, _IMAGE, info)
    return _Member(key, ending, info) if ending in _TEXTS else None


def _refusal(info: tarfile.TarInfo, most: int) -> str | None:
    """Return why a member is not read, None if it is."""
    name = PurePosixPath(info.name)
    if name.is_absolute() or ".." in name.parts:
        return "its name leads out of the shard"
    if not info.isreg() or info.issparse():
        return "it is a link, a device or sparse"
    return f"{info.size:,} bytes, above {most:,}" if info.size > most else None


def _row(tar: tarfile.TarFile, name: str, sample: _Sample) -> ImageRow:
    payload = _json_object(_text(tar, sample.get("json")))
    lines = [line.strip() for line in _text(tar, sample.get("txt")).splitlines()]
    captions = tuple(filter(None, lines)) or _captions(payload)
    label = _label(_text(tar, sample["cls"]) if "cls" in sample else payload.get("label"))
    more = {k: v for k, v in payload.items() if k not in ("caption", "captions", "label")}
    refused = _refusal(sample[_IMAGE], MAX_BYTES)
    data = b"" if refused else _content(tar, sample[_IMAGE])
    return ImageRow(name, data, label, captions, more, refused)


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    return b"" if file is None else file.read()


def _text(tar: tarfile.TarFile, info: tarfile.TarInfo | None) -> str:
    if info is None or _refusal(info, MAX_TEXT_BYTES):
        return ""
    return _content(tar, info).decode(errors="replace")


def _json_object(text: str) -> dict[str, Any]:
    """Return the JSON object of a text; {} for anything else, and for what no payload can hold."""
    try:
        value = json.loads(text)
        return row_payload({k: v for k, v in value.items() if k not in ("_id", "id")}, "")
    except (ValueError, AttributeError, RecursionError, CsrError):
        return {}


def _captions(payload: Mapping[str, Any]) -> tuple[str, ...]:
    given = payload.get("captions") or payload.get("caption")
    several = given if isinstance(given, list) else [given]
    return tuple(each for each in several if isinstance(each, str) and each)


def _label(value: Any) -> str | int | None:
    """Return a class number as an integer, other labels as texts."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = value.strip() if isinstance(value, str) else ""
    return int(text) if text.isascii() and text.isdecimal() else text or None
