"""What a folder takes on disk, and whether there is room for more."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from csr_qdrant.errors import CsrError

BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system's own blocks are
# What must stay free. The engine writes through memory maps of sparse files: where the disk has no
# block left for a page of them, the kernel kills the process (SIGBUS) and no error can be caught.
# Twice its write-ahead log of 32 MiB, and as much again for the pages that one call touches.
RESERVE_BYTES = 128 * 2**20


class DiskSizes(NamedTuple):
    """Bytes of an embedded collection; its storage pages are preallocated, hence two totals."""

    code_index: int  # files of the built sparse index: what a search reads; 0 before `optimise`
    apparent: int  # all files by their length
    allocated: int  # all files by the disk blocks that they occupy


def disk_sizes(folder: Path, code_name: str) -> DiskSizes:
    """Measure `folder`; `code_name` is the sparse vector whose index counts as the code index."""
    index = apparent = allocated = 0
    for path, status in _files(folder):
        apparent += status.st_size
        # Windows has no blocks: the length is the best that it tells.
        allocated += getattr(status, "st_blocks", -(-status.st_size // BLOCK_BYTES)) * BLOCK_BYTES
        if f"vector_index-{code_name}" in path.parts:
            index += status.st_size
    return DiskSizes(index, apparent, allocated)


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield every file; one that the engine removes meanwhile is passed over."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            try:
                yield path, path.stat()
            except FileNotFoundError:
                continue


def require_space(folder: Path, extra: int = 0) -> None:
    """Raise CsrError unless the disk of `folder` has room for `extra` bytes beyond the reserve."""
    free, needed = shutil.disk_usage(folder).free, RESERVE_BYTES + extra
    if free < needed:
        raise CsrError(
            f"the disk that holds {folder} is nearly full: {free // 2**20} MiB are free, the "
            f"next write needs {-(-needed // 2**20)} MiB: free some space and try again"
        )
