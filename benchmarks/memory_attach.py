"""How much memory attaching takes beyond what the engine itself needs.

    python -m csr_qdrant.benchmarks.memory_attach --folder /a/disk/with/40/GB

One process attaches codes to a shard of dense vectors, its verifying pass included; another one
gives a copy of the shard the same codes, encoded beforehand and read from a file, in a plain loop
of the engine's updates. The difference of their peaks of anonymous memory is what reading vectors,
encoding, comparing and recording add. Files are deleted afterwards.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import qdrant_edge as engine
import typer

from csr_qdrant.benchmarks.memory_peaks import Peak, peak_of, prepare, record_peaks
from csr_qdrant.benchmarks.record import RESULTS
from csr_qdrant.benchmarks.speed_attach import make_shard
from csr_qdrant.codes_file import CodesFile
from csr_qdrant.deployment.attach import attach
from csr_qdrant.deployment.attach_journal import FLUSH_POINTS
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import CsrError

UPDATE_ROWS = 256


def run_attach(folder: Path) -> None:
    """Attach codes to the shard in `folder`: the run that is measured."""
    done = attach(folder / "shard", Encoder.load(folder / "encoder"))
    if not done.complete or done.coded != done.points:
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


def measure(folder: Path) -> dict[str, Peak]:
    """Return the peak of each run, on shards that are equal."""
    (folder / "shard").rename(folder / "untouched")
    peaks = {}
    for run in RUNS:
        shutil.copytree(folder / "untouched", folder / "shard")
        peaks[run] = peak_of(__spec__.name, run, folder)
        shutil.rmtree(folder / "shard")
    return peaks


def main(
    rows: Annotated[int, typer.Option(help="Points.")] = 2_000_000,
    d: Annotated[int, typer.Option(help="Dimensions.")] = 768,
    h: Annotated[int, typer.Option(help="Latents.")] = 3072,
    k: Annotated[int, typer.Option(help="Active latents.")] = 32,
    folder: Annotated[Path | None, typer.Option(help="Where to put the temporary files.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    run: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Sample the peak memory of attaching and of a plain loop over the same points."""
    if run is not None:
        RUNS[run](folder or Path())
        return
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        here = Path(temporary)
        make_shard(here / "shard", prepare(here, rows, d, h, k))
        peaks = measure(here)
    params = {"rows": rows, "d": d, "h": h, "k": k}
    record_peaks("memory_attach", params, "attach", "loop", peaks, output)


if __name__ == "__main__":
    typer.run(main)
