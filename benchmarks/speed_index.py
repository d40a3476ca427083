"""How fast saved codes are indexed, against a loop that upserts points built beforehand.

    python -m csr_qdrant.benchmarks.speed_index

Both write to shards of the same settings and flush after as many rows. What `csr index` does more
is read the file, check, normalise, build points, and record how far it has come. The loop runs at
several batch sizes, of which the fastest counts. Building the index afterwards is the engine's
own work, the same for both, and left out. The runs take turns.

One more loop builds its points as it goes, as every caller in Python must somewhere: the engine
holds the interpreter's lock while it writes, so building cannot hide behind writing.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import qdrant_edge
import typer

from csr_qdrant.benchmarks.record import RESULTS, report, write_record
from csr_qdrant.benchmarks.synthetic import random_codes, random_encoder
from csr_qdrant.codes import SparseCodes
from csr_qdrant.collection import Collection
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import CsrError
from csr_qdrant.indexing import FLUSH_ROWS, IndexConfig, index_source
from csr_qdrant.sources import open_source
from csr_qdrant.stores.base import Schema
from csr_qdrant.stores.edge import EdgeStore

GOAL = 0.8  # times the fastest loop's rate, at least
BATCHES = (64, 256, 1024)
BUILDING = "loop of 256 that builds its points"
Points = Callable[[int, int], list[Any]]  # (start, stop) -> engine points


def run_ours(folder: Path, codes_file: Path, encoder: Encoder) -> float:
    """Return the seconds that `index_source` takes to write the saved codes."""
    with Collection.create(folder, encoder) as collection:
        source = open_source(codes_file)
        started = time.perf_counter()
        indexed = index_source(source, collection, IndexConfig(optimise=False))
        seconds = time.perf_counter() - started
        if len(collection) != indexed.rows:
            raise CsrError(f"indexed {indexed.rows} rows, but {len(collection)} points are there")
    return seconds


def run_loop(folder: Path, points: Points, n: int, h: int, batch: int) -> float:
    """Return the seconds that upserting `n` points in batches takes, flushes included."""
    store = EdgeStore.create(folder, Schema(h=h))
    shard: Any = vars(store)["_handle"]
    started = time.perf_counter()
    unflushed = 0
    for start in range(0, n, batch):
        part = points(start, start + batch)
        shard.update(qdrant_edge.UpdateOperation.upsert_points(part))
        unflushed += len(part)
        if unflushed >= FLUSH_ROWS:
            shard.flush()
            unflushed = 0
    shard.flush()
    seconds = time.perf_counter() - started
    store.close()
    return seconds


def built_points(codes: SparseCodes, start: int, stop: int) -> list[Any]:
    """Return one engine point a code of rows start..stop, under its row number."""
    vectors = enumerate(codes[start:stop].to_edge(), start)
    return [qdrant_edge.Point(row, {"csr": vector}, {}) for row, vector in vectors]


def measure(rows: int, h: int, k: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each run, by what ran."""
    encoder = random_encoder(d=64, h=h, k=k)  # only its h and k play a part
    codes = random_codes(rows, h=h, k=k)
    points = built_points(codes, 0, rows)
    loops: dict[str, tuple[int, Points]] = {
        f"loop of {size}": (size, lambda start, stop: points[start:stop]) for size in BATCHES
    }
    loops[BUILDING] = (256, partial(built_points, codes))
    seconds: dict[str, list[float]] = {name: [] for name in ("ours", *loops)}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            codes.save(folder / "codes.safetensors")
            ours = run_ours(folder / "ours", folder / "codes.safetensors", encoder)
            seconds["ours"].append(ours)
            for name, (size, source) in loops.items():
                seconds[name].append(run_loop(folder / name, source, rows, h, size))
    return seconds


def main(
    rows: Annotated[int, typer.Option(help="Codes to index.")] = 100_000,
    h: Annotated[int, typer.Option(help="Latents.")] = 3072,
    k: Annotated[int, typer.Option(help="Active latents.")] = 32,
    rounds: Annotated[int, typer.Option(help="Runs of each kind.")] = 5,
    output: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Time indexing saved codes against upserting ready points."""
    seconds = measure(rows, h, k, rounds)
    rates = {name: rows / median(runs) for name, runs in seconds.items()}
    best = max((f"loop of {size}" for size in BATCHES), key=lambda name: rates[name])
    ratio = rates["ours"] / rates[best]
    results = {
        "points_per_s": rates,
        "seconds": seconds,
        "fastest_loop": best,
        "ratio": ratio,
        "ratio_to_building_loop": rates["ours"] / rates[BUILDING],
        "goal_at_least": GOAL,
    }
    params = {"rows": rows, "h": h, "k": k, "rounds": rounds, "rows_per_flush": FLUSH_ROWS}
    path = write_record("speed_index", params, results, output)
    listed = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
    against = f"{ratio:.2f} of the {best} (goal: at least {GOAL})"
    report("speed_index", {"points/s": listed, "rate": against}, path)


if __name__ == "__main__":
    typer.run(main)
