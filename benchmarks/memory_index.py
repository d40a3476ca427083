"""How much memory indexing takes beyond what the engine itself needs.

    python -m csr_qdrant.benchmarks.memory_index --folder /a/disk/with/20/GB

One process indexes a memory-mapped `.npy` of dense vectors with `index_source`; another upserts
the same codes, encoded beforehand and read from a file block by block, in a plain loop. This
process samples the anonymous resident memory (RssAnon) of each; the difference of the peaks is
what reading, encoding and checking add. Mapped pages are not counted: the system drops them when
it needs room. Files are deleted afterwards.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from csr_qdrant.benchmarks.measure import rss_anon_bytes
from csr_qdrant.benchmarks.record import RESULTS, report, write_record
from csr_qdrant.benchmarks.synthetic import random_encoder, random_vectors
from csr_qdrant.codes import SparseCodes
from csr_qdrant.codes_file import CodesFile
from csr_qdrant.collection import Collection
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.indexing import FLUSH_ROWS, IndexConfig, index_source
from csr_qdrant.sources import open_source
from csr_qdrant.stores.base import Schema
from csr_qdrant.stores.edge import EdgeStore

GOAL_GB = 0.5  # 10^9 bytes, at most
SAMPLE_S = 0.02
ENCODE_ROWS = 65_536
UPSERT_ROWS = 256


def index_vectors(folder: Path, optimise: bool) -> None:
    """Index `vectors.npy` of `folder` with its encoder: the run that is measured."""
    encoder = Encoder.load(folder / "encoder")
    source = open_source(folder / "vectors.npy")
    with Collection.create(folder / "ours", encoder) as collection:
        index_source(source, collection, IndexConfig(optimise=optimise))


def upsert_codes(folder: Path, optimise: bool) -> None:
    """Upsert `codes.safetensors` of `folder` in a loop: what it is compared with."""
    import qdrant_edge

    with CodesFile(folder / "codes.safetensors") as file:
        store = EdgeStore.create(folder / "loop", Schema(h=file.h))
        shard: Any = vars(store)["_handle"]
        for start in range(0, len(file), UPSERT_ROWS):
            codes = file.read(start, start + UPSERT_ROWS).to_edge()
            points = [qdrant_edge.Point(start + i, {"csr": c}, {}) for i, c in enumerate(codes)]
            shard.update(qdrant_edge.UpdateOperation.upsert_points(points))
            if (start + UPSERT_ROWS) % FLUSH_ROWS == 0:
                shard.flush()
        shard.flush()
        if optimise:
            shard.optimize()
        store.close()


RUNS = {"index_vectors": index_vectors, "upsert_codes": upsert_codes}


def peak_bytes(run: str, folder: Path, optimise: bool) -> tuple[int, float]:
    """Return the peak RssAnon and the seconds of `run` in a process of its own.

    Raises CsrError if it fails.
    """
    command = [sys.executable, "-m", __spec__.name, "--folder", str(folder), "--run", run]
    command.append("--optimise" if optimise else "--no-optimise")
    return peak_of(command, run)


def peak_of(command: Sequence[str], run: str) -> tuple[int, float]:
    """Return the peak RssAnon and the seconds of a command; raises CsrError if it fails."""
    started, peak = time.perf_counter(), 0
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            try:
                peak = max(peak, rss_anon_bytes(process.pid))
            except (OSError, ConfigError):
                break  # it has just ended
            time.sleep(SAMPLE_S)
    if process.returncode:
        raise CsrError(f"{run} ended with status {process.returncode}: see its message above")
    return peak, time.perf_counter() - started


def prepare(folder: Path, rows: int, d: int, h: int, k: int) -> None:
    """Write vectors, an encoder, and the codes that it makes of the vectors."""
    vectors = random_vectors(folder / "vectors.npy", rows, d)
    encoder = random_encoder(d=d, h=h, k=k)
    encoder.save(folder / "encoder")
    starts = range(0, rows, ENCODE_ROWS)
    blocks = [encoder.encode(vectors[at : at + ENCODE_ROWS]).normalised() for at in starts]
    SparseCodes.concatenate(blocks).save(folder / "codes.safetensors")


def main(
    rows: Annotated[int, typer.Option(help="Rows of the memory map.")] = 2_000_000,
    d: Annotated[int, typer.Option(help="Dimensions.")] = 768,
    h: Annotated[int, typer.Option(help="Latents.")] = 3072,
    k: Annotated[int, typer.Option(help="Active latents.")] = 32,
    optimise: Annotated[bool, typer.Option(help="Build the index at the end.")] = True,
    folder: Annotated[Path | None, typer.Option(help="Where to put the temporary files.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    run: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Sample the peak memory of indexing vectors and of upserting their codes."""
    if run is not None:
        RUNS[run](folder or Path(), optimise)
        return
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        prepare(Path(temporary), rows, d, h, k)
        found = {name: peak_bytes(name, Path(temporary), optimise) for name in RUNS}
    beyond = (found["index_vectors"][0] - found["upsert_codes"][0]) / 1e9
    results: dict[str, Any] = {
        name: {"peak_rss_anon_gb": peak / 1e9, "seconds": seconds}
        for name, (peak, seconds) in found.items()
    }
    results |= {"difference_gb": beyond, "goal_below_gb": GOAL_GB}
    params = {"rows": rows, "d": d, "h": h, "k": k, "optimise": optimise}
    path = write_record("memory_index", params, results, output)
    peaks = ", ".join(f"{name} {peak / 1e9:.2f} GB" for name, (peak, _) in found.items())
    lines = {"peak": peaks, "difference": f"{beyond:.2f} GB (goal: below {GOAL_GB})"}
    report("memory_index", lines, path)


if __name__ == "__main__":
    typer.run(main)
