"""`csr detach`: what `csr attach` added to a collection is removed."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from csr_qdrant.cli.attach import Yes
from csr_qdrant.cli.opening import open_writer
from csr_qdrant.cli.options import AsJson, DryRun, configured
from csr_qdrant.cli.output import Output
from csr_qdrant.cli.places import ServerSettings, place_of
from csr_qdrant.deployment.detach import DetachPlan, plan_detach
from csr_qdrant.deployment.detach import detach as run
from csr_qdrant.errors import ConfigError

Folder = Annotated[
    Path | None,
    typer.Argument(metavar="[FOLDER]", help="Collection of Qdrant Edge, unless on a server."),
]


@configured
def detach(
    server: ServerSettings,
    folder: Folder = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Remove the codes that `csr attach` added; everything else stays."""
    out = Output(as_json=json)
    with closing(place_of(folder, server)) as place, open_writer(place) as writer:
        plan = plan_detach(writer)
        what = _what(plan)
        if dry_run:
            out.result({"dry_run": True, **plan.to_json()}, f"would remove {what}")
            return
        if not yes and not out.confirm(f"Remove {what}?"):
            raise ConfigError(f"{plan.location} was left as it is: confirm, or pass --yes")
        done = run(writer)
    out.result(done.to_json(), f"removed {what}")


def _what(plan: DetachPlan) -> str:
    return (
        f"the codes {plan.name!r} of {plan.codes:,} points from {plan.location}, made with encoder "
        f"{plan.fingerprint}"
    )
