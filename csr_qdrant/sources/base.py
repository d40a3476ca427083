"""What a source gives: rows in blocks, in a fixed order, from any row on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import CsrError
from csr_qdrant.ids import ExternalId

# Rows a block where whole sources are worked through, by kind; texts take longest.
BLOCK_ROWS = {"vectors": 4096, "codes": 2048, "texts": 256}

# Qdrant takes dense vectors of no more. A hostile file could claim any, and fill the memory.
MAX_DIMENSION = 65_536


def too_wide(dimension: int, name: str) -> CsrError:
    """Return the error for vectors of more than `MAX_DIMENSION` dimensions."""
    return CsrError(
        f"{name} has {dimension:,} dimensions, Qdrant takes up to {MAX_DIMENSION:,}: check the file"
    )


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows of a source; exactly one of `vectors`, `texts` and `codes` is given."""

    start: int  # row number of the first row within the source
    ids: Sequence[ExternalId]
    vectors: npt.NDArray[np.float32] | None = None  # (n, d)
    texts: Sequence[str] | None = None
    codes: SparseCodes | None = None
    payloads: Sequence[Mapping[str, Any]] | None = None  # None: no payload

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.ids)


class Source(Protocol):
    """Rows on disk; opening it has checked its structure, its ids and its number of rows."""

    @property
    def name(self) -> str:
        """What to call the source in messages: its path."""

    @property
    def kind(self) -> str:
        """`vectors`, `texts` or `codes`: which field of its blocks is filled."""

    @property
    def fingerprint(self) -> str:
        """Text that changes whenever the files or the way they are read change."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def blocks(self, size: int, start: int = 0) -> Iterator[Block]:
        """Yield rows `start`.. in blocks of `size` rows (the last may be smaller).

        Reads no more than a few blocks into memory, and skips to `start` as cheaply as the format
        allows.
        """
