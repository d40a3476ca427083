"""`csr migrate`: a copy of a collection with codes, and an alias that moves over to it."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from csr_qdrant.cli.attach import EncoderSettings
from csr_qdrant.cli.migrate_target import TargetSettings, target_of
from csr_qdrant.cli.migrate_words import begins, costs, done
from csr_qdrant.cli.opening import new_place, open_points
from csr_qdrant.cli.options import AsJson, DryRun, Quiet, configured
from csr_qdrant.cli.output import Output
from csr_qdrant.cli.places import ServerSettings, place_of
from csr_qdrant.deployment.migrate import (
    MigrateConfig,
    MigratePlan,
    MigrateReport,
    own_encoder,
    plan_migrate,
)
from csr_qdrant.deployment.migrate import migrate as run
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError

if TYPE_CHECKING:
    from csr_qdrant.stores.whole_points import NewPlace, WholePoints

Folder = Annotated[
    Path | None,
    typer.Argument(metavar="[FOLDER]", help="Collection of Qdrant Edge, unless on a server."),
]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Don't ask before a finished copy is compared again.")
]


@configured
def migrate(
    server: ServerSettings,
    target: TargetSettings,
    settings: EncoderSettings,
    config: MigrateConfig,
    folder: Folder = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Copy a collection into a new one that has codes.

    From a folder or a server to a folder or a server, with all vectors, payloads and settings.
    The old collection is only read, and stays. With `--alias` the alias moves to the copy once
    that is complete. An interrupted run goes on where it stopped; run it again after points were
    written to the old collection. Exits with 1 while the copy is not complete. Needs Qdrant
    1.16, or Qdrant Edge.
    """
    out = Output(as_json=json, quiet=quiet)
    with closing(place_of(folder, server)) as source, closing(target_of(target, source)) as to:
        place = new_place(to)
        given = None if settings.encoder is None else Encoder.load(settings.encoder)
        with open_points(source) as points:
            encoder = own_encoder(points, given)
            plan = plan_migrate(points, place, encoder, config)
            if dry_run:
                out.result({"dry_run": True, **plan.to_json()}, "would copy " + costs(plan))
                return
            _confirm(out, plan, yes)
            out.note("copies " + begins(plan))
            report = _migrate(out, points, place, encoder, config, plan)
    if report.bad and config.bad_rows is not None:
        out.warn(f"{report.bad:,} points have no code or were refused: see {config.bad_rows}")
    out.result(report.to_json(), done(report))
    if not report.complete and plan.phase != "swapped":
        out.warn(f"the copy does not equal {plan.source} yet: keep that, and run it again")
        raise typer.Exit(1)


def _confirm(out: Output, plan: MigratePlan, yes: bool) -> None:
    """Ask before points of a finished copy may be overwritten or removed: it may be in use."""
    question = f"{plan.target} is finished. Make it equal to {plan.source} again?"
    if plan.phase == "done" and not yes and not out.confirm(question):
        raise ConfigError(
            f"{plan.target} is a finished copy and was left as it is: what others wrote there "
            f"would be lost; confirm, or pass --yes to make it equal to {plan.source} again"
        )


def _migrate(
    out: Output,
    points: "WholePoints",
    place: "NewPlace",
    encoder: Encoder | None,
    config: MigrateConfig,
    plan: MigratePlan,
) -> MigrateReport:
    # Both passes go over the points once, the second one only to look.
    total = plan.points
    copies = plan.phase in (None, "copy")
    try:
        with out.progress("copying", total * (copies + config.verify), "points") as progress:

            def show(phase: str, count: int, _: int) -> None:
                progress.update(count + (total if copies and phase == "verify" else 0))

            return run(points, place, encoder, config, show)
    except KeyboardInterrupt:
        out.note("stopped; give the same command again to go on")
        raise
