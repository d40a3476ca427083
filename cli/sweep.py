"""`csr train --sweep`: one encoder for each point of a grid of settings, a table and a plot."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import csr_qdrant
from csr_qdrant.atomic import remove_whole, replaced_file, write_json
from csr_qdrant.benchmarks.sweep import Grid, columns, document, summary
from csr_qdrant.cli.output import Output, plain, table
from csr_qdrant.cli.sweep_plan import (
    FORMAT,
    RECORD,
    Job,
    head_of,
    holds_another,
    jobs_of,
    parsed,
)
from csr_qdrant.cli.training_data import RunSettings, TrainingData
from csr_qdrant.errors import ConfigError, CsrError, MissingExtraError
from csr_qdrant.trainer.config import TrainConfig
from csr_qdrant.trainer.linear_config import LinearConfig

if TYPE_CHECKING:
    from csr_qdrant.encoder import Encoder

TABLE, PLOT = "sweep.md", "sweep.png"
VECTORS = "vectors.partial"  # embedded or unpacked vectors, which all points share


class Trainer(NamedTuple):
    """How `csr train` reads a source and trains on it."""

    read: Callable[[Path], TrainingData]
    # The paths: a folder for the checkpoint, one for vectors that must be made.
    fit: Callable[[Output, TrainingData, TrainConfig, RunSettings, Path, Path], "Encoder"]


class Flags(NamedTuple):
    """The flags of `csr train` that say what to do with what is there."""

    restart: bool
    overwrite: bool
    dry_run: bool


@dataclass
class Record:
    """What sweep.json holds."""

    folder: Path
    head: Mapping[str, Any]
    grid: Grid
    names: Sequence[str]  # of all points
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def in_order(self) -> list[dict[str, Any]]:
        """Return the runs that there are, in the order of the points."""
        return [self.runs[name] for name in self.names if name in self.runs]

    def to_json(self) -> dict[str, Any]:
        """Return the whole record."""
        value = {
            "format": FORMAT,
            "csr_qdrant": csr_qdrant.__version__,
            **self.head,
            "points": self.names,
            "runs": self.in_order(),
            "summary": [row.to_json() for row in summary(self.in_order())],
        }
        return dict(plain(value))

    def write(self, plot: str | None = None) -> None:
        """Write sweep.json and sweep.md, each whole or not at all; `plot` is a file's name."""
        write_json(self.folder / RECORD, self.to_json())
        text = document(self.title, self.grid, self.in_order(), len(self.names), plot)
        with replaced_file(self.folder / TABLE) as temporary:
            temporary.write_text(text, "utf-8")

    @property
    def title(self) -> str:
        """What was swept, on what."""
        axes = [axis for axis in self.grid.axes if axis not in ("seed", "source")] or ["seed"]
        return f"{' × '.join(axes)} on {', '.join(s['name'] for s in self.head['sources'])}"


def run_sweep(
    out: Output,
    sweep: Sequence[str],
    source: Path,
    folder: Path,
    config: TrainConfig | LinearConfig,
    run: RunSettings,
    trainer: Trainer,
    flags: Flags,
) -> None:
    """Train an encoder for each point of the grid `sweep`, into `folder`.

    Points that are done are skipped, interrupted ones go on. A point that cannot be trained (its
    loss diverges, memory does not suffice) is recorded, and the others are trained all the same.

    Raises:
        MissingExtraError: there is no matplotlib; before anything is read.
        ConfigError: a grid that cannot work, or a folder that holds another sweep or anything
            else; before anything is trained or written.
        CsrError: some points could not be trained; the others are.
    """
    from csr_qdrant.benchmarks.sweep_plot import check_plotting

    check_plotting()
    if isinstance(config, LinearConfig):
        raise ConfigError(f"--sweep trains encoders: leave out --method {config.method}")
    grid, paths = parsed(sweep, source)
    datas = {label: trainer.read(path) for label, path in paths.items()}
    jobs = jobs_of(grid, config, datas)
    head = head_of(grid, config, datas)
    replaces = holds_another(folder, head, flags.overwrite)
    if flags.dry_run:
        _show_plan(out, folder, jobs, replaces, flags.restart)
        return
    if replaces:
        remove_whole(folder)
    record = Record(folder, head, grid, [job.name for job in jobs])
    _train_all(out, jobs, record, run, trainer, flags.restart)
    _finish(out, record)


def _train_all(
    out: Output,
    jobs: Sequence[Job],
    record: Record,
    run: RunSettings,
    trainer: Trainer,
    restart: bool,
) -> None:
    folder = record.folder
    folder.mkdir(parents=True, exist_ok=True)
    record.runs = {job.name: _ended(job, folder) for job in jobs if (folder / job.name).exists()}
    record.write()
    for number, job in enumerate(jobs, 1):
        if job.name in record.runs:
            out.note(f"point {number} of {len(jobs)}: {job.name} is done")
            shutil.rmtree(_work(folder, job), ignore_errors=True)
            continue
        out.note(f"point {number} of {len(jobs)}: {job.name}")
        record.runs[job.name] = _trained(out, job, folder, run, trainer, restart)
        record.write()


def _trained(
    out: Output, job: Job, folder: Path, run: RunSettings, trainer: Trainer, restart: bool
) -> dict[str, Any]:
    work = _work(folder, job)
    if restart:
        remove_whole(work)
    if run.tensorboard is not None:
        run = replace(run, tensorboard=run.tensorboard / job.name)
    try:
        vectors = folder / VECTORS / job.source
        encoder = trainer.fit(out, job.data, job.config, run, work, vectors)
    except (ConfigError, MissingExtraError):  # no point can be trained
        raise
    except CsrError as error:
        out.warn(f"{job.name} failed: {error}")
        return {**_named(job), "error": str(error)}
    encoder.save(folder / job.name)
    shutil.rmtree(work, ignore_errors=True)
    return _ended(job, folder)


def _ended(job: Job, folder: Path) -> dict[str, Any]:
    """Return the entry of a point whose encoder is there."""
    from csr_qdrant.encoder import Encoder

    encoder = Encoder.load(folder / job.name)
    info = encoder.info
    last = info["validations"][-1]
    return {
        **_named(job),
        "fingerprint": encoder.fingerprint,
        "d": encoder.d,
        "h": encoder.h,
        "k": info["training"]["k"],
        "training": info["training"],
        "steps": info["steps"],
        "seconds": info["seconds"],
        "dead": last["dead"],
        "at": last["at"],
    }


def _named(job: Job) -> dict[str, Any]:
    return {"name": job.name, "point": dict(job.point.values), "source": job.source}


def _work(folder: Path, job: Job) -> Path:
    return folder / f"{job.name}.partial"


# --- what is told -----------------------------------------------------------------------------


def _finish(out: Output, record: Record) -> None:
    """Write the plot, show the table, and raise CsrError if points have failed."""
    from csr_qdrant.benchmarks.sweep_plot import write_plot

    runs, folder = record.in_order(), record.folder
    rows = summary(runs)
    failed = [run for run in runs if "error" in run]
    if rows:
        write_plot(folder / PLOT, rows, record.title)
    record.write(PLOT if rows else None)
    if not failed:
        shutil.rmtree(folder / VECTORS, ignore_errors=True)
    done = len(runs) - len(failed)
    written = f"wrote {folder}: {RECORD}, {TABLE}{f', {PLOT}' if rows else ''}, {done} encoders"
    out.result(record.to_json(), table(columns(rows), [row.cells() for row in rows]), written)
    if failed:
        raise CsrError(
            f"{len(failed)} of {len(runs)} points failed, the first of them {failed[0]['name']}: "
            f"{failed[0]['error']}"
        )


def _show_plan(
    out: Output, folder: Path, jobs: Sequence[Job], replaces: bool, restart: bool
) -> None:
    points = [_planned(folder, job, replaces, restart) for job in jobs]
    left = [point for point in points if point["state"] != "done"]
    heads = ("point", "d", "h", "k", "steps", "minutes", "state")
    cells = [
        (
            point["name"],
            point["d"],
            point["h"],
            ", ".join(map(str, point["k"])),
            *("–" if point[length] is None else f"{point[length]:,}" for length in heads[4:6]),
            point["state"],
        )
        for point in points
    ]
    steps = [point["steps"] for point in left if point["steps"] is not None]
    minutes = [point["minutes"] for point in left if point["minutes"] is not None]
    amounts = [f"{sum(steps):,} steps"] if steps else []
    amounts += [f"{sum(minutes):g} minutes"] if minutes else []
    out.result(
        {"dry_run": True, "folder": str(folder), "replaces": replaces, "points": points},
        table(heads, cells),
        f"would train {len(left)} of {len(points)} points "
        f"({' and '.join(amounts) or 'nothing'}) into {folder}",
    )


def _planned(folder: Path, job: Job, replaces: bool, restart: bool) -> dict[str, Any]:
    state = "new"
    if not replaces and (folder / job.name).exists():
        state = "done"
    elif not (replaces or restart) and (_work(folder, job) / "checkpoint.safetensors").exists():
        state = "continues"
    return {
        **_named(job),
        "d": job.data.dimension,
        "h": job.h,
        "k": list(job.config.k),
        "steps": job.planned_steps(),
        "minutes": job.config.minutes,
        "state": state,
    }
