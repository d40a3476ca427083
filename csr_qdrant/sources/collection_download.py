"""Vectors of a collection on disk, for training: sampled, streamed, and resumed after a kill.

Points stand in the file by rising id. Points that are written or deleted while a download runs may
or may not be in it; nothing is read twice. Every block is followed by a line of the journal, so a
killed download loses a block at most.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from csr_qdrant.atomic import replaced_file
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.ids import PointId
from csr_qdrant.sources.collection_labels import read_numbered
from csr_qdrant.sources.collection_points import CollectionVectors
from csr_qdrant.sources.download_files import (
    IDS,
    LABELS,
    VECTORS,
    Asked,
    DownloadFiles,
    DownloadState,
)
from csr_qdrant.sources.npy import map_npy

SAMPLE = 500_000
BLOCK_ROWS = 4096


class Downloaded(NamedTuple):
    """Vectors of a collection as they lie on disk."""

    vectors: npt.NDArray[np.float32]  # (n, d), memory-mapped, by rising id
    labels: npt.NDArray[np.float64] | None  # (n,), a number for each label, NaN where there is none
    unlabelled: int  # of the n rows; 0 where no label was asked for
    zero: int  # points left out, for their vectors are all zeros
    gone: int  # sampled points that were deleted, or lost the vector, before they were read


def download_vectors(
    points: CollectionVectors,
    folder: str | Path,
    *,
    sample: int | None = SAMPLE,
    seed: int = 0,
    label: str | None = None,
    on_rows: Callable[[int], None] = lambda done: None,
) -> Downloaded:
    """Stream the vectors of a collection, or of a sample of its points, to files in `folder`.

    Args:
        points: open; stays open.
        folder: for the files; made if it is not there. What an interrupted download of the same
            points with the same settings left in it is kept and continued, other files of ours
            are replaced.
        sample: points to draw at random; None, or no fewer than there are: all.
        seed: of the draw, which depends on the points' ids and the seed alone.
        label: payload field with an integer or a text, by which points belong together.
        on_rows: called with the number of rows that are done.

    Memory is that of a block of vectors, and of the ids of a sample. `fit` takes the vectors, and
    the labels, as they are. A collection compared by cosine gives vectors of L2 norm 1.

    Raises CsrError for a vector with NaN or an infinity, a label that is no integer and no text, a
    disk that is full, and if nothing is left to learn from.
    """
    if sample is not None and sample < 1:
        raise ConfigError(f"a sample needs at least 1 point, got {sample}")
    folder = Path(folder)
    origin = _origin(points, sample, seed, label)
    try:
        files = DownloadFiles(folder, points.dimension, label, origin, on_rows)
        state = files.earlier() or _begun(points, files)
        blocks = iter(()) if state.done else _blocks(points, folder, origin, state)
        state = files.filled(blocks, state)
    except OSError as error:
        raise CsrError(
            f"{folder} cannot be written ({error.strerror or error}): free space or choose another"
        ) from error
    return _opened(folder, points, state, label)


def _origin(
    points: CollectionVectors, sample: int | None, seed: int, label: str | None
) -> dict[str, Any]:
    """Return what a download may be continued by; not how many points there are, which changes."""
    return {
        "location": points.location,
        "vector": points.vector,
        "dimension": points.dimension,
        "distance": points.distance,
        "sample": sample,
        "seed": seed,
        "label": label,
    }


def _begun(points: CollectionVectors, files: DownloadFiles) -> DownloadState:
    """Remove what another download has left, and draw the sample."""
    sample, seed = files.origin["sample"], files.origin["seed"]
    files.folder.mkdir(parents=True, exist_ok=True)
    files.clear()
    state = DownloadState(sampled=sample is not None and sample < points.count)
    if state.sampled:
        _write_ids(files.folder / IDS, points.sample_ids(sample, seed))
    files.record(state)
    return state


def _blocks(
    points: CollectionVectors, folder: Path, origin: dict[str, Any], state: DownloadState
) -> Iterator[Asked]:
    """Yield the points that are still to be read."""
    fields = [] if origin["label"] is None else [origin["label"]]
    if not state.sampled:
        for block in points.blocks(BLOCK_ROWS, state.following, fields):
            yield Asked(block, len(block.ids), block.following)
        return
    ids = _read_ids(folder / IDS)
    start = int(state.following or 0)
    while start < len(ids):
        some = ids[start : start + BLOCK_ROWS]
        start += len(some)
        following = start if start < len(ids) else None
        yield Asked(points.retrieve(some, fields), len(some), following)


def _opened(
    folder: Path, points: CollectionVectors, state: DownloadState, label: str | None
) -> Downloaded:
    if not state.rows:
        raise CsrError(
            f"{points.location} gave no vector to learn from ({state.zero:,} are all zeros): "
            "write vectors to it first, or choose another"
        )
    labels, unlabelled = None, 0
    if label is not None:
        labels = read_numbered(folder / LABELS, state.rows)
        unlabelled = int(np.isnan(labels).sum())
        if unlabelled == state.rows:
            raise CsrError(
                f"none of {state.rows:,} points of {points.location} has a label in the payload "
                f"field {label!r}: check its name, or train without labels"
            )
    return Downloaded(map_npy(folder / VECTORS), labels, unlabelled, state.zero, state.gone)


def _write_ids(path: Path, ids: list[PointId]) -> None:
    ids.sort(key=lambda point: (isinstance(point, str), point))  # as the engines order them
    with replaced_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(point) + "\n" for point in ids)


def _read_ids(path: Path) -> list[PointId]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
