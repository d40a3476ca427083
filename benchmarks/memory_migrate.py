"""How much memory migrating takes beyond what the engine itself needs.

    python -m csr_qdrant.benchmarks.memory_migrate --folder /a/disk/with/60/GB

A bare shard of Qdrant Edge with dense vectors is copied by one process with `migrate`, its
verifying pass included; another one copies the same points with codes that were encoded
beforehand and are read from a file, in a plain loop over the engine's pages. This process samples
the anonymous resident memory (RssAnon) of each; the difference of the peaks is what encoding,
comparing and recording add. Both copies keep the vectors on disk without a graph, as `rescore`
does: building graphs takes hours and its memory is the engine's alone. Files are deleted
afterwards.
"""

from pathlib import Path
from typing import Any

import qdrant_edge as engine
import typer

from csr_qdrant.benchmarks import memory_peaks as peaks
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.benchmarks.record import RESULTS
from csr_qdrant.benchmarks.speed_attach import VECTOR, make_shard
from csr_qdrant.codes_file import CodesFile
from csr_qdrant.deployment.journal import FLUSH_POINTS
from csr_qdrant.deployment.migrate import MigrateConfig, migrate
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import CsrError
from csr_qdrant.stores.whole_points_edge import EdgePoints
from csr_qdrant.stores.whole_points_edge_setup import edge_config

PAGE_ROWS = 256


def run_migrate(folder: Path) -> None:
    """Copy `source` of `folder` with its encoder: the run that is measured."""
    config = MigrateConfig(rescore=True)
    done = migrate(folder / "source", folder / "copy", Encoder.load(folder / "encoder"), config)
    if not done.complete or done.coded != done.points:
        raise CsrError(f"{done.coded} of {done.points} points of the copy have a code")


def run_loop(folder: Path) -> None:
    """Copy `source` with `codes.safetensors` in a loop: what it is compared with."""
    (folder / "copy").mkdir()
    with EdgePoints.open(folder / "source") as opened:
        parts = edge_config(opened.setup())
    config = engine.EdgeConfig(
        vectors=parts.vectors, sparse_vectors={"csr": engine.EdgeSparseVectorParams()}
    )
    source: Any = engine.EdgeShard.load(str(folder / "source"))
    target = engine.EdgeShard.create(str(folder / "copy"), config)
    following: Any = 0
    with CodesFile(folder / "codes.safetensors") as file:
        while following is not None:
            request = engine.ScrollRequest(
                offset=following, limit=PAGE_ROWS, with_payload=True, with_vector=True
            )
            start = following
            records, following = source.scroll(request)
            codes = file.read(start, start + len(records)).to_edge()
            points = [
                engine.Point(
                    record.id, {VECTOR: record.vector[VECTOR], "csr": code}, record.payload
                )
                for record, code in zip(records, codes, strict=True)
            ]
            target.update(engine.UpdateOperation.upsert_points(points))
            if (start + PAGE_ROWS) % FLUSH_POINTS == 0:
                target.flush()
    target.flush()
    target.optimize()
    target.close()
    source.close()


RUNS = {"migrate": run_migrate, "loop": run_loop}


def measure(folder: Path, vectors: Matrix) -> dict[str, peaks.Peak]:
    """Return the peak of each run, on a shard of `vectors`, (n, d)."""
    make_shard(folder / "source", vectors)
    return peaks.peaks_of(__spec__.name, RUNS, folder, "copy")


def main(
    rows: peaks.Rows = 2_000_000,
    d: peaks.D = 768,
    h: peaks.H = 3072,
    k: peaks.K = 32,
    folder: peaks.Folder = None,
    output: peaks.Results = RESULTS,
    run: peaks.Run = None,
) -> None:
    """Sample the peak memory of migrating and of a plain loop over the same points."""
    if run is not None:
        RUNS[run](folder or Path())
        return
    params = {"rows": rows, "d": d, "h": h, "k": k}
    peaks.compare_peaks("memory_migrate", params, measure, folder, output)


if __name__ == "__main__":
    typer.run(main)
