"""COCO, Flickr30k and sets like them on disk: images, and the captions of each.

dataset_coco.json, dataset_flickr30k.json    Karpathy's splits: `images[]` of `filename`,
                    `filepath` (a folder, not always there), `split`, `sentences[].raw`; the split
                    `restval` counts as `train`, as is usual
captions_val2017.json    COCO's own: `images[]` of `id`, `file_name`, and `annotations[]` of
                    `image_id`, `caption`; one file a split
flickr30k_test_karpathy.txt    of CLIP_benchmark: a line of headings, then `NAME.jpg,CAPTION`; one
                    file a split
SPLIT/0.tar, …      CLIP_benchmark's webdataset: `.jpg`, `.png` or `.webp` and a `.txt` of captions,
                    one a line, under one key; `nshards.txt` says how many shards there are

All captions count (25,010 of COCO's 5,000 test images). Images stay on disk until they are decoded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from csr_qdrant.benchmarks.image_text_annotations import Listed, read_flickr, read_json
from csr_qdrant.benchmarks.image_text_shards import open_shards
from csr_qdrant.errors import CsrError
from csr_qdrant.sources.files import existing_file
from csr_qdrant.sources.images import ImageRow, ImageSource, files_fingerprint


class CaptionedSource(ImageSource, Protocol):
    """Images whose rows all have captions."""

    @property
    def missing(self) -> Sequence[str]:
        """Names of images that the annotations list and the disk lacks; they are left out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AnnotatedImages:
    """Images that lie in a folder and captions that a file lists, in its order."""

    name: str  # of the annotations
    fingerprint: str
    images: Sequence[tuple[Listed, Path]]
    missing: Sequence[str]

    def __len__(self) -> int:
        """Return the number of images that are there."""
        return len(self.images)

    def rows(self, start: int = 0) -> Iterator[ImageRow]:
        """Yield rows `start`.. with paths as data."""
        for listed, path in self.images[start:]:
            yield ImageRow(listed.name, path, captions=listed.captions)


def open_image_text(
    path: Path, *, images: Path | None = None, split: str = "test"
) -> CaptionedSource:
    """Open images and their captions in one of the layouts above.

    Args:
        path: an annotation file, or a folder of webdataset shards.
        images: the folder that annotations mean; None: the one they lie in.
        split: which part of Karpathy's files and of webdatasets; others hold one only.

    Raises CsrError for what is missing or damaged, a split that is not there, an image without
    captions, one that is listed twice, and if none of the images is there.
    """
    if path.is_dir():
        return open_shards(path, split)
    text = existing_file(path).suffix == ".txt"
    listed = list(read_flickr(path) if text else read_json(path, split))
    return _on_disk(path, listed, path.parent if images is None else images)


def _on_disk(path: Path, listed: Sequence[Listed], folder: Path) -> AnnotatedImages:
    seen: set[str] = set()
    for each in listed:
        if not each.captions:
            raise CsrError(f"{path}: image {each.name!r} has no captions: remove it, or add some")
        if each.name in seen:
            raise CsrError(f"{path}: image {each.name!r} is listed twice: remove one of them")
        seen.add(each.name)
    if not folder.is_dir():
        raise CsrError(f"{folder} is no folder: name the one that holds the images of {path}")
    places = [(each, _found(folder, each)) for each in listed]
    present = [(each, place) for each, place in places if place is not None]
    if not present:
        raise CsrError(
            f"none of the {len(listed)} images of {path} lies in {folder}"
            + (f", such as {listed[0].places[0][:200]}" if listed else "")
            + ": name the folder of the images"
        )
    return AnnotatedImages(
        name=str(path),
        fingerprint=files_fingerprint([path, *(place for _, place in present)]),
        images=present,
        missing=tuple(each.name for each, place in places if place is None),
    )


def _found(folder: Path, image: Listed) -> Path | None:
    try:
        return next((folder / p for p in image.places if (folder / p).is_file()), None)
    except OSError:  # a name that is too long for any file
        return None
