"""How much memory attaching takes beyond what the engine itself needs.

    python -m csr_qdrant.benchmarks.memory_attach --folder /a/disk/with/40/GB

One process attaches codes to a shard of dense vectors and then verifies them all; another one
gives a copy of the shard the same codes, encoded beforehand and read from a file, in a plain loop
of the engine's updates. The difference of their peaks of anonymous memory is what reading vectors,
encoding, comparing and recording add. Files are deleted afterwards.
"""

from pathlib import Path

import qdrant_edge as engine
import typer

from csr_qdrant.benchmarks import memory_peaks as peaks
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.benchmarks.record import RESULTS
from csr_qdrant.benchmarks.speed_attach import make_shard
from csr_qdrant.codes_file import CodesFile
from csr_qdrant.deployment.attach import attach
from csr_qdrant.deployment.journal import FLUSH_POINTS
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import CsrError

UPDATE_ROWS = 256


def run_attach(folder: Path) -> None:
    """Attach codes to the shard in `folder`, and again to verify them: what is measured."""
    encoder = Encoder.load(folder / "encoder")
    for verifies in (False, True):
        done = attach(folder / "shard", encoder)
        if not done.complete or done.coded != done.points or done.plan.verifies is not verifies:
            raise CsrError(f"{done.coded} of {done.points} points have a code")


def run_loop(folder: Path) -> None:
    """Update the shard in `folder` with ready codes: what it is compared with."""
    shard = engine.EdgeShard.load(str(folder / "shard"))
    shard.update(engine.UpdateOperation.create_sparse_vector("csr"))
    with CodesFile(folder / "codes.safetensors") as file:
        for start in range(0, len(file), UPDATE_ROWS):
            codes = enumerate(file.read(start, start + UPDATE_ROWS).to_edge(), start)
            points = [engine.PointVectors(row, {"csr": code}) for row, code in codes]
            shard.update(engine.UpdateOperation.update_vectors(points))
            if (start + UPDATE_ROWS) % FLUSH_POINTS == 0:
                shard.flush()
    shard.flush()
    shard.optimize()
    shard.close()


RUNS = {"attach": run_attach, "loop": run_loop}


def measure(folder: Path, vectors: Matrix) -> dict[str, peaks.Peak]:
    """Return the peak of each run, on shards of `vectors`, (n, d), that are equal."""
    make_shard(folder / "untouched", vectors)
    return peaks.peaks_of(__spec__.name, RUNS, folder, "shard", copied="untouched")


def main(
    rows: peaks.Rows = 2_000_000,
    d: peaks.D = 768,
    h: peaks.H = 3072,
    k: peaks.K = 32,
    folder: peaks.Folder = None,
    output: peaks.Results = RESULTS,
    run: peaks.Run = None,
) -> None:
    """Sample the peak memory of attaching and of a plain loop over the same points."""
    if run is not None:
        RUNS[run](folder or Path())
        return
    params = {"rows": rows, "d": d, "h": h, "k": k}
    peaks.compare_peaks("memory_attach", params, measure, folder, output)


if __name__ == "__main__":
    typer.run(main)
