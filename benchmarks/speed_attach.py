"""How fast codes are attached to a shard, against the engine's own loop with ready codes.

    python -m csr_qdrant.benchmarks.speed_attach

Both get copies of one optimised shard of dense vectors, without a graph, since building that
belongs to making the shard. The loop is given codes built beforehand as the engine's own objects
and calls `update_vectors` in batches of several sizes, of which the fastest counts; it flushes as
often as `attach` does. What `attach` does more is read the dense vectors, encode them, check,
count, and record how far it has come. A second run, which verifies every code, is timed apart.
The runs take turns.
"""

import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import qdrant_edge as engine
import typer

from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.benchmarks.record import RESULTS, report, write_record
from csr_qdrant.benchmarks.synthetic import random_encoder, random_vectors
from csr_qdrant.deployment.attach import AttachConfig, attach
from csr_qdrant.deployment.journal import FLUSH_POINTS
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import CsrError

GOAL = 0.8  # times the fastest loop's rate, at least
BATCHES = (64, 256, 1024)
VECTOR = "text"


def make_shard(folder: Path, vectors: Matrix) -> None:
    """Write `vectors`, (n, d), into a new shard and optimise it."""
    folder.mkdir()
    parameters = engine.EdgeVectorParams(
        size=vectors.shape[1],
        distance=engine.Distance.Cosine,
        memory=engine.Memory.Cold,
        hnsw_config=engine.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=10_000),
    )
    shard = engine.EdgeShard.create(str(folder), engine.EdgeConfig(vectors={VECTOR: parameters}))
    for start in range(0, len(vectors), 256):
        rows = vectors[start : start + 256].tolist()
        points = [engine.Point(start + i, {VECTOR: row}, {"row": i}) for i, row in enumerate(rows)]
        shard.update(engine.UpdateOperation.upsert_points(points))
    shard.flush()
    shard.optimize()
    shard.close()


def run_attach(folder: Path, encoder: Encoder, n: int, *, verifies: bool) -> float:
    """Return the seconds that `attach` takes; raises CsrError unless all points have a code."""
    done = attach(folder, encoder, AttachConfig(optimise=False))
    if done.coded != n or not done.complete or done.plan.verifies is not verifies:
        raise CsrError(f"attached {done.coded} codes to {n} points")
    return done.seconds


def run_loop(folder: Path, codes: list[Any], batch: int) -> float:
    """Return the seconds that updating all points in batches takes, flushes included."""
    shard = engine.EdgeShard.load(str(folder))
    started = time.perf_counter()
    shard.update(engine.UpdateOperation.create_sparse_vector("csr"))
    unflushed = 0
    for start in range(0, len(codes), batch):
        part = codes[start : start + batch]
        shard.update(engine.UpdateOperation.update_vectors(part))
        unflushed += len(part)
        if unflushed >= FLUSH_POINTS:
            shard.flush()
            unflushed = 0
    shard.flush()
    seconds = time.perf_counter() - started
    shard.close()
    return seconds


def measure(rows: int, d: int, h: int, k: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each run, by what ran."""
    encoder = random_encoder(d=d, h=h, k=k)
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        vectors = random_vectors(folder / "vectors.npy", rows, d)
        make_shard(folder / "shard", vectors)
        codes = enumerate(encoder.encode(vectors).normalised().to_edge())
        ready = [engine.PointVectors(row, {"csr": code}) for row, code in codes]
        for _ in range(rounds):
            copy = shutil.copytree(folder / "shard", folder / "copy")
            took = {"attach": run_attach(copy, encoder, rows, verifies=False)}
            took["verify"] = run_attach(copy, encoder, rows, verifies=True)
            shutil.rmtree(copy)
            for size in BATCHES:
                shutil.copytree(folder / "shard", copy)
                took[f"loop of {size}"] = run_loop(copy, ready, size)
                shutil.rmtree(copy)
            for name, each in took.items():
                seconds.setdefault(name, []).append(each)
    return seconds


def main(
    rows: Annotated[int, typer.Option(help="Points.")] = 100_000,
    d: Annotated[int, typer.Option(help="Dimensions of the dense vectors.")] = 768,
    h: Annotated[int, typer.Option(help="Latents.")] = 3072,
    k: Annotated[int, typer.Option(help="Active latents.")] = 32,
    rounds: Annotated[int, typer.Option(help="Runs of each kind.")] = 3,
    output: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Time attaching codes against the engine's own updates with ready codes."""
    seconds = measure(rows, d, h, k, rounds)
    rates = {name: rows / median(runs) for name, runs in seconds.items()}
    best = max((f"loop of {size}" for size in BATCHES), key=lambda name: rates[name])
    ratio = rates["attach"] / rates[best]
    results = {
        "points_per_s": rates,
        "seconds": seconds,
        "fastest_loop": best,
        "ratio": ratio,
        "goal_at_least": GOAL,
    }
    params = {"rows": rows, "d": d, "h": h, "k": k, "rounds": rounds}
    path = write_record("speed_attach", params, results, output)
    listed = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
    against = f"{ratio:.2f} of the {best} (goal: at least {GOAL})"
    report("speed_attach", {"points/s": listed, "rate": against}, path)


if __name__ == "__main__":
    typer.run(main)
