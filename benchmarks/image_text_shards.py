"""Webdatasets of images and captions, as CLIP_benchmark lays them out."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from csr_qdrant.benchmarks.labelled_parts import natural_key
from csr_qdrant.errors import CsrError
from csr_qdrant.sources.images import ImageRow
from csr_qdrant.sources.webdataset import Webdataset

SHARDS = "nshards.txt"


class CaptionedShards:
    """Webdataset shards whose images must have captions."""

    missing: Sequence[str] = ()

    def __init__(self, path: Path, shards: Sequence[Path]) -> None:
        """Read the headers of the shards."""
        self._shards = Webdataset(path, shards)
        self.name = self._shards.name
        self.fingerprint = self._shards.fingerprint

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._shards)

    def rows(self, start: int = 0) -> Iterator[ImageRow]:
        """Yield rows `start`..; raises CsrError at an image without captions."""
        for row in self._shards.rows(start):
            if not row.captions:
                raise CsrError(f"{self.name}: image {row.id!r} has no captions in a .txt: add some")
            yield row


def open_shards(folder: Path, split: str = "test") -> CaptionedShards:
    """Open `folder`/`split` of a webdataset, or `folder` itself where shards lie in it."""
    place = folder if any(folder.glob("*.tar")) else folder / split
    if not any(place.glob("*.tar")):
        splits = sorted(each.parent.name for each in folder.glob("*/0.tar"))
        known = f"choose one of {', '.join(splits)}" if splits else "it has none in SPLIT/0.tar"
        raise CsrError(f"{folder} has no split {split!r}: {known}")
    counted = place / SHARDS
    if not counted.is_file():
        return CaptionedShards(
            place, sorted(place.glob("*.tar"), key=lambda shard: natural_key(shard.name))
        )
    text = counted.read_text("utf-8", errors="replace").strip()
    if not text.isdecimal():
        raise CsrError(f"{counted} must hold the number of shards, got {text[:20]!r}: mend it")
    shards = [place / f"{number}.tar" for number in range(int(text))]
    if lacking := [shard.name for shard in shards if not shard.is_file()]:
        raise CsrError(
            f"{place} lacks {len(lacking)} of the {len(shards)} shards that {SHARDS} counts, such "
            f"as {lacking[0]}: download them"
        )
    return CaptionedShards(place, shards)
