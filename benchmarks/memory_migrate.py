"""How much memory migrating takes beyond what the engine itself needs.

    python -m csr_qdrant.benchmarks.memory_migrate --folder /a/disk/with/60/GB

A bare shard of Qdrant Edge with dense vectors is copied by one process with `migrate`, its
verifying pass included; another one copies the same points with codes that were encoded
beforehand and are read from a file, in a plain loop over the engine's pages. This process samples
the anonymous resident memory (RssAnon) of each; the difference of the peaks is what encoding,
comparing and recording add. Both copies keep the vectors on disk without a graph, as `rescore`
does: building graphs takes hours and its memory is the engine's alone. Mapped pages are not
counted: the system drops them when it needs room. Files are deleted afterwards.
"""

import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import qdrant_edge as engine
import typer

from csr_qdrant.benchmarks.memory_index import GOAL_GB, peak_of
from csr_qdrant.benchmarks.record import RESULTS, report, write_record
from csr_qdrant.benchmarks.speed_attach import VECTOR, make_shard
from csr_qdrant.benchmarks.synthetic import random_encoder, random_vectors
from csr_qdrant.codes import SparseCodes
from csr_qdrant.codes_file import CodesFile
from csr_qdrant.deployment.migrate import MigrateConfig, migrate
from csr_qdrant.deployment.migrate_journal import FLUSH_POINTS
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import CsrError
from csr_qdrant.stores.whole_points_edge import EdgePoints
from csr_qdrant.stores.whole_points_edge_setup import edge_config

ENCODE_ROWS = 16_384
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


def prepare(folder: Path, rows: int, d: int, h: int, k: int) -> None:
    """Write a shard of dense vectors, an encoder, and the codes that it makes of the vectors."""
    vectors = random_vectors(folder / "vectors.npy", rows, d)
    encoder = random_encoder(d=d, h=h, k=k)
    encoder.save(folder / "encoder")
    starts = range(0, rows, ENCODE_ROWS)
    blocks = [encoder.encode(vectors[at : at + ENCODE_ROWS]).normalised() for at in starts]
    SparseCodes.concatenate(blocks).save(folder / "codes.safetensors")
    make_shard(folder / "source", vectors)


def measure(folder: Path) -> dict[str, tuple[int, float]]:
    """Return the peak RssAnon in bytes and the seconds of each run, in processes of their own."""
    found = {}
    for run in RUNS:
        command = [sys.executable, "-m", __spec__.name, "--folder", str(folder), "--run", run]
        found[run] = peak_of(command, run)
        (folder / "copy").rename(folder / f"copy of {run}")
    return found


def main(
    rows: Annotated[int, typer.Option(help="Points.")] = 2_000_000,
    d: Annotated[int, typer.Option(help="Dimensions.")] = 768,
    h: Annotated[int, typer.Option(help="Latents.")] = 3072,
    k: Annotated[int, typer.Option(help="Active latents.")] = 32,
    folder: Annotated[Path | None, typer.Option(help="Where to put the temporary files.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    run: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Sample the peak memory of migrating and of a plain loop over the same points."""
    if run is not None:
        RUNS[run](folder or Path())
        return
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        prepare(Path(temporary), rows, d, h, k)
        found = measure(Path(temporary))
    beyond = (found["migrate"][0] - found["loop"][0]) / 1e9
    results: dict[str, Any] = {
        name: {"peak_rss_anon_gb": peak / 1e9, "seconds": seconds}
        for name, (peak, seconds) in found.items()
    }
    results |= {"difference_gb": beyond, "goal_below_gb": GOAL_GB}
    path = write_record("memory_migrate", {"rows": rows, "d": d, "h": h, "k": k}, results, output)
    peaks = ", ".join(f"{name} {peak / 1e9:.2f} GB" for name, (peak, _) in found.items())
    lines = {"peak": peaks, "difference": f"{beyond:.2f} GB (goal: below {GOAL_GB})"}
    report("memory_migrate", lines, path)


if __name__ == "__main__":
    typer.run(main)
