"""`csr train --method mrl` and `--method adapter`: dense vectors in, a linear adapter out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from csr_qdrant.cli.method import refuse_foreign
from csr_qdrant.cli.output import Output, table
from csr_qdrant.cli.supervision import Supervision
from csr_qdrant.cli.training_data import RunSettings, TrainingData
from csr_qdrant.errors import ConfigError
from csr_qdrant.trainer.linear_config import LinearConfig

if TYPE_CHECKING:
    from csr_qdrant.linear import LinearAdapter

_MEASURES = {"recall": "recall@10", "accuracy": "1-NN accuracy", "loss": "loss of pairs"}


def check_run(
    config: LinearConfig, run: RunSettings, supervision: Supervision, work: Path, restart: bool
) -> None:
    """Raise ConfigError for options that do not apply, and for another method's unfinished run."""
    if run.tensorboard is not None:
        refuse_foreign(config.method, ["tensorboard"])
    config.temperature_for(supervision.labels is not None or supervision.pairs_rows)
    if not restart and (work / "checkpoint.safetensors").exists():
        raise ConfigError(
            f"{work} holds an interrupted run of --method csr: choose another --output, or drop "
            f"that run with --restart"
        )


def show_plan(out: Output, data: TrainingData, config: LinearConfig, output: Path) -> None:
    """Tell what would be trained."""
    rows, d, dims = len(data.source), data.dimension, config.sizes(data.dimension)
    plan = {
        "dry_run": True,
        "method": config.method,
        "source": data.source.name,
        "kind": data.source.kind,
        "rows": rows,
        "d": d,
        "dims": list(dims),
        "steps": None if config.minutes else config.steps,
        "minutes": config.minutes,
        "working_bytes": data.spilled_bytes,
        "supervision": data.summary,
        "folder": str(output),
    }
    length = f"{config.minutes:g} minutes" if config.minutes else f"{config.steps:,} steps"
    out.result(
        plan,
        f"would train a linear adapter on {rows:,} rows of {d} dimensions ({data.source.kind} of "
        f"{data.source.name}) for {length}, dims = {_listed(dims)}, and write {output}",
    )


def fitted(
    out: Output, data: TrainingData, config: LinearConfig, run: RunSettings, work: Path
) -> "LinearAdapter":
    """Train; vectors that must be made for it are kept in `work`."""
    from csr_qdrant.trainer.linear import LinearReport, fit_linear

    config.sizes(data.dimension)  # dims that do not fit are found before texts are embedded
    vectors, pairs = data.vectors(out, work), data.pairs(out, work)
    minutes = config.minutes
    total, unit = (config.steps, "steps") if minutes is None else (round(60 * minutes), "s")
    with out.progress("training", max(1, total), unit) as progress:

        def follow(report: LinearReport) -> None:
            done = report.step if minutes is None else round(report.progress * total)
            progress.update(done, f"loss {report.loss:.3f}")

        return fit_linear(
            vectors,
            config,
            labels=data.labels,
            pairs=pairs,
            device=run.device,
            on_step=follow,
            info=data.info,
        )


def show(out: Output, adapter: "LinearAdapter", folder: Path) -> None:
    """Tell what was trained, and what it measures."""
    info = adapter.info
    result = {
        "folder": str(folder),
        "method": info["training"]["method"],
        "fingerprint": adapter.fingerprint,
        "d": adapter.d,
        "dims": list(adapter.dims),
        "embedder": info["embedder"],
        "data": info["data"],
        "steps": info["steps"],
        "seconds": info["seconds"],
        "training": info["training"],
        "validations": info["validations"],
    }
    line = (
        f"wrote {folder}: d={adapter.d}, dims={_listed(adapter.dims)}, {info['steps']:,} steps in "
        f"{info['seconds']:,.0f} s"
    )
    out.result(result, *_views(info["validations"]), line)


def _views(validations: list[dict[str, Any]]) -> list[Any]:
    """Return a heading and a table of each measure before and after training."""
    if not validations:
        return []
    first, last = validations[0]["at"], validations[-1]["at"]
    names = [name for name in _MEASURES if last[0][name] is not None]
    columns = ["dims"]
    for name in names:
        columns += [_MEASURES[name], "before"]
    rows = [
        [after["dims"], *(f"{at[name]:.3f}" for name in names for at in (after, before))]
        for before, after in zip(first, last, strict=True)
    ]
    heading = f"held-out rows after {validations[-1]['step']:,} steps, and before training"
    return [heading, table(columns, rows)]


def _listed(dims: tuple[int, ...]) -> str:
    return ", ".join(map(str, dims))
