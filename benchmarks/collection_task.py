"""An existing collection as a task: how well do other systems find its own dense neighbours?

A sample of its points is held out as queries and leaves the corpus, since a query that finds itself
tells nothing. Truth are the exact nearest neighbours by cosine; there are no judgements, so such a
task has recall of the neighbours and no nDCG.

    FOLDER/task.json      what was read of which collection, and how far
    FOLDER/vectors.f32    the corpus, float32 rows in the order of the points' ids
    FOLDER/ids.s36        its ids as texts of at most 36 bytes
    FOLDER/queries.npy    the queries' vectors
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, overload

import numpy as np
import numpy.typing as npt

from csr_qdrant.atomic import replaced_file, write_json
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.sources.collection_points import CollectionVectors
from csr_qdrant.stores.disk import require_space

FORMAT = 1
ID_BYTES = 36  # of a UUID; a u64 has 20 digits at most
RECORD_BYTES = 64 * 2**20  # written between two records of how far the reading has come
UNIT_TOLERANCE = 1e-3

Tell = Callable[[str], None]


class MappedIds(Sequence[str]):
    """Point ids as texts, in a file that is mapped and not read."""

    def __init__(self, stored: npt.NDArray[np.bytes_]) -> None:
        """Wrap the mapped ids (n,)."""
        self._stored = stored

    def __len__(self) -> int:
        """Return the number of ids."""
        return len(self._stored)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Return one id, or several."""
        if isinstance(index, slice):
            return [each.decode() for each in self._stored[index].tolist()]
        return bytes(self._stored[index]).decode()


@dataclass(frozen=True, kw_only=True, eq=False)
class CollectionTask:
    """A collection's vectors as corpus and queries; both are the collection's own."""

    name: str  # where the collection is
    distance: str  # Qdrant's name of how the collection itself compares
    folder: Path
    doc_ids: Sequence[str]
    vectors: Matrix  # (n, d), mapped from disk
    query_ids: Sequence[str]
    queries: Matrix  # (m, d)


def collection_task(
    points: CollectionVectors,
    folder: Path,
    *,
    queries: int = 1000,
    seed: int = 0,
    by_cosine: bool = False,
    tell: Tell = lambda step: None,
) -> CollectionTask:
    """Read a collection into `folder`, `queries` of its points held out, drawn with `seed`.

    An interrupted reading goes on where it was; a finished one is not repeated. Memory is bounded.
    `by_cosine` accepts collections that compare otherwise and whose vectors are not of unit length:
    then neighbours by cosine are not those that the collection itself finds.

    Raises ConfigError for too few points, or another distance without `by_cosine`; CsrError if
    `folder` holds something else, or the collection has other points than when it was begun.
    """
    about = _about(points, queries, seed)
    state = _state(folder, about, points)
    if state is None:
        _check_size(points, queries)
        require_space(folder.parent, points.count * (4 * points.dimension + ID_BYTES))
        tell(f"drawing {queries} queries")
        state = _begun(points, folder, about, by_cosine)
    if not state["done"]:
        tell(f"reading {points.count:,} vectors")
        state = _read(points, folder, state, by_cosine)
    return _task(points, folder, state)


# --- what was read ----------------------------------------------------------------------------


def _about(points: CollectionVectors, queries: int, seed: int) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "collection": points.location,
        "vector": points.vector,
        "dimension": points.dimension,
        "distance": points.distance,
        "queries": queries,
        "seed": seed,
    }


def _state(folder: Path, about: dict[str, Any], points: CollectionVectors) -> dict[str, Any] | None:
    """Return how far an earlier reading of the same came, None if there was none."""
    path = folder / "task.json"
    if not path.exists():
        if folder.exists() and any(folder.iterdir()):
            raise CsrError(f"{folder} holds something else: choose an empty folder")
        return None
    try:
        state: dict[str, Any] = json.loads(path.read_text("utf-8"))
        changed = [name for name in about if state.get(name) != about[name]]
        count, _ = state["count"], state["done"]
    except (ValueError, KeyError, AttributeError) as error:
        raise CsrError(f"{path} is damaged ({error}): remove {folder} to read anew") from error
    if changed:
        raise CsrError(
            f"{folder} holds another task (other {', '.join(changed)}): choose another folder, or "
            "remove it to read anew"
        )
    if count != points.count:
        raise CsrError(
            f"{points.location} has {points.count} points now and had {count} when {folder} was "
            "begun: remove the folder to read anew"
        )
    return state


def _check_size(points: CollectionVectors, queries: int) -> None:
    if queries < 1 or 2 * queries > points.count:
        raise ConfigError(
            f"queries are held out of {points.count} points of {points.location}: choose 1 to "
            f"{points.count // 2}, got {queries}"
        )


# --- reading ----------------------------------------------------------------------------------


def _begun(
    points: CollectionVectors, folder: Path, about: dict[str, Any], by_cosine: bool
) -> dict[str, Any]:
    """Draw the queries, write them down, and return the state of a reading that has them only."""
    sample = points.sample(about["queries"], about["seed"])
    _check_distance(points, sample.vectors, by_cosine)
    folder.mkdir(parents=True, exist_ok=True)
    with replaced_file(folder / "queries.npy") as temporary, temporary.open("wb") as file:
        np.save(file, sample.vectors)
    progress = {"query_ids": sample.ids, "rows": 0, "following": None, "done": False}
    state = {**about, "count": points.count, **progress}
    write_json(folder / "task.json", state)
    return state


def _read(
    points: CollectionVectors, folder: Path, state: dict[str, Any], by_cosine: bool
) -> dict[str, Any]:
    """Append what is missing of the corpus; return the finished state."""
    held_out, rows = set(state["query_ids"]), state["rows"]
    row_bytes, unrecorded = 4 * points.dimension, 0
    vectors_file = _opened(folder / "vectors.f32", rows * row_bytes)
    ids_file = _opened(folder / "ids.s36", rows * ID_BYTES)
    with vectors_file, ids_file:
        for block in points.blocks(offset=state["following"]):
            _check_distance(points, block.vectors, by_cosine)
            kept = [row for row, point in enumerate(block.ids) if point not in held_out]
            vectors_file.write(np.ascontiguousarray(block.vectors[kept], "<f4").tobytes())
            ids = [str(block.ids[row]).encode() for row in kept]
            ids_file.write(np.array(ids, f"S{ID_BYTES}").tobytes())
            rows, unrecorded = rows + len(kept), unrecorded + len(kept) * row_bytes
            if unrecorded >= RECORD_BYTES or block.following is None:
                _on_disk(vectors_file, ids_file)
                state = {**state, "rows": rows, "following": block.following}
                write_json(folder / "task.json", state)
                unrecorded = 0
        _on_disk(vectors_file, ids_file)
    state = {**state, "rows": rows, "following": None, "done": True}
    write_json(folder / "task.json", state)
    return state


def _opened(path: Path, length: int) -> IO[bytes]:
    """Open a file to append, cut to what was recorded of it."""
    file = path.open("r+b" if path.exists() else "w+b")
    file.truncate(length)
    file.seek(length)
    return file


def _on_disk(*files: IO[bytes]) -> None:
    for file in files:
        file.flush()
        os.fsync(file.fileno())


def _check_distance(points: CollectionVectors, vectors: Matrix, by_cosine: bool) -> None:
    """Raise ConfigError unless the collection ranks these vectors as the cosine does."""
    if points.normalised or by_cosine:
        return
    unit = np.abs(np.linalg.norm(vectors, axis=1) - 1) <= UNIT_TOLERANCE
    if points.distance in ("Dot", "Euclid") and unit.all():
        return
    raise ConfigError(
        f"{points.location} compares by {points.distance}, and not as the cosine would, by which "
        "the benchmark's systems compare: allow the cosine to measure all of them on its directions"
    )


def _task(points: CollectionVectors, folder: Path, state: dict[str, Any]) -> CollectionTask:
    n = state["rows"]
    if not n:
        raise CsrError(f"{points.location} has no points beside the queries: nothing to search")
    shape = (n, points.dimension)
    try:
        vectors = np.memmap(folder / "vectors.f32", "<f4", "r", shape=shape)
        ids = np.memmap(folder / "ids.s36", f"S{ID_BYTES}", "r", shape=(n,))
        queries = np.load(folder / "queries.npy")
    except (OSError, ValueError) as error:
        raise CsrError(f"{folder} is damaged ({error}): remove it to read anew") from error
    return CollectionTask(
        name=points.location,
        distance=points.distance,
        folder=folder,
        doc_ids=MappedIds(ids),
        vectors=vectors,
        query_ids=[str(point) for point in state["query_ids"]],
        queries=queries,
    )
