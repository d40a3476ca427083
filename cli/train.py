"""`csr train`: dense vectors or texts in, the folder of an encoder or an adapter out."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from csr_qdrant.cli import ranks, training_points
from csr_qdrant.cli.method import MethodSettings
from csr_qdrant.cli.options import AsJson, DryRun, Overwrite, Quiet, configured
from csr_qdrant.cli.output import Output
from csr_qdrant.cli.places import ServerSettings
from csr_qdrant.cli.rows import SourceFields
from csr_qdrant.cli.supervision import Supervision
from csr_qdrant.cli.training_data import RunSettings, TrainingData
from csr_qdrant.cli.training_points import PointSettings
from csr_qdrant.trainer.config import TrainConfig
from csr_qdrant.trainer.linear_config import LinearConfig

if TYPE_CHECKING:
    from csr_qdrant.encoder import Encoder

Vectors = Annotated[
    Path | None,
    typer.Argument(
        metavar="SOURCE",
        help="Vectors or texts: .npy, .npz, .parquet, .jsonl[.gz], .csv[.gz], a BEIR folder, or "
        "the folder of a Qdrant Edge collection; left out with --url or --collection.",
    ),
]
EncoderOut = Annotated[
    Path, typer.Option("--output", "-o", metavar="ENCODER", help="Folder to write the encoder to.")
]
Restart = Annotated[
    bool,
    typer.Option("--restart", help="Start anew instead of continuing an interrupted run."),
]
Sweep = Annotated[
    list[str] | None,
    typer.Option(
        "--sweep",
        metavar="SETTING=V,V,…",
        help="Train one encoder for each value, into folders in ENCODER, with a table and a plot "
        "of all; may be repeated: h=1024,2048 and seed=0,1,2. source=FILE,FILE compares vectors.",
    ),
]


@configured
def train(
    output: EncoderOut,
    run: RunSettings,
    supervision: Supervision,
    fields: SourceFields,
    points: PointSettings,
    server: ServerSettings,
    config: MethodSettings,
    vectors: Vectors = None,
    sweep: Sweep = None,
    restart: Restart = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train an encoder on dense vectors or texts, from a file or a collection.

    The vectors may be larger than RAM. A run that was interrupted goes on where it stopped when
    the same command is given again; until it is done its state lies in ENCODER.partial. With
    --method mrl or adapter a linear adapter is trained instead, to compare with.
    """
    from csr_qdrant.atomic import refuse_existing, remove_whole
    from csr_qdrant.cli import linear
    from csr_qdrant.cli.sweep import Flags, Trainer, run_sweep
    from csr_qdrant.linear import LinearAdapter

    out = Output(as_json=json, quiet=quiet or not ranks.leads())
    chosen = cast(TrainConfig | LinearConfig, config)  # what `from_settings` has made
    place = training_points.place(vectors, server)
    training_points.check(place, points, supervision, fields, sweep=bool(sweep))
    if sweep:
        assert vectors is not None
        ranks.refuse_several("sweeps")
        trainer = Trainer(lambda path: TrainingData.read(path, run, supervision, fields), _fit)
        flags = Flags(restart=restart, overwrite=overwrite, dry_run=dry_run)
        run_sweep(out, sweep, vectors, output, chosen, run, trainer, flags)
        return
    refuse_existing(output, overwrite)
    work = output.with_name(output.name + ".partial")
    if isinstance(chosen, LinearConfig):
        ranks.refuse_several("linear adapters")
        linear.check_run(chosen, run, supervision, work, restart)
    if place is not None:
        data = training_points.read(
            out, place, points, run, chosen.seed, None if dry_run else work, restart=restart
        )
    else:
        assert vectors is not None
        data = TrainingData.read(vectors, run, supervision, fields)
    if dry_run:
        if isinstance(chosen, LinearConfig):
            linear.show_plan(out, data, chosen, output)
        else:
            _show_plan(out, data, chosen, output, work)
        return
    if restart and place is None and ranks.leads():
        remove_whole(work)
    made: Encoder | LinearAdapter
    if isinstance(chosen, LinearConfig):
        made = linear.fitted(out, data, chosen, run, work)
    else:
        made = _fit(out, data, chosen, run, work)
    if not ranks.leads():
        return
    made.save(output, overwrite=overwrite)
    shutil.rmtree(work, ignore_errors=True)
    if isinstance(made, LinearAdapter):
        linear.show(out, made, output)
    else:
        _show(out, made, output)


def _show_plan(
    out: Output, data: TrainingData, config: TrainConfig, output: Path, work: Path
) -> None:
    rows, d = len(data.source), data.dimension
    h = data.hidden_size(config)
    work_bytes = data.spilled_bytes + 12 * (h * d + h + d)
    plan = {
        "dry_run": True,
        "source": data.source.name,
        "kind": data.source.kind,
        "rows": rows,
        "d": d,
        "h": h,
        "k": list(config.k),
        "steps": None if config.minutes or config.epochs else config.steps,
        "minutes": config.minutes,
        "epochs": config.epochs,
        "working_bytes": work_bytes,
        "continues": (work / "checkpoint.safetensors").exists(),
        "supervision": data.summary,
        "encoder": str(output),
    }
    length = f"{config.steps:,} steps"
    if config.minutes or config.epochs:
        length = f"{config.minutes:g} minutes" if config.minutes else f"{config.epochs:g} epochs"
    verb = "would continue" if plan["continues"] else "would train"
    out.result(
        plan,
        f"{verb} {h:,} latents on {rows:,} rows of {d} dimensions ({data.source.kind} of "
        f"{data.source.name}) for {length}, k = {_listed(config.k)}, with about "
        f"{work_bytes / 1e6:,.0f} MB in {work} meanwhile, and write {output}",
    )


def _fit(
    out: Output,
    data: TrainingData,
    config: TrainConfig,
    run: RunSettings,
    work: Path,
    made: Path | None = None,
) -> "Encoder":
    """Train; the checkpoint lies in `work`, and so do vectors to be made, if not in `made`."""
    from csr_qdrant.cli.watch import Watch
    from csr_qdrant.trainer import fit

    # A k that does not fit is found before texts are embedded.
    data.hidden_size(config)
    checkpoint = work / "checkpoint.safetensors"
    board = run.tensorboard if ranks.leads() else None
    with ranks.joined(run.device) as device, Watch(out, config, board) as watch:
        with ranks.in_turn():
            vectors, pairs = data.vectors(out, made or work), data.pairs(out, made or work)
        if checkpoint.exists():
            out.note(f"continuing the run in {work} (start anew with --restart)")
        try:
            return fit(
                vectors,
                config,
                labels=data.labels,
                pairs=pairs,
                device=device,
                checkpoint=checkpoint,
                listeners=watch.listeners,
                info=data.info,
            )
        except KeyboardInterrupt:
            if checkpoint.exists():
                out.note(f"stopped; give the same command again to continue from {work}")
            raise


def _show(out: Output, encoder: "Encoder", folder: Path) -> None:
    from csr_qdrant.cli.watch import validation_views

    info = encoder.info
    validations = info["validations"]
    result = {
        "encoder": str(folder),
        "fingerprint": encoder.fingerprint,
        "d": encoder.d,
        "h": encoder.h,
        "k": list(info["training"]["k"]),
        "embedder": encoder.embedder,
        "data": info["data"],
        "adapter": info["adapter"],
        "steps": info["steps"],
        "seconds": info["seconds"],
        "training": info["training"],
        "validations": validations,
    }
    views: list[Any] = validation_views(validations[-1]) if validations else []
    views.append(
        f"wrote {folder}: d={encoder.d}, h={encoder.h}, k={_listed(info['training']['k'])}, "
        f"{info['steps']:,} steps in {info['seconds']:,.0f} s"
    )
    out.result(result, *views)


def _listed(ks: Any) -> str:
    return ", ".join(map(str, ks))
