"""The files of a download from a collection: vectors, labels, ids of a sample, and a journal."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format as npy_format

from csr_qdrant.atomic import write_json
from csr_qdrant.ids import PointId
from csr_qdrant.sources.collection_labels import written_labels
from csr_qdrant.sources.collection_points import PointBlock

VECTORS, LABELS, IDS, JOURNAL = "vectors.npy", "labels.jsonl", "ids.jsonl", "download.json"


class Asked(NamedTuple):
    """A block of points as it was read."""

    block: PointBlock
    wanted: int  # points asked for; some may be gone
    following: PointId | None  # where the next block starts, as in `DownloadState`


@dataclass(frozen=True)
class DownloadState:
    """What stands in the files for good; `following` is where the next block starts."""

    sampled: bool = False  # whether the points are those in the list of ids
    rows: int = 0
    label_bytes: int = 0
    zero: int = 0
    gone: int = 0
    following: PointId | None = None  # an id, or the position in a sample's list of ids
    done: bool = False


@dataclass(frozen=True)
class DownloadFiles:
    """The files of one download, opened for appending."""

    folder: Path
    dimension: int
    label: str | None
    origin: dict[str, Any]
    on_rows: Callable[[int], None]

    def earlier(self) -> DownloadState | None:
        """Return where an interrupted download of this origin stands, None if there is none."""
        try:
            journal = json.loads((self.folder / JOURNAL).read_text("utf-8"))
            found = journal.pop("origin")
            state = DownloadState(**journal)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        if found != self.origin or (state.sampled and not (self.folder / IDS).is_file()):
            return None
        width = 4 * self.dimension * state.rows
        whole = _size(self.folder / VECTORS) >= width and (
            _size(self.folder / LABELS) >= state.label_bytes
        )
        return state if whole else None

    def clear(self) -> None:
        """Remove the files of another download."""
        for name in (JOURNAL, VECTORS, LABELS, IDS):
            (self.folder / name).unlink(missing_ok=True)

    def record(self, state: DownloadState) -> None:
        """Write down what is in the files for good."""
        write_json(self.folder / JOURNAL, {"origin": self.origin, **asdict(state)})

    def filled(self, blocks: Iterator[Asked], state: DownloadState) -> DownloadState:
        """Append `blocks` behind what `state` counts, and return the last state."""
        with (
            _appended(self.folder / VECTORS) as vectors,
            _appended(self.folder / LABELS) as labels,
        ):
            header = _write_header(vectors, 0, self.dimension)
            _cut(vectors, header + 4 * self.dimension * state.rows)
            _cut(labels, state.label_bytes)
            self.on_rows(state.rows)
            for asked in blocks:
                state = self._added(vectors, labels, asked, state)
                _synced(vectors, labels)
                self.record(state)
                self.on_rows(state.rows)
            vectors.seek(0)
            if _write_header(vectors, state.rows, self.dimension) != header:
                raise AssertionError("numpy's header has changed its length with the row count")
            _synced(vectors, labels)
        return state

    def _added(
        self, vectors: BinaryIO, labels: BinaryIO, asked: Asked, state: DownloadState
    ) -> DownloadState:
        block = asked.block
        kept = block.vectors.any(axis=1)
        vectors.write(np.ascontiguousarray(block.vectors[kept], "<f4").data)
        if self.label is not None:
            rows = np.flatnonzero(kept)
            labels.write(
                written_labels(
                    [block.ids[row] for row in rows],
                    [block.payloads[row] for row in rows],
                    self.label,
                    str(self.origin["location"]),
                )
            )
        return replace(
            state,
            rows=state.rows + int(kept.sum()),
            label_bytes=labels.tell(),
            zero=state.zero + int((~kept).sum()),
            gone=state.gone + asked.wanted - len(block.ids),
            following=asked.following,
            done=asked.following is None,
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _appended(path: Path) -> BinaryIO:
    return path.open("r+b" if path.exists() else "w+b")


def _write_header(file: BinaryIO, rows: int, dimension: int) -> int:
    """Write the header of a `.npy` file and return its length, the same for any row count."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, dimension)}
    npy_format.write_array_header_1_0(file, header)
    return file.tell()


def _cut(file: BinaryIO, size: int) -> None:
    """Drop what was written after the last record."""
    file.truncate(size)
    file.seek(size)


def _synced(*files: BinaryIO) -> None:
    for file in files:
        file.flush()
        os.fsync(file.fileno())
