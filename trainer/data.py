"""Rows for training: gathered from memory maps, in an order that depends on seed and step alone."""

import math
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from csr_qdrant.errors import CsrError

Array = npt.NDArray[Any]
Index = npt.NDArray[np.int64]

CHECKED_BYTES = 1 << 30  # smaller arrays are read and checked whole before training
SAMPLED_ROWS = 50_000  # of larger ones, rows that are
ROUNDS = 12  # of the network that shuffles; with 6, orders of 16 rows are visibly uneven
U64 = np.uint64


def check_vectors(vectors: Array, name: str = "the training vectors") -> None:
    """Raise CsrError unless `vectors` is a non-empty (n, d) array of numbers."""
    if vectors.ndim != 2 or not vectors.size:
        raise CsrError(f"{name} must have shape (n, d) with rows in it, got {vectors.shape}")
    if vectors.dtype.kind not in "fiu":
        raise CsrError(f"{name} must be numbers, got {vectors.dtype}: convert them first")


def gather(vectors: Array, rows: Index, name: str = "the training vectors") -> Any:
    """Return `vectors[rows]` as float32, checked; sorted reading is kind to a memory map.

    Raises CsrError naming the first row without a direction: all zeros, NaN, infinity, or values
    whose squares leave the range of float32.
    """
    order = np.argsort(rows, kind="stable")
    block = np.empty((len(rows), vectors.shape[1]), np.float32)
    with np.errstate(over="ignore"):
        block[order] = vectors[rows[order]]
        squares = np.einsum("ij,ij->i", block, block)
    bad = ~(np.isfinite(squares) & (squares > 0))
    if bad.any():
        row = int(rows[bad].min())
        raise CsrError(f"row {row} of {name} {_fault(vectors[row])}: mend or remove it")
    return block


def _fault(row: Array) -> str:
    if not np.isfinite(row).all():
        return "holds NaN or infinity"
    if not row.any():
        return "is all zeros, so it has no direction"
    return f"holds values up to {np.abs(row).max():.1e}, which float32 cannot square"


def spread(n: int, count: int) -> Index:
    """Return `count` (at most n) of the rows 0..n − 1, evenly spread, in rising order."""
    count = min(n, count)
    return np.arange(count) * n // max(1, count)


def typical_norm(vectors: Array) -> float:
    """Return the mean L2 norm of the rows (beyond 1 GiB: of 50,000, evenly spread)."""
    whole = vectors.nbytes <= CHECKED_BYTES
    count = len(vectors) if whole else min(len(vectors), SAMPLED_ROWS)
    rows = spread(len(vectors), count)
    norms = [
        np.linalg.norm(gather(vectors, part), axis=1)
        for part in np.array_split(rows, -(-count // 4096))
    ]
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
    """Which of n rows each step takes: in every epoch each row once, in a new random order.

    The order is computed, not kept, so it takes no memory at any n, and any step can be asked for.
    The steps of an epoch are of one size (give or take a row), so that no row is left over.
    """

    def __init__(self, n: int, batch: int, seed: tuple[int, ...]) -> None:
        """Plan steps of at most `batch` rows out of `n`."""
        self.n, self.seed = n, seed
        self.steps_per_epoch = -(-n // max(1, batch))

    def at(self, step: int) -> Index:
        """Return the rows of `step`, different ones, in random order."""
        epoch, within = divmod(step, self.steps_per_epoch)
        first, last = (self.n * w // self.steps_per_epoch for w in (within, within + 1))
        rng = np.random.default_rng((*self.seed, epoch))
        keys = rng.integers(2**64, size=ROUNDS, dtype=np.uint64)
        return shuffled(np.arange(first, last), self.n, keys)


def shuffled(positions: Index, n: int, keys: npt.NDArray[np.uint64]) -> Index:
    """Return where a random permutation of 0..n − 1, chosen by `keys`, sends `positions`.

    A Feistel network permutes the smallest square that holds n; who lands outside goes on until
    inside, which leaves a permutation of 0..n − 1.
    """
    side = U64(math.isqrt(n - 1) + 1)
    places = positions.astype(np.uint64)
    outside = np.arange(len(places))
    while len(outside):
        left, right = np.divmod(places[outside], side)
        for key in keys:
            left, right = right, (left + _mixed(right ^ key) % side) % side
        places[outside] = left * side + right
        outside = outside[places[outside] >= n]
    return places.astype(np.int64)


def _mixed(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Scramble 64 bits (the finaliser of MurmurHash3, in the public domain)."""
    x = (x ^ (x >> U64(33))) * U64(0xFF51AFD7ED558CCD)
    x = (x ^ (x >> U64(33))) * U64(0xC4CEB9FE1A85EC53)
    return x ^ (x >> U64(33))


class Matches(NamedTuple):
    """p pairs within a batch; arrays in a `Batch`, tensors on the device."""

    queries: Any  # (p,) positions in the batch
    documents: Any  # (p,) positions in the batch
    known: Any  # (p, p + m) bool: other pairs of a query and a document that belong together
    weights: Any  # (p,) float32
    negatives: Any  # (m,) positions in the batch of documents that are known to be no answer


class Batch(NamedTuple):
    """Rows of one step, each once."""

    x: Any  # (B, d) float32 numpy array
    labels: Index | None = None  # (B,), −1: no label
    matches: Matches | None = None
    documents: int | None = None  # the first rows, which are to be found; None: all of them


def prefetched(make: Callable[[int], Batch], start: int) -> Generator[Batch, None, None]:
    """Yield `make(start)`, `make(start + 1)`, …, each read while the step before computes."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        coming = pool.submit(make, start)
        while True:
            start += 1
            batch, coming = coming.result(), pool.submit(make, start)
            yield batch
