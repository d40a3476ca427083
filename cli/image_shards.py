"""Vectors of images on disk while a run lasts: shards, whole or not there, and a manifest."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from csr_qdrant.atomic import remove_whole, replaced_file, write_json
from csr_qdrant.embedders.image_rows import ImageBatch
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.ids import ID_KEY
from csr_qdrant.json_files import read_json
from csr_qdrant.sources.images import ImageRow
from csr_qdrant.sources.npy import map_npy

VERSION = 1
_MANIFEST = "manifest.json"


class Origin(NamedTuple):
    """What the vectors of a run come from; another run may go on with equal ones only."""

    embedder: str  # URI
    source: str  # fingerprint
    images: int  # number of rows of the source


class ImageShards:
    """A folder with the vectors, the rows and the skipped images of each finished shard."""

    def __init__(self, folder: Path, origin: Origin, rows: int, *, restart: bool = False) -> None:
        """Go on with what lies in `folder`, or begin there with shards of `rows` images each.

        Raises ConfigError if the folder was begun from another origin, unless `restart` is given:
        then its content is removed.
        """
        if rows < 1:
            raise ConfigError(f"shard_rows must be at least 1, got {rows}")
        self._folder = folder
        manifest = None if restart and not _fits(folder, origin) else _manifest(folder)
        if folder.is_file():
            raise ConfigError(f"{folder} belongs to another run: remove it, or choose another name")
        if manifest is None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            manifest = {"version": VERSION, **origin._asdict(), "shard_rows": rows, "shards": []}
            write_json(folder / _MANIFEST, manifest)
        _check_origin(folder, manifest, origin)
        self._content = manifest
        self.rows: int = manifest["shard_rows"]  # images a shard, as the run was begun

    @property
    def done(self) -> int:
        """Number of finished shards; the next one begins at image `done * rows`."""
        return len(self._content["shards"])

    @property
    def vectors(self) -> int:
        """Number of vectors of the finished shards."""
        return sum(shard["vectors"] for shard in self._content["shards"])

    @property
    def skipped(self) -> int:
        """Number of skipped images of the finished shards."""
        return sum(shard["skipped"] for shard in self._content["shards"])

    def append(self, batches: Sequence[ImageBatch]) -> None:
        """Write the next shard; raises CsrError for vectors that are not finite."""
        vectors = np.concatenate([batch.vectors for batch in batches])
        rows = [row for batch in batches for row in batch.rows]
        skipped = [each for batch in batches for each in batch.skipped]
        _check_finite(vectors, rows, self._content["embedder"])
        _write_lines(self._path(self.done, "rows.jsonl"), [_described(row) for row in rows])
        _write_lines(
            self._path(self.done, "skipped.jsonl"),
            [{ID_KEY: each.id, "reason": each.reason} for each in skipped],
        )
        with replaced_file(self._path(self.done, "npy")) as file, file.open("wb") as opened:
            np.save(opened, vectors)
        counts = {"vectors": len(vectors), "skipped": len(skipped)}
        self._content["shards"].append(counts)  # counts once its files are there
        write_json(self._folder / _MANIFEST, self._content)

    def write_vectors(self, path: Path) -> None:
        """Write the vectors of all shards to `path`, a .npy file; raises CsrError if none."""
        if not self.vectors:
            first = next(self.lines("skipped"), {})
            raise CsrError(
                f"none of {self._content['images']:,} images could be decoded "
                f"({first.get(ID_KEY)}: {first.get('reason')}, for example): check the files"
            )
        parts = [map_npy(self._path(shard, "npy")) for shard in range(self.done)]
        shape = (self.vectors, parts[0].shape[1])
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        with replaced_file(path) as temporary, temporary.open("wb") as file:
            npy_format.write_array_header_1_0(file, header)
            for part in parts:
                file.write(np.ascontiguousarray(part, "<f4").data if len(part) else b"")

    def lines(self, kind: str) -> Iterator[dict[str, Any]]:
        """Yield what stands in the shards' `rows` or `skipped`, in order."""
        for shard in range(self.done):
            with self._path(shard, f"{kind}.jsonl").open(encoding="utf-8") as file:
                yield from map(json.loads, file)

    def write_lines(self, kind: str, path: Path) -> None:
        """Write all shards' `rows` or `skipped` to one file of JSON lines."""
        with replaced_file(path) as temporary, temporary.open("wb") as file:
            for shard in range(self.done):
                with self._path(shard, f"{kind}.jsonl").open("rb") as part:
                    shutil.copyfileobj(part, file)

    def labels(self) -> npt.NDArray[np.int64] | npt.NDArray[np.str_] | None:
        """Return the label of each vector; None if there are none.

        Numbers where all are, else texts, `""` where an image has no label.
        """
        labels = [line.get("label") for line in self.lines("rows")]
        if all(label is None for label in labels):
            return None
        if all(isinstance(label, int) for label in labels):
            return np.array(labels, np.int64)
        return np.array(["" if label is None else str(label) for label in labels], np.str_)

    def remove(self) -> None:
        """Remove the folder."""
        remove_whole(self._folder)

    def _path(self, shard: int, ending: str) -> Path:
        return self._folder / f"{shard:06}.{ending}"


def _manifest(folder: Path) -> dict[str, Any] | None:
    """Return what an earlier run has recorded; None if it has got nowhere."""
    try:
        content: Any = read_json(folder / _MANIFEST)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("version") == VERSION else None


def _fits(folder: Path, origin: Origin) -> bool:
    manifest = _manifest(folder)
    return manifest is not None and all(manifest[k] == v for k, v in origin._asdict().items())


def _check_origin(folder: Path, manifest: dict[str, Any], origin: Origin) -> None:
    if manifest["embedder"] != origin.embedder:
        raise ConfigError(
            f"{folder} was begun with {manifest['embedder']}, got {origin.embedder}: go on with "
            "the former, or start anew with --overwrite"
        )
    if (manifest["source"], manifest["images"]) != (origin.source, origin.images):
        raise ConfigError(
            f"{folder} was begun with other images ({manifest['images']:,} then, "
            f"{origin.images:,} now, or changed files): start anew with --overwrite"
        )


def _described(row: ImageRow) -> dict[str, Any]:
    """Return what stands beside a vector: `caption` is the first one, `captions` several."""
    known: dict[str, Any] = {ID_KEY: row.id}
    if row.label is not None:
        known["label"] = row.label
    if row.captions:
        known["caption"] = row.captions[0]
    if len(row.captions) > 1:
        known["captions"] = list(row.captions)
    return known | {key: value for key, value in row.payload.items() if key not in known}


def _write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    with replaced_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _check_finite(
    vectors: npt.NDArray[np.float32], rows: Sequence[ImageRow], embedder: str
) -> None:
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        bad = rows[int(np.argmin(finite))].id
        raise CsrError(f"{embedder} gives NaN or infinity for image {bad!r}: check the model")
