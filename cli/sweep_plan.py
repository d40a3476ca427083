"""What `csr train --sweep` is to do: its grid, its points, and whether a folder is theirs."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from csr_qdrant.benchmarks.sweep import SOURCE, Grid, Point
from csr_qdrant.cli.output import plain
from csr_qdrant.cli.training_data import TrainingData
from csr_qdrant.cli.values import convert, inner_type
from csr_qdrant.errors import ConfigError
from csr_qdrant.json_files import read_json
from csr_qdrant.trainer.config import TrainConfig

FORMAT = "csr_qdrant.sweep/1"
RECORD = "sweep.json"
# A preset sets others, and which of them the user set too is not known here; how often a
# checkpoint is written changes nothing.
_FIXED = {"preset", "checkpoint_seconds"}


class Job(NamedTuple):
    """One point, ready to be trained."""

    point: Point
    config: TrainConfig
    source: str  # its label
    data: TrainingData

    @property
    def name(self) -> str:
        """The point's name, which its folder has too."""
        return self.point.name

    @property
    def h(self) -> int:
        """The number of latents."""
        return self.data.hidden_size(self.config)

    def planned_steps(self) -> int | None:
        """Return the number of steps, None where minutes are given."""
        from csr_qdrant.trainer.data import Order, Split

        if self.config.minutes is not None:
            return None
        rows = len(self.data.source)
        trained = Split.random(rows, self.config.held_out, self.config.seed).training_rows
        batch = self.config.rows_a_step(pairs=self.data.judged is not None)
        if self.data.labels is not None or self.data.judged is not None:
            batch //= 2  # the other half is what supervision brings
        if self.data.judged is not None:
            trained += len(self.data.judged.queries)
        return self.config.planned_steps(Order(trained, batch, (0,)).steps_per_epoch)


# --- the grid ---------------------------------------------------------------------------------


def parsed(sweep: Sequence[str], source: Path) -> tuple[Grid, dict[str, Path]]:
    """Return the grid of texts such as "h=1024,2048", and the sources by their labels.

    Raises ConfigError for texts of another form, and for unknown settings and values.
    """
    axes: dict[str, tuple[Any, ...]] = {}
    paths = {source.name: source}
    for text in sweep:
        given, equals, rest = text.partition("=")
        axis = given.strip().replace("-", "_")
        if not equals:
            raise ConfigError(f"--sweep takes SETTING=VALUE,VALUE,…, got {text!r}")
        if axis in axes:
            raise ConfigError(f"--sweep names {axis} twice: give all of its values at once")
        raw = [part.strip() for part in rest.split(",") if part.strip()]
        if axis == SOURCE:
            paths = _labelled([Path(value).expanduser() for value in raw], source)
            axes[axis] = tuple(paths)
        else:
            hint = _hint(axis)
            axes[axis] = tuple(convert(hint, value, f"--sweep {axis}") for value in raw)
    return Grid(axes), paths


def _hint(axis: str) -> Any:
    """Return the type of one value of `axis`."""
    hints = get_type_hints(TrainConfig)
    known = {f.name for f in fields(TrainConfig)} - _FIXED
    if axis not in known:
        raise ConfigError(
            f"--sweep does not take {axis!r}: it takes {', '.join(sorted(known | {SOURCE}))}"
        )
    kind = inner_type(hints[axis])
    return get_args(kind)[0] if get_origin(kind) is tuple else hints[axis]


def _labelled(paths: Sequence[Path], source: Path) -> dict[str, Path]:
    """Return the paths by names that can be part of a folder's name."""
    if source not in paths:
        raise ConfigError(
            f"--sweep source=… lists all sources, SOURCE among them: it lacks {source}"
        )
    by_name = {path.name: path for path in paths}
    if len(by_name) < len(paths):
        by_name = {"_".join(part for part in p.parts if part != p.anchor): p for p in paths}
    if len(by_name) < len(paths):
        raise ConfigError("--sweep source=… names a source twice: give each of them once")
    return by_name


def jobs_of(grid: Grid, base: TrainConfig, datas: Mapping[str, TrainingData]) -> list[Job]:
    """Return a job for each point; `datas` holds what was read from each source, by its label.

    Raises ConfigError if a point's settings do not fit, or the sources cannot be compared.
    """
    _check_sources(datas)
    jobs = []
    for point in grid.points():
        label = point.values.get(SOURCE, next(iter(datas)))
        jobs.append(Job(point, point.config(base), label, datas[label]))
        _check_job(jobs[-1])
    return jobs


def _check_sources(datas: Mapping[str, TrainingData]) -> None:
    if len(datas) == 1:
        return
    if len({len(data.source) for data in datas.values()}) > 1:
        counts = ", ".join(f"{label}: {len(data.source):,}" for label, data in datas.items())
        raise ConfigError(
            f"the sources of a sweep must hold vectors of the same rows, got numbers of rows that "
            f"differ ({counts})"
        )
    if any(data.judged is not None for data in datas.values()):
        raise ConfigError(
            "the queries of --pairs and the rows of --aligned have vectors that differ from source "
            "to source: sweep one source"
        )


def _check_job(job: Job) -> None:
    rows = len(job.data.source)
    if min(job.config.held_out, rows // 10) < 1:
        raise ConfigError(
            f"a sweep compares measures on held-out rows, so it needs held_out above 0 and 10 rows "
            f"or more, got held_out {job.config.held_out} and {rows} rows"
        )
    try:
        job.h  # noqa: B018
    except ConfigError as error:
        raise ConfigError(f"the sweep's point {job.name}: {error}") from error


# --- what is there already --------------------------------------------------------------------


def head_of(grid: Grid, base: TrainConfig, datas: Mapping[str, TrainingData]) -> dict[str, Any]:
    """Return what a sweep is made from, as JSON: only the same goes on in its folder."""
    left_out = {*grid.axes, "checkpoint_seconds"}
    settings = {name: value for name, value in asdict(base).items() if name not in left_out}
    sources = [
        {
            "name": label,
            "fingerprint": data.source.fingerprint,
            "rows": len(data.source),
            "d": data.dimension,
            "embedder": data.info["embedder"],
            "supervision": _supervision(data),
        }
        for label, data in datas.items()
    ]
    return dict(plain({"axes": grid.axes, "settings": settings, "sources": sources}))


def _supervision(data: TrainingData) -> str | None:
    """Return a hash of the labels or pairs, or None."""
    columns: Sequence[Any]
    if data.labels is not None:
        columns, kind = (data.labels,), f"labels {data.labels.dtype}"
    elif data.judged is not None:
        columns, kind = data.judged[1:], f"pairs {data.judged.queries.fingerprint}"
    else:
        return None
    digest = hashlib.sha256(kind.encode())
    for column in columns:
        digest.update(column.tobytes())
    return digest.hexdigest()


def holds_another(folder: Path, head: Mapping[str, Any], overwrite: bool) -> bool:
    """Tell whether `folder` holds another sweep, which gives way with `overwrite`.

    Raises ConfigError if it must not give way, or if the folder holds anything else.
    """
    path = folder / RECORD
    # Hidden files are what a killed process may have left of its first sweep.json.
    if not folder.exists() or (folder.is_dir() and all(p.name[0] == "." for p in folder.iterdir())):
        return False
    earlier = _earlier(path)
    if earlier is None:
        raise ConfigError(f"{folder} already exists and holds no sweep: choose another name")
    differs = _difference(earlier, head)
    if differs is not None and not overwrite:
        raise ConfigError(
            f"{folder} holds a sweep with other settings ({differs}): choose another name or pass "
            f"overwrite"
        )
    return differs is not None


def _earlier(path: Path) -> dict[str, Any] | None:
    """Return what sweep.json holds, None if it is missing or none of ours."""
    if not path.is_file():
        return None
    try:
        value = read_json(path)
    except ValueError as error:
        raise ConfigError(f"{path} is damaged ({error}): choose another name") from error
    return value if isinstance(value, dict) and value.get("format") == FORMAT else None


def _difference(earlier: Mapping[str, Any], head: Mapping[str, Any]) -> str | None:
    """Return the first thing in which they differ, in words, or None."""
    for part, new in head.items():
        old = earlier.get(part)
        if old == new:
            continue
        if not (isinstance(old, dict) and isinstance(new, dict)):
            return part
        for name in [*new, *old]:
            if name not in old or name not in new or old[name] != new[name]:
                return f"{name}: {_said(old.get(name))} there, {_said(new.get(name))} here"
        return f"the order of {part}"
    return None


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
