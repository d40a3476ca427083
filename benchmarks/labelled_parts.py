"""Vectors in several files as one source, whose values are checked on their way."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.errors import CsrError
from csr_qdrant.sources import Block, Source


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts `chunk_2` before `chunk_10`."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


class Parts:
    """Sources of vectors one after the other.

    Other dimensions than those of the first, NaN and infinity raise CsrError while they are read.
    """

    kind = "vectors"

    def __init__(self, name: str, sources: Sequence[Source]) -> None:
        """Take one source or more; `name` is what messages call them."""
        self.name = name
        self._sources = sources

    @property
    def fingerprint(self) -> str:
        """Hash that changes with the files."""
        return hashlib.sha256("\0".join(s.fingerprint for s in self._sources).encode()).hexdigest()

    @property
    def mapped(self) -> Matrix | None:
        """The memory map of a single float32 `.npy` file; None for all else."""
        array = getattr(self._sources[0], "array", None)
        if len(self._sources) > 1 or array is None or array.dtype != np.float32:
            return None
        mapped: Matrix = array
        return mapped

    def __len__(self) -> int:
        """Return the number of rows of all."""
        return sum(map(len, self._sources))

    def blocks(self, size: int, start: int = 0) -> Iterator[Block]:
        """Yield rows `start`.. in blocks of at most `size` rows; their ids are row numbers."""
        before, d = 0, 0  # rows of earlier parts; dimensions
        for source in self._sources:
            skipped = min(max(start - before, 0), len(source))
            for block in source.blocks(size, skipped):
                d = _checked_dimension(block, d, source.name)
                first = before + block.start
                yield replace(block, start=first, ids=range(first, first + len(block)))
            before += len(source)


def _checked_dimension(block: Block, d: int, name: str) -> int:
    """Return the block's number of dimensions; raises CsrError for values that cannot be used."""
    vectors = block.vectors
    if vectors is None:
        raise CsrError(f"{name} holds no vectors: name a file of vectors")
    if d and vectors.shape[1] != d:
        raise CsrError(
            f"{name} has {vectors.shape[1]} dimensions, the parts before it {d}: embed all with "
            f"one model"
        )
    # A sum is NaN or infinite if a term is; only then is each value looked at.
    with np.errstate(invalid="ignore"):
        if np.isfinite(vectors.sum(dtype=np.float64)):
            return int(vectors.shape[1])
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise CsrError(
            f"row {block.start + bad[0]} of {name} holds NaN or infinity: mend or remove it"
        )
    return int(vectors.shape[1])
