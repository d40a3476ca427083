"""What a run of `scale` asks, finds and records."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from csr_qdrant.benchmarks.engine import BuildReport
from csr_qdrant.benchmarks.scale_model import (
    LatencyModel,
    MemoryModel,
    Residuals,
    Timings,
    predict,
)
from csr_qdrant.errors import ConfigError
from csr_qdrant.stores.base import Datatype

DATATYPES: tuple[Datatype, ...] = ("f32", "u8")
GOAL = 0.3  # relative error of the predicted p50, at most
COLLECTIONS = ((10_000_000, 1), (10_000_000, 4), (100_000_000, 16), (1_000_000_000, 128))


@dataclass(frozen=True, kw_only=True)
class ScaleConfig:
    """Sizes that are fitted and checked, and what is indexed and asked."""

    fitted: tuple[int, ...] = (100_000, 200_000, 400_000)
    checked: tuple[int, ...] = (1_000_000,)
    k: int = 32  # active latents of documents
    query_ks: tuple[int, ...] = (4, 8, 16, 32)
    datatype: Datatype = "f32"
    queries: int = 200
    repeats: int = 5  # times that each query is timed

    def __post_init__(self) -> None:
        """Check the sizes and names."""
        if len(set(self.fitted)) < 2 or min((*self.fitted, *self.checked)) < 1:
            raise ConfigError(f"a fit needs two sizes above 0 or more, got {self.fitted}")
        if self.datatype not in DATATYPES:
            raise ConfigError(f"datatype is {' or '.join(DATATYPES)}, got {self.datatype!r}")
        if min(self.k, self.queries, self.repeats, *self.query_ks) < 1:
            raise ConfigError("k, query_ks, queries and repeats must be at least 1")


class Measured(NamedTuple):
    """One size."""

    build: BuildReport
    index_bytes: int
    lists: int  # that are not empty
    postings: int  # in all
    timings: dict[int, Timings]  # by latents of a query


class Scaled(NamedTuple):
    """Everything that a run finds."""

    sizes: dict[int, Measured]
    latency: LatencyModel
    memory: MemoryModel
    fitted: Residuals  # single queries, sizes that were fitted
    checked: Residuals | None  # the same, sizes that were not


def to_json(scaled: Scaled, config: ScaleConfig) -> dict[str, Any]:
    """Return the record: each size's p50 measured and predicted, the models, larger collections."""
    largest = scaled.sizes[max(scaled.sizes)]
    n = max(scaled.sizes)
    shares = {k: float(np.median(t.postings)) / n for k, t in largest.timings.items()}
    foretold = [
        {"query_k": k}
        | predict(
            scaled.latency,
            scaled.memory,
            rows=rows,
            shards=shards,
            touched_share=share,
            postings_a_row=largest.postings / n,
            lists=largest.lists,
        ).to_json()
        for rows, shards in COLLECTIONS
        for k, share in shares.items()
    ]
    return {
        "sizes": [_size_json(size, each, scaled, config) for size, each in scaled.sizes.items()],
        "latency_model": asdict(scaled.latency),
        "memory_model": asdict(scaled.memory),
        "residuals": scaled.fitted._asdict(),
        "residuals_checked": scaled.checked._asdict() if scaled.checked else None,
        "touched_share": {str(k): share for k, share in shares.items()},
        "predicted": foretold,
        "goal_relative_error_at_most": GOAL,
    }


def lines(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Return one line a size and a larger collection, from a record's results."""
    found = []
    for size in results["sizes"]:
        errors = ", ".join(
            f"{k} latents {p['measured_ms']:.3f} ms ({p['relative_error']:+.0%} predicted)"
            for k, p in size["p50_by_query_k"].items()
        )
        found.append((f"{size['rows']:,}{'' if size['fitted'] else ' (not fitted)'}", errors))
    for each in results["predicted"]:
        key = f"{each['rows']:,} over {each['shards']}, {each['query_k']} latents"
        found.append((key, f"p50 {each['p50_ms']:.1f} ms, {each['ram_gb']:.1f} GB (predicted)"))
    return found


def _size_json(n: int, each: Measured, scaled: Scaled, config: ScaleConfig) -> dict[str, Any]:
    p50 = {}
    for k, timings in each.timings.items():
        measured = float(np.median(timings.latency_ms))
        predicted = float(np.median(scaled.latency.predict(timings.rows, timings.postings)))
        p50[str(k)] = {
            "measured_ms": measured,
            "predicted_ms": predicted,
            "relative_error": predicted / measured - 1,
            "postings_share": float(np.median(timings.postings)) / n,
        }
    predicted_bytes = scaled.memory.predict(each.postings, each.lists)
    return {
        "rows": n,
        "fitted": n in config.fitted,
        "upload_s": each.build.upload_s,
        "optimise_s": each.build.optimise_s,
        "postings": each.postings,
        "index_bytes": each.index_bytes,
        "index_relative_error": predicted_bytes / each.index_bytes - 1,
        "p50_by_query_k": p50,
    }
