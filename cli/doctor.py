"""`csr doctor`: whether a collection, its encoder and what runs here fit together."""

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csr_qdrant.cli.options import AsJson, configured
from csr_qdrant.cli.output import Output, table
from csr_qdrant.cli.places import (
    FolderPlace,
    ServerPlace,
    ServerSettings,
    place_of,
)
from csr_qdrant.cli.rows import about
from csr_qdrant.encoder import Encoder

if TYPE_CHECKING:
    from csr_qdrant.deployment.doctor import Diagnosis

Folder = Annotated[
    Path | None,
    typer.Argument(metavar="FOLDER", help="The collection's folder, unless it is on a server."),
]


@dataclass(frozen=True, kw_only=True)
class DoctorSettings:
    """What to look at."""

    encoder: Path | None = field(
        default=None,
        metadata=about("Folder of the encoder. [default: the one in the collection's folder]"),
    )
    sample: int = field(default=10_000, metadata=about("Points at most whose codes are read."))


@configured
def doctor(
    settings: DoctorSettings,
    server: ServerSettings,
    folder: Folder = None,
    json: AsJson = False,
) -> None:
    """Examine a collection: versions, connection, encoder, counts, codes, balance.

    Only reads. Exits with 1 if something is broken; with warnings alone it exits with 0.
    """
    out = Output(as_json=json)
    encoder = Encoder.load(settings.encoder) if settings.encoder else None
    found = _diagnosed(folder, server, encoder, settings.sample)
    out.result(found.to_json(), *_views(found))
    if not found.healthy:
        raise typer.Exit(1)


def _diagnosed(
    folder: Path | None, server: ServerSettings, encoder: Encoder | None, sample: int
) -> "Diagnosis":
    from csr_qdrant.deployment.doctor import diagnose, diagnose_on

    with closing(place_of(folder, server)) as place:
        if isinstance(place, FolderPlace):
            return diagnose(place.folder, encoder, sample=sample)
        assert isinstance(place, ServerPlace)
        return diagnose_on(place.client, place.collection, encoder, sample=sample)


def _views(found: "Diagnosis") -> list[Any]:
    shown = {name: version or "not installed" for name, version in found.versions.items()}
    if found.cuda is not None:
        shown["cuda"] = "yes" if found.cuda else "no"
    shown |= {name: "yes" if there else "no" for name, there in found.features.items()}
    shown |= {name: f"{value:,.4g}" for name, value in found.metrics.items()}
    words = [f"{each.level}: {each.text}" for each in found.findings]
    return [found.location, table(("what", "value"), list(shown.items())), *(words or ["all well"])]
