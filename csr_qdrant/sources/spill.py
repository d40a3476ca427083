"""Vectors of any source as one array on disk, for those who need any row at any time."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from csr_qdrant.atomic import replaced_file
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.sources.arrays import as_float32
from csr_qdrant.sources.base import Source
from csr_qdrant.sources.npy import map_npy

Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]


def as_memmap(
    source: Source,
    path: str | Path,
    embed: Embed | None = None,
    *,
    size: int = 4096,
    progress: Callable[[int], None] | None = None,
) -> npt.NDArray[Any]:
    """Return the vectors of `source` as an (n, d) array that can be read at any row.

    Vectors that lie in an array or a `.npy` file already are returned as they are (float16 to
    float64). Others are streamed to `path`, `size` rows at a time, and mapped from there
    (float32); texts go through `embed`. An existing file at `path` is replaced when all is
    written. `progress` is called with the number of rows of each block.

    Raises ConfigError if `embed` is missing, CsrError if the source holds codes or the file
    cannot be written.
    """
    array: npt.NDArray[Any] | None = getattr(source, "array", None)
    if array is not None and array.flags.c_contiguous and array.dtype.isnative:
        return array
    if source.kind == "codes":
        raise CsrError(f"{source.name} holds codes, dense vectors are needed: name their file")
    if source.kind == "texts" and embed is None:
        raise ConfigError(f"{source.name} holds texts: name an embedder that makes vectors of them")
    path = Path(path)
    try:
        with replaced_file(path) as temporary:
            _write(source, temporary, _vectors(source, embed, size), progress)
    except OSError as error:
        raise CsrError(
            f"{path} cannot be written ({error.strerror or error}): free space or choose another"
        ) from error
    return map_npy(path)


def _vectors(source: Source, embed: Embed | None, size: int) -> Iterator[npt.NDArray[np.float32]]:
    for block in source.blocks(size):
        if block.vectors is not None:
            yield block.vectors
        elif block.texts is not None and embed is not None:
            try:
                vectors = embed(block.texts)
            except OSError as error:  # of a model that is asked over a network, say
                raise CsrError(f"{source.name} could not be embedded: {error}") from error
            yield as_float32(vectors)


def _write(
    source: Source,
    path: Path,
    blocks: Iterator[npt.NDArray[np.float32]],
    progress: Callable[[int], None] | None,
) -> None:
    """Write `blocks` to `path` with plain writes: on a full disk, a mapped file kills us."""
    first = next(blocks)
    dimension = first.shape[-1]
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(source), dimension)}
    rows = 0
    with path.open("wb") as file:
        npy_format.write_array_header_1_0(file, header)
        for block in chain([first], blocks):
            if block.shape[1:] != (dimension,):
                raise CsrError(
                    f"{source.name} row {rows} has shape {block.shape[1:]} where the rows before "
                    f"have ({dimension},): all vectors need the same dimension"
                )
            file.write(np.ascontiguousarray(block, "<f4").data)
            rows += len(block)
            if progress is not None:
                progress(len(block))
    if rows != len(source):
        raise CsrError(f"{source.name} gave {rows} vectors for {len(source)} rows: check it")
