"""Rows for training: gathered from memory maps, in an order that depends on seed and step alone."""

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from csr_qdrant.errors import CsrError

Array = npt.NDArray[Any]
Index = npt.NDArray[np.int64]

SHUFFLED_ROWS = (
    1 << 25
)  # beyond it, rows are drawn instead of shuffled: a permutation takes 8 B a row
SAMPLED_ROWS = 50_000  # rows that tell the scale of a corpus


def check_vectors(vectors: Array, name: str = "the training vectors") -> None:
    """Raise CsrError unless `vectors` is a non-empty (n, d) array of numbers."""
    if vectors.ndim != 2 or not vectors.size:
        raise CsrError(f"{name} must have shape (n, d) with rows in it, got {vectors.shape}")
    if vectors.dtype.kind not in "fiu":
        raise CsrError(f"{name} must be numbers, got {vectors.dtype}: convert them first")


def gather(vectors: Array, rows: Index, name: str = "the training vectors") -> Any:
    """Return `vectors[rows]` as float32, checked; sorted reading is kind to a memory map.

    Raises CsrError naming the first row that is all zeros or holds NaN or infinity.
    """
    order = np.argsort(rows, kind="stable")
    block = np.empty((len(rows), vectors.shape[1]), np.float32)
    block[order] = vectors[rows[order]]
    squares = np.einsum("ij,ij->i", block, block)
    bad = ~(np.isfinite(squares) & (squares > 0))
    if bad.any():
        row = int(rows[bad].min())
        what = "is all zeros" if not np.any(vectors[row]) else "holds NaN or infinity"
        raise CsrError(f"row {row} of {name} {what}: it has no direction; mend or remove it")
    return block


def typical_norm(vectors: Array) -> float:
    """Return the mean L2 norm over up to 50,000 rows spread evenly through the corpus."""
    rows = np.unique(
        np.linspace(0, len(vectors) - 1, min(len(vectors), SAMPLED_ROWS)).astype(np.int64)
    )
    starts = range(0, len(rows), 4096)
    norms = [np.linalg.norm(gather(vectors, rows[s : s + 4096]), axis=1) for s in starts]
    return float(np.concatenate(norms).mean())


@dataclass(frozen=True)
class Split:
    """Row numbers 0..n − 1 parted into held-out rows and the rest, without listing the rest."""

    n: int
    held_out: Index  # sorted

    @classmethod
    def random(cls, n: int, held_out: int, seed: int) -> "Split":
        """Hold out `held_out` random rows, but never more than a tenth of them."""
        count = min(held_out, n // 10)
        rng = np.random.default_rng((seed, 1))
        return cls(n, np.sort(rng.choice(n, count, replace=False)).astype(np.int64))

    @property
    def training_rows(self) -> int:
        """Number of rows that are left for training."""
        return self.n - len(self.held_out)

    def training(self, positions: Index) -> Index:
        """Return the row numbers of the training rows at `positions` (0..training_rows − 1)."""
        before = self.held_out - np.arange(len(self.held_out))  # training rows before each
        return positions + np.searchsorted(before, positions, side="right")


class Order:
    """Which of n rows each step takes: epochs of shuffled rows, found from the step number."""

    def __init__(self, n: int, batch: int, seed: tuple[int, ...]) -> None:
        """Plan steps of `batch` rows (fewer if there are fewer) out of `n`."""
        self.n, self.batch, self.seed = n, min(n, batch), seed
        self._epoch: tuple[int, Index] = (-1, np.empty(0, np.int64))

    def at(self, step: int) -> Index:
        """Return the rows of `step`, (batch,)."""
        if self.n > SHUFFLED_ROWS:
            rng = np.random.default_rng((*self.seed, step))
            return rng.integers(self.n, size=self.batch)
        epoch, within = divmod(step, self.n // self.batch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, np.random.default_rng((*self.seed, epoch)).permutation(self.n))
        return self._epoch[1][within * self.batch : (within + 1) * self.batch]


class Batch(NamedTuple):
    """Rows of one step. With pairs, the last 2p rows are p queries, then their p documents."""

    x: Any  # (B, d) float32 numpy array
    labels: Index | None = None  # (B,), −1: no label
    pairs: int = 0  # p
    known: npt.NDArray[np.bool_] | None = None  # (p, p) other pairs that are no negatives
    weights: npt.NDArray[np.float32] | None = None  # (p,)


def prefetched(make: Callable[[int], Batch], start: int) -> Generator[Batch, None, None]:
    """Yield `make(start)`, `make(start + 1)`, …, each read while the step before computes."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        coming = pool.submit(make, start)
        while True:
            start += 1
            batch, coming = coming.result(), pool.submit(make, start)
            yield batch
