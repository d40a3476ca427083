"""Codes in the sparse format of qdrant/vector-db-benchmark, with their exact results.

Its reader takes a folder of three little-endian files, whose layout is that of big-ann-benchmarks'
sparse track: `data.csr` and `queries.csr` hold int64 rows, columns and entries, then int64 row
pointers, int32 columns and float32 values; `results.gt` holds uint32 queries and depth, then all
int32 ids and all float32 scores. A document's id is its row.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from csr_qdrant.atomic import replaced_folder, write_json
from csr_qdrant.benchmarks.neighbours import Neighbours
from csr_qdrant.codes import SparseCodes
from csr_qdrant.codes_file import CodesFile
from csr_qdrant.errors import ConfigError

BLOCK = 65_536  # documents that are held at a time
_LIMIT = 2**31  # of int32 columns and ids
_ABSENT = -1


class Exported(NamedTuple):
    """What was written, and what a reader of its figures should know."""

    documents: int
    queries: int
    empty_documents: int  # codes without a latent: no search finds them
    empty_queries: int
    short_queries: int  # with fewer results than the depth: no engine can reach precision 1 there


def export(
    folder: Path,
    documents: SparseCodes | CodesFile,
    queries: SparseCodes,
    *,
    depth: int = 100,
    normalise: bool = True,
    overwrite: bool = False,
    block: int = BLOCK,
) -> Exported:
    """Write `folder`, whole or not at all: the three files, and `dataset.json` for its list.

    Documents may be a file that is larger than memory: `block` of them are held at a time. Codes
    are brought to L2 norm 1, as the stores do, unless `normalise` is False. The entry in
    `dataset.json` names the folder as it lies under that benchmark's `datasets/`.

    Raises ConfigError for codes of different hidden sizes or beyond int32.
    """
    _check(documents, queries, depth)
    queries = queries.normalised() if normalise else queries
    with replaced_folder(folder, overwrite=overwrite) as made:
        empty = _write_codes(made / "data.csr", documents, normalise, block)
        _write_codes(made / "queries.csr", queries, False, block)
        truth = exact_results(documents, queries, depth, normalise=normalise, block=block)
        _write_results(made / "results.gt", truth)
        entry = {"name": folder.name, "type": "sparse", "path": folder.name}
        write_json(made / "dataset.json", entry)
    return Exported(
        len(documents),
        len(queries),
        empty,
        int((queries.lengths == 0).sum()),
        int((truth.rows == _ABSENT).any(axis=1).sum()),
    )


def exact_results(
    documents: SparseCodes | CodesFile,
    queries: SparseCodes,
    depth: int,
    *,
    normalise: bool = True,
    block: int = BLOCK,
) -> Neighbours:
    """Return the min(depth, n) documents with the largest dot product, best first, (m, depth).

    As in a sparse index, only documents that share a latent with the query count; where these are
    too few, the id is -1 and the score 0. Sums are taken in float64; ties go to the lower row.
    """
    depth = min(depth, len(documents))
    rows = np.full((len(queries), depth), _ABSENT, np.int64)
    scores = np.zeros((len(queries), depth), np.float32)
    for start, codes in _blocks(documents, normalise, block):
        order = np.argsort(codes.indices, kind="stable")  # entries by latent: posting lists
        columns = codes.indices[order]
        owners, values = np.repeat(np.arange(len(codes)), codes.lengths)[order], codes.values[order]
        for i, query in enumerate(queries.rows()):
            first = np.searchsorted(columns, query.indices, "left")
            last = np.searchsorted(columns, query.indices, "right")
            taken = _ranges(first, last)
            products = values[taken] * np.repeat(query.values.astype(np.float64), last - first)
            found = np.flatnonzero(np.bincount(owners[taken], minlength=len(codes)))
            sums = np.bincount(owners[taken], products, len(codes))[found].astype(np.float32)
            known = rows[i] != _ABSENT
            rows[i], scores[i] = _best(
                np.concatenate([rows[i][known], found + start]),
                np.concatenate([scores[i][known], sums]),
                depth,
            )
    return Neighbours(rows, scores)


def _ranges(first: npt.NDArray[np.intp], last: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return first[0]..last[0] - 1, first[1]..last[1] - 1, and so on, as one array."""
    lengths = last - first
    shifts: npt.NDArray[np.intp] = np.repeat(first - (np.cumsum(lengths) - lengths), lengths)
    shifts += np.arange(len(shifts))
    return shifts


def _best(
    rows: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], depth: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the `depth` best, filled up; `rows` rise within what has equal scores."""
    order = np.lexsort((rows, -scores))[:depth]
    missing = depth - len(order)
    return (
        np.pad(rows[order], (0, missing), constant_values=_ABSENT),
        np.pad(scores[order], (0, missing)),
    )


def _blocks(
    codes: SparseCodes | CodesFile, normalise: bool, size: int
) -> Iterator[tuple[int, SparseCodes]]:
    for start in range(0, len(codes), size):
        stop = start + size
        block = codes.read(start, stop) if isinstance(codes, CodesFile) else codes[start:stop]
        yield start, block.normalised() if normalise else block


def _write_codes(path: Path, codes: SparseCodes | CodesFile, normalise: bool, size: int) -> int:
    """Write one file of codes and return how many are empty; two passes over the rows."""
    pointers = np.zeros(len(codes) + 1, "<i8")
    for start, block in _blocks(codes, normalise, size):
        pointers[start + 1 : start + 1 + len(block)] = block.lengths
    empty = int((pointers[1:] == 0).sum())
    np.cumsum(pointers, out=pointers)
    head = np.array([len(codes), codes.h, pointers[-1]], "<i8")
    columns_at = head.nbytes + pointers.nbytes
    values_at = columns_at + 4 * int(pointers[-1])
    with path.open("wb") as file:
        _write(file, 0, head)
        _write(file, head.nbytes, pointers)
        for start, block in _blocks(codes, normalise, size):
            offset = 4 * int(pointers[start])
            _write(file, columns_at + offset, block.indices.astype("<i4"))
            _write(file, values_at + offset, block.values.astype("<f4"))
    return empty


def _write_results(path: Path, truth: Neighbours) -> None:
    with path.open("wb") as file:
        head = np.array(truth.rows.shape, "<u4")
        ids = truth.rows.astype("<i4")
        _write(file, 0, head)
        _write(file, head.nbytes, ids)
        _write(file, head.nbytes + ids.nbytes, truth.scores.astype("<f4"))


def _write(file: IO[bytes], place: int, array: npt.NDArray[Any]) -> None:
    file.seek(place)
    file.write(array.tobytes())


def _check(documents: SparseCodes | CodesFile, queries: SparseCodes, depth: int) -> None:
    if documents.h != queries.h:
        raise ConfigError(
            f"documents and queries need one hidden size, got {documents.h} and {queries.h}: "
            "encode both with the same encoder"
        )
    if documents.h > _LIMIT or len(documents) > _LIMIT:
        raise ConfigError(
            f"the format counts latents and documents in int32, got h={documents.h} and "
            f"{len(documents)} documents: export fewer"
        )
    if depth < 1 or not len(documents) or not len(queries):
        raise ConfigError(
            f"an export needs depth >= 1, documents and queries, got depth={depth}, "
            f"{len(documents)} documents and {len(queries)} queries"
        )
