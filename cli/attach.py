"""`csr attach`: codes beside the dense vectors of a collection that is in use."""

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from csr_qdrant.cli.opening import open_writer
from csr_qdrant.cli.options import AsJson, DryRun, Quiet, configured
from csr_qdrant.cli.output import Output
from csr_qdrant.cli.places import Place, ServerSettings, place_of
from csr_qdrant.cli.rows import about
from csr_qdrant.deployment.attach import (
    AttachConfig,
    AttachPlan,
    AttachReport,
    attach_as_planned,
    plan_attach,
)
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError

if TYPE_CHECKING:
    from csr_qdrant.stores.writing import CodeWriter

Folder = Annotated[
    Path | None,
    typer.Argument(metavar="[FOLDER]", help="Collection of Qdrant Edge, unless on a server."),
]


Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask before codes are removed.")]


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """Which encoder makes the codes."""

    encoder: Path | None = field(
        default=None,
        metadata=about(
            "Encoder folder; default: the copy that an earlier run left beside the collection.",
            "FOLDER",
        ),
    )


@configured
def attach(
    server: ServerSettings,
    settings: EncoderSettings,
    config: AttachConfig,
    folder: Folder = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Add codes to the points of an existing collection.

    Payloads and other vectors stay as they are; `csr detach` takes the codes away again. An
    interrupted run goes on where it stopped. Run it again after points were written without codes.
    Needs Qdrant 1.18, or Qdrant Edge.
    """
    out = Output(as_json=json, quiet=quiet)
    with closing(place_of(folder, server)) as place:
        encoder = _encoder(place, settings.encoder)
        with open_writer(place) as writer:
            plan = plan_attach(writer, encoder, config)
            if dry_run:
                told = "would attach: " + _costs(plan, config)
                out.result({"dry_run": True, **plan.to_json()}, told)
                return
            _confirm(out, plan, config, yes)
            out.note(_costs(plan, config))
            report = _attach(out, writer, encoder, config, plan)
    if report.bad and config.bad_rows is not None:
        out.warn(f"{report.bad:,} points cannot have a code: see {config.bad_rows}")
    out.result(report.to_json(), _done(report))


def _encoder(place: Place, given: Path | None) -> Encoder:
    encoder = Encoder.load(given) if given is not None else place.own_encoder()
    if encoder is None:
        raise ConfigError("--encoder is missing: pass the folder that `csr train` wrote")
    return encoder


def _confirm(out: Output, plan: AttachPlan, config: AttachConfig, yes: bool) -> None:
    """Ask before codes are removed that nothing could make again."""
    if not (config.remove_orphans and plan.orphans) or yes:
        return
    if not out.confirm(f"Remove {_orphans(plan)} from {plan.location}?"):
        raise ConfigError(f"{plan.location} was left as it is: confirm, or pass --yes")


def _attach(
    out: Output, writer: "CodeWriter", encoder: Encoder, config: AttachConfig, plan: AttachPlan
) -> AttachReport:
    try:
        # Both phases go over the points once, the second one only to look.
        total = plan.points
        with out.progress("attaching", total * (2 if plan.verifies else 1)) as progress:
            furthest = 0

            def show(phase: str, done: int, in_all: int) -> None:
                nonlocal furthest
                before = total if phase == "verify" else total - min(in_all, total)
                furthest = max(furthest, before + done)  # later passes begin anew
                progress.update(furthest)

            return attach_as_planned(writer, encoder, config, plan, show)
    except KeyboardInterrupt:
        out.note("stopped; give the same command again to go on")
        raise


def _vector(plan: AttachPlan) -> str:
    return f"vector {plan.vector!r}" if plan.vector else "the unnamed vector"


def _orphans(plan: AttachPlan) -> str:
    return f"{plan.orphans:,} codes of points that have lost {_vector(plan)}"


def _costs(plan: AttachPlan, config: AttachConfig) -> str:
    graph = ", whose graphs (HNSW) the engine then builds anew" if plan.lacking else ""
    earlier = {"backfill": "; goes on with an earlier run", "verify": "; goes on with verifying"}
    fate = "are removed" if config.remove_orphans else "stay"
    orphans = f"; {_orphans(plan)} {fate}" if plan.orphans else ""
    return (
        f"{plan.lacking:,} of {plan.points:,} points of {plan.location} get codes of "
        f"{_vector(plan)} as {plan.name!r} (k={plan.k}, {plan.datatype}): about "
        f"{_mb(plan.index_bytes)} of index and {_mb(plan.stored_bytes)} stored; "
        f"{_mb(plan.copied_bytes)} of dense vectors move with the points{graph}"
        f"{earlier.get(plan.phase or '', '')}{orphans}"
    )


def _mb(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _done(report: AttachReport) -> str:
    changed = [
        f"{count:,} {what}"
        for count, what in (
            (report.rewritten, "mended"),
            (report.removed, "removed"),
            (report.without_code, "points have no active latent"),
            (report.bad, "points cannot have a code"),
            (report.lacking, "points lack one: run it again"),
            (report.orphans, "codes stay at points that have lost their dense vector"),
            (report.unsettled, "points kept changing: run it again"),
            (report.sampled_wrong, "of a sample are wrong: run it again"),
        )
        if count
    ]
    more = "; " + ", ".join(changed) if changed else ""
    return (
        f"attached {report.written:,} codes to {report.plan.location} in {report.seconds:.1f} s, "
        f"{report.coded:,} of {report.points:,} points have one{more}"
    )
