"""What a search in codes costs: a model of latency and of RAM, its fit, and what it foretells.

The engine goes through the whole posting list of each query latent and never prunes, over windows
of document ids that it also goes through whole. So one query takes, in one shard of N documents,

    latency = a + b N + c P,      P = Σ lengths of the posting lists of the query's latents,

a milliseconds for the call, b a document, c a posting. P grows with N at equal codes. The index
takes, in RAM, so many bytes a posting (they depend on the datatype) and so many a list.

Beyond one shard two things are assumed and not measured: shards hold equal parts and are searched
at once, each on a core of its own with the memory bandwidth that the fit had; merging takes
`merge_ms` a search and shard.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from csr_qdrant.errors import ConfigError

Column = npt.NDArray[np.float64]
HUBER = 1.345  # of the residuals' robust deviation; 95 % efficient where noise is normal
ROUNDS = 30
MERGE_MS = 0.05  # a shard: an assumption, not a measurement


class Timings(NamedTuple):
    """One timed query a row."""

    rows: Column  # (t,) documents in the shard
    postings: Column  # (t,) postings touched
    latency_ms: Column  # (t,)

    @classmethod
    def joined(cls, parts: Sequence["Timings"]) -> "Timings":
        """Return the timings of several sizes as one."""
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


class Residuals(NamedTuple):
    """Relative errors |predicted − measured| / measured."""

    median: float
    p95: float
    largest: float


@dataclass(frozen=True)
class LatencyModel:
    """Costs that are never negative: `call_ms` + `document_ms` N + `posting_ms` P."""

    call_ms: float
    document_ms: float
    posting_ms: float

    def predict(self, rows: Any, postings: Any) -> Column:
        """Return the latency in ms of queries that touch so many `postings` of `rows` documents."""
        n, p = np.asarray(rows, np.float64), np.asarray(postings, np.float64)
        return np.asarray(self.call_ms + self.document_ms * n + self.posting_ms * p, np.float64)

    def residuals(self, timings: Timings) -> Residuals:
        """Return how far the model is from some timings."""
        predicted = self.predict(timings.rows, timings.postings)
        errors = np.abs(predicted / timings.latency_ms - 1)
        median, p95 = np.percentile(errors, [50, 95]).tolist()
        return Residuals(median, p95, float(errors.max()))


def fit_latency(timings: Timings) -> LatencyModel:
    """Return the costs that fit best, by relative errors: sizes far apart count alike.

    Huber's loss by reweighted least squares, so that a few queries that the machine interrupted
    do not pull; costs below zero are left out of the model. Raises ConfigError unless there are
    three timings of two sizes, all above zero.
    """
    rows, postings, measured = (np.asarray(column, np.float64) for column in timings)
    if len(measured) < 3 or len(np.unique(rows)) < 2 or not np.all(measured > 0):
        raise ConfigError(
            f"a fit needs three timings above 0 ms of two sizes or more, got {len(measured)} "
            f"timings of {len(np.unique(rows))} sizes"
        )
    # Each row divided by what was measured: the target is 1 and the residual a relative error.
    design = np.column_stack([np.ones_like(rows), rows, postings]) / measured[:, None]
    weights = np.ones_like(measured)
    costs = _non_negative(design, weights)
    for _ in range(ROUNDS):
        errors = np.abs(design @ costs - 1)
        deviation = 1.4826 * float(np.median(errors))
        if deviation < 1e-12:
            break  # exact already
        weights = np.minimum(1, HUBER * deviation / np.maximum(errors, 1e-300))
        costs = _non_negative(design, weights)
    return LatencyModel(*costs.tolist())


class Sizes(NamedTuple):
    """Measured indexes, one a row."""

    postings: Column  # (s,)
    lists: Column  # (s,) posting lists that are not empty
    index_bytes: Column  # (s,)


@dataclass(frozen=True)
class MemoryModel:
    """Bytes of the sparse index: so many a posting and a list."""

    posting_bytes: float
    list_bytes: float

    def predict(self, postings: float, lists: float) -> float:
        """Return the bytes of an index of so many `postings` in so many `lists`."""
        return self.posting_bytes * postings + self.list_bytes * lists


def fit_memory(sizes: Sizes) -> MemoryModel:
    """Return the bytes a posting and a list, by relative errors; two sizes at least."""
    postings, lists, measured = (np.asarray(column, np.float64) for column in sizes)
    if len(np.unique(postings)) < 2 or not np.all(measured > 0):
        raise ConfigError("a fit of the index's size needs two sizes above 0 bytes or more")
    design = np.column_stack([postings, lists]) / measured[:, None]
    return MemoryModel(*_non_negative(design, np.ones(len(measured))).tolist())


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A collection of `rows` documents over `shards`: what a query takes, and what RAM."""

    rows: int
    shards: int
    p50_ms: float  # of the median query, with merging
    ram_gb: float  # 10^9 bytes, of all shards' sparse indexes

    def to_json(self) -> dict[str, float]:
        """Return plain numbers."""
        return asdict(self)


def predict(
    latency: LatencyModel,
    memory: MemoryModel,
    *,
    rows: int,
    shards: int,
    touched_share: float,
    postings_a_row: float,
    lists: int,
    merge_ms: float = MERGE_MS,
) -> Prediction:
    """Return what `rows` documents over `shards` would take.

    Args:
        latency: costs of a query in one shard.
        memory: costs of an index.
        rows: documents in all.
        shards: equal parts, searched at once; more than one adds `merge_ms` each.
        touched_share: postings that the median query touches, as a multiple of the documents.
        postings_a_row: active latents of a document, in the mean.
        lists: posting lists that are not empty.
        merge_ms: what merging takes a search and shard: an assumption.
    """
    if rows < 1 or shards < 1 or shards > rows:
        raise ConfigError(f"a prediction needs 1 <= shards <= rows, got {shards} and {rows}")
    part = -(-rows // shards)  # the largest shard is the slowest
    slowest = float(latency.predict(part, touched_share * part))
    indexes = memory.predict(postings_a_row * rows, lists * shards)
    return Prediction(
        rows=rows,
        shards=shards,
        p50_ms=slowest + (merge_ms * shards if shards > 1 else 0.0),
        ram_gb=indexes / 1e9,
    )


def _non_negative(design: Column, weights: Column) -> Column:
    """Return x >= 0 of least Σ w (design x − 1)²: the best of all subsets of a few columns."""
    columns = design.shape[1]
    scale = np.linalg.norm(design, axis=0)
    root = np.sqrt(weights)
    scaled = design / np.where(scale > 0, scale, 1) * root[:, None]
    best, least = np.zeros(columns), float(weights.sum())
    for size in range(1, columns + 1):
        for chosen in map(list, combinations(range(columns), size)):
            found = np.linalg.lstsq(scaled[:, chosen], root, rcond=None)[0]
            loss = float(np.sum((scaled[:, chosen] @ found - root) ** 2))
            if found.min() >= 0 and loss < least:
                best, least = np.zeros(columns), loss
                best[chosen] = found
    return np.asarray(best / np.where(scale > 0, scale, 1), np.float64)
