"""`csr latents`: how a collection uses its latents, and what they stand for."""

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csr_qdrant.cli.options import AsJson, configured
from csr_qdrant.cli.output import Output, table
from csr_qdrant.cli.places import ServerSettings, place_of
from csr_qdrant.cli.rows import about
from csr_qdrant.errors import ConfigError, CsrError

if TYPE_CHECKING:
    from csr_qdrant.explain import LatentDocuments
    from csr_qdrant.explain_usage import Usage
    from csr_qdrant.stores.base import Store

SHOWN_DEAD = 20  # numbers of dead latents in the text; JSON has all

Folder = Annotated[
    Path | None,
    typer.Argument(
        metavar="FOLDER", help="The collection's folder; left out with --url or --collection."
    ),
]


@dataclass(frozen=True, kw_only=True)
class LatentsSettings:
    """What to count and to show."""

    limit: int = field(default=10, metadata=about("Latents of each list.") | {"short": "-n"})
    sample: int = field(
        default=10_000, metadata=about("Points to read, at most; of more, some are drawn.")
    )
    top: int = field(default=3, metadata=about("Documents of each latent to show."))
    text: str | None = field(
        default=None,
        metadata=about("Payload field with texts, whose distinctive words name latents.", "FIELD"),
    )

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, least in (("limit", 1), ("sample", 1), ("top", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")


@configured
def latents(
    settings: LatentsSettings, server: ServerSettings, folder: Folder = None, json: AsJson = False
) -> None:
    """List a collection's latents: the longest posting lists, the most used, the dead.

    A search touches the posting lists of the query's latents, so long lists are what it costs. The
    most used are those with the most energy, the sum of the squared weights: they make most of the
    scores. Of large collections a sample is read.
    """
    out = Output(as_json=json)
    with closing(place_of(folder, server)) as place:
        if place.existing() is None:
            raise CsrError(f"there is no collection at {place.name}: make one with `csr index`")
        with closing(place.open_store()) as store:
            described = _described(place.name, store, settings)
    out.result(described, *_views(described))


def _described(name: str, store: "Store", settings: LatentsSettings) -> dict[str, Any]:
    from csr_qdrant.explain import latent_documents
    from csr_qdrant.explain_usage import latent_usage

    usage = latent_usage(store, settings.sample, settings.text)
    longest, heaviest = usage.longest(settings.limit), usage.heaviest(settings.limit)
    known = latent_documents(
        store,
        sorted({*longest, *heaviest}),
        top=settings.top,
        text=settings.text,
        background=usage.words or 1,
    )
    return {
        "location": name,
        "points": usage.points,
        "sampled": usage.sampled,
        "complete": usage.complete,
        "without_code": usage.without_code,
        "h": len(usage.documents),
        "effective_latents": round(usage.effective_latents, 1),
        "postings_per_query": usage.postings_per_query,
        "longest": [_latent(each, usage, known) for each in longest],
        "most_used": [_latent(each, usage, known) for each in heaviest],
        "dead": usage.dead.tolist(),
        "dead_share_bound": usage.dead_share_bound,
    }


def _latent(latent: int, usage: "Usage", known: "dict[int, LatentDocuments]") -> dict[str, Any]:
    documents = int(usage.documents[latent])
    total = float(usage.energy.sum())
    return {
        "latent": latent,
        "sampled_documents": documents,
        "documents": round(documents * usage.points / usage.sampled),
        "share": documents / usage.sampled,
        "energy": float(usage.energy[latent]) / total if total else 0.0,
        **known[latent]._asdict(),
    }


def _views(told: dict[str, Any]) -> list[Any]:
    part = "all" if told["complete"] else f"{told['sampled']:,} of"
    heading = (
        f"{told['location']}: {told['h']:,} latents in {part} {told['points']:,} points; lists "
        f"cost as much as {told['effective_latents']:,} latents used evenly, "
        f"{told['postings_per_query']:.3f} N postings a query"
    )
    guess = "" if told["complete"] else "; documents, shares and energy estimated from the sample"
    return [
        heading,
        _list(told["longest"], "longest posting lists" + guess),
        _list(told["most_used"], "most used (energy)" + guess),
        _dead(told),
    ]


def _list(entries: list[dict[str, Any]], title: str) -> Any:
    named = any(each["name"] for each in entries)
    columns = ["latent", "documents", "share", "energy", *(["name"] if named else [])]
    rows = [
        [
            each["latent"],
            f"{each['documents']:,}",
            f"{100 * each['share']:.1f} %",
            f"{100 * each['energy']:.2f} %",
            *([each["name"] or ""] if named else []),
            ", ".join(str(hit.id) for hit in each["top"]),
        ]
        for each in entries
    ]
    return table([*columns, "strongest in"], rows, title=title)


def _dead(told: dict[str, Any]) -> str:
    dead = told["dead"]
    if not dead:
        return "dead: none"
    shown = ", ".join(map(str, dead[:SHOWN_DEAD])) + (", …" if len(dead) > SHOWN_DEAD else "")
    sentence = f"dead: {len(dead):,} of {told['h']:,} latents ({shown})"
    if told["complete"]:
        return sentence
    bound = 100 * told["dead_share_bound"]
    return f"{sentence}; not seen in the sample, so likely in less than {bound:.2g} % of the points"
