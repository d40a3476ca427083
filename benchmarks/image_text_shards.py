"""Webdatasets of images and captions, as CLIP_benchmark lays them out."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from csr_qdrant.benchmarks.labelled_parts import natural_key
from csr_qdrant.errors import CsrError
from csr_qdrant.sources.images import ImageRow
from csr_qdrant.sources.webdataset import Webdataset

SHARDS = "nshards.txt"
_DIGITS = 9  # of a number of shards, at most


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
    if not text.isdecimal() or len(text) > _DIGITS:
        raise CsrError(f"{counted} must hold the number of shards, got {text[:20]!r}: mend it")
    numbers = range(int(text))
    there = _numbered(place)
    # Looked for one by one: a list of all names could fill the memory, for any number may be given.
    lacking = next((number for number in numbers if number not in there), None)
    if lacking is not None:
        missing = len(numbers) - sum(number in numbers for number in there)
        raise CsrError(
            f"{place} lacks {missing} of the {len(numbers)} shards that {SHARDS} counts, such as "
            f"{lacking}.tar: download them"
        )
    return CaptionedShards(place, [place / f"{number}.tar" for number in numbers])


def _numbered(place: Path) -> set[int]:
    """Return the numbers of the shards that are there."""
    names = [shard.stem for shard in place.glob("*.tar") if shard.is_file()]
    numbers = [int(name) for name in names if name.isdecimal() and len(name) <= _DIGITS]
    return {number for number in numbers if str(number) in names}
