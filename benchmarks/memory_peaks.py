"""Peaks of the anonymous resident memory of whole processes, and what two of them differ by."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from csr_qdrant.benchmarks.measure import rss_anon_bytes
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.benchmarks.record import report, write_record
from csr_qdrant.benchmarks.synthetic import random_encoder, random_vectors
from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import ConfigError, CsrError

GOAL_GB = 0.5  # 10^9 bytes, at most
SAMPLE_S = 0.02
ENCODE_ROWS = 16_384

Rows = Annotated[int, typer.Option(help="Points.")]
D = Annotated[int, typer.Option(help="Dimensions.")]
H = Annotated[int, typer.Option(help="Latents.")]
K = Annotated[int, typer.Option(help="Active latents.")]
Folder = Annotated[Path | None, typer.Option(help="Where to put the temporary files.")]
Results = Annotated[Path, typer.Option(help="Folder of the results.")]
Run = Annotated[str | None, typer.Option(hidden=True)]


class Peak(NamedTuple):
    """What a process came to."""

    rss_anon_bytes: int
    seconds: float


def peak_of(module: str, run: str, folder: Path, *flags: str) -> Peak:
    """Return the peak of `module --folder … --run …` in a process of its own.

    Mapped pages are not counted: the system drops them when it needs room. Raises CsrError if the
    process fails.
    """
    command = [sys.executable, "-m", module, "--folder", str(folder), "--run", run, *flags]
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
    return Peak(peak, time.perf_counter() - started)


def prepare(folder: Path, rows: int, d: int, h: int, k: int) -> Matrix:
    """Write vectors, an encoder, and the codes that it makes; return the vectors, (rows, d)."""
    vectors = random_vectors(folder / "vectors.npy", rows, d)
    encoder = random_encoder(d=d, h=h, k=k)
    encoder.save(folder / "encoder")
    starts: Sequence[int] = range(0, rows, ENCODE_ROWS)
    blocks = [encoder.encode(vectors[at : at + ENCODE_ROWS]).normalised() for at in starts]
    SparseCodes.concatenate(blocks).save(folder / "codes.safetensors")
    return vectors


def peaks_of(
    module: str, runs: Iterable[str], folder: Path, left: str, *, copied: str | None = None
) -> dict[str, Peak]:
    """Return the peak of each of `runs`, which leaves a folder called `left` that is removed.

    Where `copied` names a folder, each run finds a copy of that as `left`.
    """
    peaks = {}
    for run in runs:
        if copied is not None:
            shutil.copytree(folder / copied, folder / left)
        peaks[run] = peak_of(module, run, folder)
        shutil.rmtree(folder / left)
    return peaks


def compare_peaks(
    name: str,
    params: dict[str, int],
    measure: Callable[[Path, Matrix], Mapping[str, Peak]],
    folder: Path | None,
    output: Path,
) -> None:
    """Write and show what `measure` finds: the peak of our run first, then that of a plain loop.

    It is given a folder with what `prepare` makes by `params` (rows, d, h and k), and the vectors;
    the folder is made in `folder`, and deleted at the end.
    """
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        here = Path(temporary)
        peaks = measure(here, prepare(here, **params))
    ours, loop = peaks
    record_peaks(name, params, ours, loop, peaks, output)


def record_peaks(
    name: str, params: dict[str, Any], ours: str, loop: str, peaks: Mapping[str, Peak], output: Path
) -> None:
    """Write and show the peaks, and by how much that of `ours` is above that of `loop`."""
    beyond = (peaks[ours].rss_anon_bytes - peaks[loop].rss_anon_bytes) / 1e9
    results: dict[str, Any] = {
        run: {"peak_rss_anon_gb": peak.rss_anon_bytes / 1e9, "seconds": peak.seconds}
        for run, peak in peaks.items()
    }
    results |= {"difference_gb": beyond, "goal_below_gb": GOAL_GB}
    path = write_record(name, params, results, output)
    shown = ", ".join(f"{run} {peak.rss_anon_bytes / 1e9:.2f} GB" for run, peak in peaks.items())
    lines = {"peak": shown, "difference": f"{beyond:.2f} GB (goal: below {GOAL_GB})"}
    report(name, lines, path)
