"""Retrieval between images and captions: vectors of both, and which caption belongs to which image.

A folder of such vectors holds `images.npy` (i, d), `captions.npy` (c, d), `caption_images.npy` (c,)
with the row of each caption's image, and `info.json`.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from csr_qdrant.atomic import replaced_folder
from csr_qdrant.benchmarks.image_text_layouts import CaptionedSource
from csr_qdrant.benchmarks.metrics import Rows
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.embedders.image_rows import ImageBatch
from csr_qdrant.errors import CsrError
from csr_qdrant.json_files import read_json
from csr_qdrant.sources.files import reason
from csr_qdrant.sources.images import ImageRow
from csr_qdrant.sources.npy import map_npy

ImageBatches = Callable[[Iterable[ImageRow]], Iterator[ImageBatch]]  # `RowEmbedder.batches`
EmbedTexts = Callable[[Sequence[str]], Matrix]  # (n,) texts -> (n, d)

IMAGES, CAPTIONS, OWNERS, INFO = "images.npy", "captions.npy", "caption_images.npy", "info.json"
TEXTS = 256  # that are embedded at a time
LISTED = 5  # names that a sentence gives


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageTextVectors:
    """Embedded images and captions. Raises CsrError if they do not belong together."""

    name: str
    images: Matrix  # (i, d)
    captions: Matrix  # (c, d)
    image_of: Rows  # (c,) row of each caption's image
    skipped: Sequence[str] = ()  # images left out, with the reason
    info: dict[str, Any] = field(default_factory=dict)  # where the vectors come from

    def __post_init__(self) -> None:
        """Check shapes, values, and that each image has a caption."""
        images, captions = self.images, self.captions
        if images.ndim != 2 or captions.ndim != 2 or images.shape[1:] != captions.shape[1:]:
            raise CsrError(
                f"{self.name} needs images (i, d) and captions (c, d) of one model, got "
                f"{images.shape} and {captions.shape}"
            )
        if self.image_of.shape != (len(captions),) or self.image_of.dtype.kind not in "iu":
            raise CsrError(
                f"{self.name} needs the row of an image for each of {len(captions)} captions, got "
                f"{self.image_of.dtype} of shape {self.image_of.shape}"
            )
        if len(captions) and not 0 <= self.image_of.min() <= self.image_of.max() < len(images):
            raise CsrError(f"{self.name} has captions of images outside of 0..{len(images) - 1}")
        alone = np.flatnonzero(np.bincount(self.image_of, minlength=len(images)) == 0)
        if len(alone) or not len(images):
            raise CsrError(
                f"{self.name} needs captions of each image, got none of {len(alone)} of "
                f"{len(images)}" + (f", the first is row {alone[0]}" if len(alone) else "")
            )
        for what, rows in (("image", images), ("caption", captions)):
            bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
            if len(bad):
                raise CsrError(f"{self.name}: {what} {bad[0]} has NaN or infinity: embed it anew")

    @property
    def left_out(self) -> str | None:
        """One sentence on images that were left out, None if none were."""
        if not self.skipped:
            return None
        rest = len(self.skipped) - LISTED
        more = f" and {rest} more" if rest > 0 else ""
        total = len(self.skipped) + len(self.images)
        return (
            f"{len(self.skipped)} of {total} images of {self.name} were left out: "
            f"{', '.join(self.skipped[:LISTED])}{more}"
        )

    def save(self, folder: Path, *, overwrite: bool = False) -> None:
        """Write the folder, whole or not at all; ConfigError if it exists without `overwrite`."""
        with replaced_folder(folder, overwrite=overwrite) as temporary:
            np.save(temporary / IMAGES, self.images)
            np.save(temporary / CAPTIONS, self.captions)
            np.save(temporary / OWNERS, self.image_of.astype(np.int64))
            about = {"name": self.name, "skipped": list(self.skipped), **self.info}
            (temporary / INFO).write_text(json.dumps(about, indent=2) + "\n", "utf-8")


def load_vectors(folder: Path) -> ImageTextVectors:
    """Return the vectors in `folder`, memory-mapped; raises CsrError for what cannot be used."""
    images, captions, owners = (map_npy(folder / name) for name in (IMAGES, CAPTIONS, OWNERS))
    info: dict[str, Any] = {}
    skipped: list[str] = []
    if (folder / INFO).exists():
        try:
            info = dict(read_json(folder / INFO))
            skipped = [str(each) for each in info.pop("skipped", [])]
        except (OSError, ValueError, TypeError) as error:
            raise CsrError(f"{folder / INFO} cannot be read ({reason(error)}): mend it") from error
    info.pop("name", None)
    return ImageTextVectors(
        name=str(folder),
        images=images,
        captions=captions,
        image_of=owners,
        skipped=skipped,
        info=info,
    )


def embedded(
    source: CaptionedSource,
    image_batches: ImageBatches,
    embed_texts: EmbedTexts,
    *,
    progress: Callable[[int], None] = lambda images: None,
) -> ImageTextVectors:
    """Return vectors of the images and captions of `source`, as a model's two towers make them.

    Images that do not decode are left out with their captions, as are those missing on disk; both
    are listed in `skipped`. `progress` is told how many images each batch was.

    Raises CsrError if no image is left.
    """
    images: list[Matrix] = []
    texts: list[str] = []
    owners: list[int] = []
    skipped = [f"{name} (missing)" for name in source.missing]
    kept = 0
    for batch in image_batches(source.rows()):
        images.append(batch.vectors)
        skipped += [f"{each.id} ({each.reason})" for each in batch.skipped]
        for row in batch.rows:
            texts += row.captions
            owners += [kept] * len(row.captions)
            kept += 1
        progress(len(batch.rows) + len(batch.skipped))
    if not kept:
        raise CsrError(f"none of the {len(source)} images of {source.name} decodes: {skipped[0]}")
    captions = [embed_texts(texts[at : at + TEXTS]) for at in range(0, len(texts), TEXTS)]
    return ImageTextVectors(
        name=source.name,
        images=np.concatenate(images),
        captions=np.concatenate(captions),
        image_of=np.array(owners, np.int64),
        skipped=skipped,
        info={"source": source.fingerprint},
    )
