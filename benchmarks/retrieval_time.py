"""Time of retrieval by matrix products, as the paper measures it, and by the engine.

    csr bench retrieval-time

Figure 3 of arXiv 2503.01776 compares, for batches of 512 queries, a dense product and top-k with a
sparse product and top-k. `products` has both, for a CPU or CUDA. Beside them the engine searches
the same vectors exactly and the same codes in its sparse index. One query at a time and a batch are
timed apart; within each the ways take turns, and medians count. Moving queries to the device and
laying them out counts as the products' time; the engine's requests are built beforehand.

Vectors and codes are made up, latents used evenly: products do not care, the engine touches fewer
postings than with learned codes, which `scale` measures. The CUDA path is unverified: no GPU has
run it yet.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from csr_qdrant.benchmarks.edge_engine import Shard
from csr_qdrant.benchmarks.engine import SEARCHED, Asked, DenseVectors, SparseVectors
from csr_qdrant.benchmarks.measure import Call, interleaved_medians, latencies
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.benchmarks.record import write_record
from csr_qdrant.benchmarks.synthetic import random_codes, random_vectors
from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import ConfigError

PRODUCTS = ("dense product", "sparse product")
ENGINES = ("engine, dense exact", "engine, sparse index")


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig:
    """The grid: every size with every h and every k."""

    rows: tuple[int, ...] = (50_000, 100_000, 200_000)
    d: int = 768
    hs: tuple[int, ...] = (3072, 16_384)
    ks: tuple[int, ...] = (8, 32)
    batch: int = 512  # the paper's
    singles: int = 50  # queries that are timed one at a time
    rounds: int = 5  # of batches
    limit: int = 10
    device: str = "cpu"
    engine: bool = True

    def __post_init__(self) -> None:
        """Check the numbers."""
        least = (*self.rows, *self.hs, *self.ks, self.d, self.batch, self.rounds, self.limit)
        if not (self.rows and self.hs and self.ks) or min(least) < 1:
            raise ConfigError("rows, d, h, k, batch, rounds and limit must be at least 1")
        if max(self.ks) > min(self.hs) or self.limit > min(self.rows):
            raise ConfigError(
                f"k may be at most h and limit at most rows, got k {max(self.ks)} of h "
                f"{min(self.hs)}, limit {self.limit} of {min(self.rows)} rows"
            )
        if not 1 <= self.singles <= self.batch:
            raise ConfigError(f"singles must be in 1..{self.batch} (batch), got {self.singles}")


class Ways:
    """The ways to search the same rows, built; `close` releases the engine."""

    def __init__(
        self, vectors: Matrix, codes: SparseCodes, config: RetrievalConfig, folder: Path
    ) -> None:
        """Put `vectors` (n, d) and `codes` (n, h) onto the device and into shards in `folder`."""
        from csr_qdrant.benchmarks.products import DenseProduct, SparseProduct, device_of

        self._device, self._limit = device_of(config.device), config.limit
        self._dense = DenseProduct(vectors, self._device)
        self._sparse = SparseProduct(codes, self._device)
        self._shards: dict[str, Shard] = {}
        if config.engine:
            self._shards = dict(zip(ENGINES, _shards(vectors, codes, folder), strict=True))

    def calls(self, vectors: Matrix, codes: SparseCodes) -> dict[str, Call]:
        """Return one call a way that searches with all of these queries, (m, d) and (m, h).

        Those of products return `products.Best`, those of the engine `engine.Found`; of a single
        query the engine's own points.
        """
        found: dict[str, Call] = {
            PRODUCTS[0]: partial(self._waited, self._dense.search, vectors),
            PRODUCTS[1]: partial(self._waited, self._sparse.search, codes),
        }
        both: tuple[Matrix | SparseCodes, ...] = (vectors, codes)
        for (name, shard), queries in zip(self._shards.items(), both, strict=False):
            asked = shard.requests(Asked(queries=queries, limit=self._limit))
            if len(asked) == 1:
                found[name] = partial(shard.query, asked[0])
            else:
                found[name] = partial(shard.search, asked, self._limit)
        return found

    def close(self) -> None:
        """Release the engine's shards."""
        for shard in self._shards.values():
            shard.close()

    def _waited(self, search: Any, queries: Any) -> Any:
        from csr_qdrant.benchmarks.products import synchronise

        found = search(queries, self._limit)
        synchronise(self._device)
        return found


def timed(
    ways: Ways, vectors: Matrix, codes: SparseCodes, config: RetrievalConfig
) -> dict[str, dict[str, float]]:
    """Return each way's median milliseconds a batch, and a single query."""
    one_by_one: dict[str, list[Call]] = {}
    for i in range(config.singles):
        for name, call in ways.calls(vectors[i : i + 1], codes[i : i + 1]).items():
            one_by_one.setdefault(name, []).append(call)
    batches = interleaved_medians(ways.calls(vectors, codes), config.rounds)
    singles = latencies(one_by_one)
    return {
        name: {"batch_ms": 1000 * batches[name], "single_p50_ms": singles[name].p50_ms}
        for name in batches
    }


def retrieval_times(config: RetrievalConfig) -> Iterator[dict[str, Any]]:
    """Yield {rows, h, k, ways} of every point of the grid as it is measured."""
    for n, h, k in product(config.rows, config.hs, config.ks):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            documents = random_vectors(folder / "documents.npy", n, config.d)
            queries = np.array(
                random_vectors(folder / "queries.npy", config.batch, config.d, seed=1)
            )
            ways = Ways(documents, random_codes(n, h=h, k=k), config, folder)
            try:
                found = timed(ways, queries, random_codes(config.batch, h=h, k=k, seed=1), config)
            finally:
                ways.close()
        yield {"rows": n, "h": h, "k": k, "ways": found}


def _shards(vectors: Matrix, codes: SparseCodes, folder: Path) -> tuple[Shard, Shard]:
    dense = Shard(folder / "dense", {SEARCHED: DenseVectors(size=vectors.shape[1])})
    dense.build(len(vectors), lambda start, stop: {SEARCHED: vectors[start:stop]})
    sparse = Shard(folder / "sparse", {SEARCHED: SparseVectors()})
    sparse.build(len(codes), lambda start, stop: {SEARCHED: codes[start:stop]})
    return dense, sparse


def recorded(
    config: RetrievalConfig, output: Path, tell: Callable[[str], None] = lambda step: None
) -> tuple[list[dict[str, Any]], Path]:
    """Measure the grid and write the record; return the points of the grid and the record's path.

    `tell` is told each point as it is measured.
    """
    cells = []
    for cell in retrieval_times(config):
        tell(f"{cell['rows']:,} rows, h={cell['h']:,}, k={cell['k']}")
        cells.append(cell)
    device = config.device.partition(":")[0]
    name = "retrieval_time" if device == "cpu" else f"retrieval_time-{device}"
    return cells, write_record(name, asdict(config), {"cells": cells}, output)
