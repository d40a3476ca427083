"""What codes would cost at 10 million to a billion documents, from runs at 400,000 and fewer.

    csr bench scale

Real vectors are resampled to the largest size, encoded, and their codes indexed at each size. The
model of `scale_model` is fitted to the sizes up to 400,000 and checked at the larger ones, which
the fit has not seen. Each query is timed alone, several times, and counts with its median.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from csr_qdrant.benchmarks.edge_engine import Shard
from csr_qdrant.benchmarks.engine import SEARCHED, Asked, SparseVectors
from csr_qdrant.benchmarks.record import RESULTS, write_record
from csr_qdrant.benchmarks.resampled import Resampler, real_vectors
from csr_qdrant.benchmarks.scale_model import Sizes, Timings, fit_latency, fit_memory
from csr_qdrant.benchmarks.scale_report import (
    Measured,
    ScaleConfig,
    Scaled,
    to_json,
)
from csr_qdrant.codes import SparseCodes
from csr_qdrant.encoder import Encoder

LIMIT, BLOCK = 10, 16_384
WARM_UP = 20


def encoded(resampler: Resampler, encoder: Encoder, n: int, k: int) -> SparseCodes:
    """Return the normalised codes of rows 0..n-1; dense rows are held a block at a time."""
    starts = range(0, n, BLOCK)
    blocks = (resampler.rows(at, min(at + BLOCK, n)) for at in starts)
    return SparseCodes.concatenate([encoder.encode(rows, k).normalised() for rows in blocks])


def measure(
    codes: SparseCodes, queries: SparseCodes, config: ScaleConfig, folder: Path
) -> Measured:
    """Index `codes` in a new `folder`, and time `queries` at each number of latents."""
    shard = Shard(folder, {SEARCHED: SparseVectors(datatype=config.datatype)})
    try:
        build = shard.build(len(codes), lambda start, stop: {SEARCHED: codes[start:stop]})
        lists = np.bincount(codes.indices, minlength=codes.h)
        timings = {
            k: _timed(shard, queries.truncated(k).normalised(), lists, len(codes), config.repeats)
            for k in config.query_ks
        }
        sizes = shard.sizes(SEARCHED).index_bytes, int(np.count_nonzero(lists)), len(codes.values)
        return Measured(build, *sizes, timings)
    finally:
        shard.close()


def run(codes: SparseCodes, queries: SparseCodes, config: ScaleConfig, folder: Path) -> Scaled:
    """Measure each size out of `codes`, as many as the largest, fit, and check.

    `queries` are codes of at least the largest of `query_ks` latents; those without any are out.
    """
    queries = queries[np.flatnonzero(queries.lengths)][: config.queries]
    sizes = {
        n: measure(codes[:n], queries, config, folder / str(n))
        for n in (*config.fitted, *config.checked)
    }

    def timings(wanted: Sequence[int]) -> Timings:
        return Timings.joined([each for n in wanted for each in sizes[n].timings.values()])

    latency = fit_latency(timings(config.fitted))
    own = [sizes[n] for n in config.fitted]
    columns = ((each.postings, each.lists, each.index_bytes) for each in own)
    memory = fit_memory(Sizes(*(np.array(c, np.float64) for c in zip(*columns, strict=True))))
    unseen = latency.residuals(timings(config.checked)) if config.checked else None
    return Scaled(sizes, latency, memory, latency.residuals(timings(config.fitted)), unseen)


def _timed(shard: Shard, queries: SparseCodes, lists: Any, n: int, repeats: int) -> Timings:
    asked = shard.requests(Asked(queries=queries, limit=LIMIT))
    for each in asked[:WARM_UP]:
        shard.query(each)
    seconds = np.empty((repeats, len(asked)))
    for turn in range(repeats):
        for i, each in enumerate(asked):
            started = time.perf_counter()
            shard.query(each)
            seconds[turn, i] = time.perf_counter() - started
    touched = np.array([lists[row.indices].sum() for row in queries.rows()], np.float64)
    return Timings(np.full(len(asked), float(n)), touched, np.median(seconds, axis=0) * 1000)


def simulated(
    *,
    vectors: Path | None = None,
    fitted: tuple[int, ...] = (),
    checked: tuple[int, ...] = (),
    h: int = 4096,
    k: int = 32,
    steps: int = 600,
    datatype: str = "f32",
    queries: int = 200,
    output: Path = RESULTS,
) -> tuple[dict[str, Any], Path]:
    """Run it all and write the record; return the results and its path.

    Raises ConfigError for settings that do not fit together, CsrError for unusable vectors.
    """
    from csr_qdrant.trainer import TrainConfig, fit

    settings: dict[str, Any] = {"k": k, "datatype": datatype, "queries": queries}
    settings["query_ks"] = (*(q for q in ScaleConfig.query_ks if q < k), k)
    if fitted:
        settings["fitted"] = fitted
    if checked:
        settings["checked"] = checked
    config = ScaleConfig(**settings)
    real = real_vectors(vectors)
    encoder = fit(real.vectors, TrainConfig(k=config.query_ks, h=h, steps=steps))
    most = max((*config.fitted, *config.checked))
    codes = encoded(Resampler.fitted_to(real.vectors), encoder, most, k)
    with tempfile.TemporaryDirectory() as temporary:
        scaled = run(codes, encoder.encode(real.queries, k), config, Path(temporary))
    params = asdict(config) | {"h": h, "steps": steps, "vectors": vectors.name if vectors else None}
    results = to_json(scaled, config)
    name = "scale" if datatype == "f32" else f"scale-{datatype}"
    return results, write_record(name, params, results, output)
