"""`csr train`: dense vectors or texts in, an encoder folder out."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from csr_qdrant.cli.options import AsJson, DryRun, Overwrite, Quiet, configured
from csr_qdrant.cli.output import Output
from csr_qdrant.cli.rows import SourceFields, about, embedder_for
from csr_qdrant.cli.supervision import (
    JudgedRows,
    Supervision,
    pair_summary,
    read_judged,
    read_labels,
)
from csr_qdrant.trainer.config import TrainConfig

if TYPE_CHECKING:
    from csr_qdrant.embedders import Embedder
    from csr_qdrant.encoder import Encoder
    from csr_qdrant.sources import Source

Vectors = Annotated[
    Path,
    typer.Argument(
        metavar="SOURCE",
        help="Vectors or texts: .npy, .npz, .parquet, .jsonl[.gz], .csv[.gz] or a BEIR folder.",
    ),
]
EncoderOut = Annotated[
    Path, typer.Option("--output", "-o", metavar="ENCODER", help="Folder to write the encoder to.")
]
Restart = Annotated[
    bool,
    typer.Option("--restart", help="Start anew instead of continuing an interrupted run."),
]


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Where a run computes, what makes its vectors, and where it logs."""

    embedder: str | None = field(
        default=None,
        metadata=about(
            "What makes vectors of texts: wordllama, sentence-transformers:NAME-or-PATH.", "URI"
        ),
    )
    device: str | None = field(
        default=None, metadata=about("cpu, cuda or mps; default: the best there is.", "NAME")
    )
    tensorboard: Path | None = field(
        default=None, metadata=about("Log to TensorBoard in this folder.", "DIR")
    )


class _Data(NamedTuple):
    """What a run learns from, before any vector is made."""

    source: "Source"
    embedder: "Embedder | None"  # of texts
    labels: Any
    judged: JudgedRows | None
    dimension: int


@configured
def train(
    vectors: Vectors,
    output: EncoderOut,
    run: RunSettings,
    supervision: Supervision,
    fields: SourceFields,
    config: TrainConfig,
    restart: Restart = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train an encoder on dense vectors or texts.

    The vectors may be larger than RAM. A run that was interrupted goes on where it stopped when
    the same command is given again; until it is done its state lies in ENCODER.partial.
    """
    from csr_qdrant.atomic import refuse_existing

    out = Output(as_json=json, quiet=quiet)
    refuse_existing(output, overwrite)
    data = _read(vectors, run, supervision, fields)
    work = output.with_name(output.name + ".partial")
    if dry_run:
        _show_plan(out, data, config, output, work)
        return
    if restart and work.exists():
        shutil.rmtree(work)
    encoder = _fit(out, data, config, run, work)
    encoder.save(output, overwrite=overwrite)
    shutil.rmtree(work, ignore_errors=True)
    _show(out, encoder, output)


def _read(path: Path, run: RunSettings, supervision: Supervision, fields: SourceFields) -> _Data:
    from csr_qdrant.cli.dense import first_dimension

    source = fields.opened(path, payload_fields=None)
    embedder = embedder_for(source, run.embedder, run.device)
    labels = judged = None
    if supervision.labels is not None:
        labels = read_labels(supervision.labels, path, fields, len(source))
    if supervision.pairs is not None:
        judged = read_judged(supervision, path, source)
        embedder = embedder or embedder_for(judged.queries, run.embedder, run.device)
    embed = embedder.embed_documents if embedder else None
    return _Data(source, embedder, labels, judged, first_dimension(source, embed))


def _show_plan(out: Output, data: _Data, config: TrainConfig, output: Path, work: Path) -> None:
    rows, d, h = len(data.source), data.dimension, config.hidden_size(data.dimension)
    mapped = getattr(data.source, "array", None) is not None
    work_bytes = (0 if mapped else 4 * rows * d) + 12 * (h * d + h + d)
    plan = {
        "dry_run": True,
        "source": data.source.name,
        "kind": data.source.kind,
        "rows": rows,
        "d": d,
        "h": h,
        "k": list(config.k),
        "steps": None if config.minutes else config.steps,
        "minutes": config.minutes,
        "working_bytes": work_bytes,
        "continues": (work / "checkpoint.safetensors").exists(),
        "supervision": _supervision(data),
        "encoder": str(output),
    }
    length = f"{config.minutes:g} minutes" if config.minutes else f"{config.steps:,} steps"
    verb = "would continue" if plan["continues"] else "would train"
    out.result(
        plan,
        f"{verb} {h:,} latents on {rows:,} rows of {d} dimensions ({data.source.kind} of "
        f"{data.source.name}) for {length}, k = {_listed(config.k)}, with about "
        f"{work_bytes / 1e6:,.0f} MB in {work} meanwhile, and write {output}",
    )


def _supervision(data: _Data) -> Mapping[str, Any] | None:
    return {"labels": len(data.labels)} if data.labels is not None else pair_summary(data.judged)


def _fit(out: Output, data: _Data, config: TrainConfig, run: RunSettings, work: Path) -> "Encoder":
    from csr_qdrant.cli.watch import Watch
    from csr_qdrant.trainer import fit

    config.hidden_size(data.dimension)  # a k that does not fit is found before texts are embedded
    vectors = _dense(out, data.source, work / "vectors.npy", data.embedder, queries=False)
    pairs = None if data.judged is None else _pairs(out, data.judged, data.embedder, work)
    checkpoint = work / "checkpoint.safetensors"
    if checkpoint.exists():
        out.note(f"continuing the run in {work} (start anew with --restart)")
    described = {"source": data.source.name, "rows": len(vectors), **(_supervision(data) or {})}
    with Watch(out, config, run.tensorboard) as watch:
        try:
            return fit(
                vectors,
                config,
                labels=data.labels,
                pairs=pairs,
                device=run.device,
                checkpoint=checkpoint,
                listeners=watch.listeners,
                info={"embedder": _uri(data, run), "data": described},
            )
        except KeyboardInterrupt:
            if checkpoint.exists():
                out.note(f"stopped; give the same command again to continue from {work}")
            raise


def _uri(data: _Data, run: RunSettings) -> str | None:
    return data.embedder.uri if data.embedder else run.embedder


def _dense(
    out: Output, source: "Source", path: Path, embedder: "Embedder | None", *, queries: bool
) -> Any:
    from csr_qdrant.cli.dense import dense_on_disk

    embed, label = None, "reading"
    if source.kind == "texts" and embedder is not None:
        embed = embedder.embed_queries if queries else embedder.embed_documents
        label = "embedding queries" if queries else "embedding"
    maker = embedder.uri if embed and embedder else None
    with out.progress(label, len(source)) as progress:
        return dense_on_disk(source, path, embed, maker=maker, on_rows=progress.update)


def _pairs(out: Output, judged: JudgedRows, embedder: "Embedder | None", work: Path) -> Any:
    from csr_qdrant.trainer import Pairs

    queries = _dense(out, judged.queries, work / "queries.npy", embedder, queries=True)
    return Pairs.of(queries, judged.query_rows, judged.document_rows, judged.scores)


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
