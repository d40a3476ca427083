"""Annotation files of COCO and Flickr30k: which images there are, and their captions.

`image_text_layouts` says what they look like.
"""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from csr_qdrant.errors import CsrError
from csr_qdrant.sources.files import reason
from csr_qdrant.sources.lines import read_lines

RESTVAL, TRAIN = "restval", "train"


class Listed(NamedTuple):
    """An image of an annotation file."""

    name: str
    captions: tuple[str, ...]
    places: tuple[str, ...]  # paths below the folder of images where it may lie


def read_json(path: Path, split: str) -> Iterator[Listed]:
    """Yield the images of `split`, or of COCO's own form, which is one split, all.

    Raises CsrError for files of another form, and if there is no such split.
    """
    content = _read_object(path)
    if "annotations" in content:
        return _coco(content, path)
    return _karpathy(content, path, split)


def read_flickr(path: Path) -> Iterator[Listed]:
    """Yield the images of a file of `NAME.jpg,CAPTION` lines below headings, by first mention."""
    captions: dict[str, list[str]] = {}
    for number, line in read_lines(path):
        if number == 1 or line.isspace():
            continue
        stem, comma, caption = line.strip().partition(".jpg,")
        if not comma:
            raise CsrError(f"{path} line {number} is not NAME.jpg,CAPTION: copy the file anew")
        text = _unquoted(caption.strip())
        file = _checked_name(f"{stem}.jpg", path)
        captions.setdefault(file, []).extend([text] if text else [])
    for file, found in captions.items():
        yield Listed(file, tuple(found), (file,))


def _karpathy(content: dict[str, Any], path: Path, split: str) -> Iterator[Listed]:
    entries = [(_text(e, "split", path), e) for e in _objects(content, "images", path)]
    entries = [(TRAIN if found == RESTVAL else found, e) for found, e in entries]
    splits = sorted({found for found, _ in entries})
    if split not in splits:
        raise CsrError(f"{path} has no split {split!r}: choose one of {', '.join(splits)}")
    for found, entry in entries:
        if found == split:
            file = _name(entry, "filename", path)
            full = f"{_name(entry, 'filepath', path)}/{file}" if entry.get("filepath") else file
            sentences = _objects(entry, "sentences", path)
            captions = tuple(_text(each, "raw", path).strip() for each in sentences)
            yield Listed(full, tuple(filter(None, captions)), (full, file))


def _coco(content: dict[str, Any], path: Path) -> Iterator[Listed]:
    captions: dict[Any, list[str]] = {}
    for entry in _objects(content, "annotations", path):
        caption = _text(entry, "caption", path).strip()
        captions.setdefault(str(entry.get("image_id")), []).extend([caption] if caption else [])
    images = [(str(e.get("id")), e) for e in _objects(content, "images", path)]
    if unknown := captions.keys() - {number for number, _ in images}:
        raise CsrError(
            f"{path} has captions of {len(unknown)} images that it does not list, such as "
            f"{min(unknown)}: copy it anew"
        )
    for number, entry in images:
        file = _name(entry, "file_name", path)
        # Annotations may name `val2014/COCO_….jpg` where the folder given is val2014.
        yield Listed(file, tuple(captions.get(number, ())), (file, PurePosixPath(file).name))


def _unquoted(text: str) -> str:
    """Return a caption without the quotes that some copies put around those with commas."""
    quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return text[1:-1].replace('""', '"') if quoted else text


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes(), object_hook=_lean)
    except (OSError, ValueError, RecursionError) as error:
        raise CsrError(f"{path} cannot be read as JSON ({reason(error)}): copy it anew") from error
    if not isinstance(content, dict):
        raise CsrError(f"{path} must hold an object with a list of images: name another file")
    return content


def _lean(value: dict[str, Any]) -> dict[str, Any]:
    """Drop the tokens of Karpathy's sentences while parsing: they are most of the memory."""
    value.pop("tokens", None)
    return value


def _objects(content: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    found = content.get(key)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise CsrError(f"{path} must have lists of objects as {key!r}: is it of a known layout?")
    return found


def _text(entry: dict[str, Any], key: str, path: Path) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise CsrError(f"{path} must have texts as {key!r}, got {value!r}: copy it anew")
    return value


def _name(entry: dict[str, Any], key: str, path: Path) -> str:
    return _checked_name(_text(entry, key, path), path)


def _checked_name(name: str, path: Path) -> str:
    place = PurePosixPath(name)
    if not place.name or place.is_absolute() or ".." in place.parts:
        raise CsrError(f"{path} names an image {name!r} outside of its folder: copy it anew")
    return name
