"""`csr explain`: why a query finds what it finds."""

import textwrap
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csr_qdrant.cli import queries
from csr_qdrant.cli.options import AsJson, configured
from csr_qdrant.cli.output import Output, table
from csr_qdrant.cli.places import ServerSettings, place_of
from csr_qdrant.cli.rows import about
from csr_qdrant.collection import Collection
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError

if TYPE_CHECKING:
    from csr_qdrant.explain import Explanation, SharedLatent

SHOWN_CHARACTERS = 60  # of a document's text

Folder = Annotated[
    str | None,
    typer.Argument(
        metavar="FOLDER", help="The collection's folder; left out with --url or --collection."
    ),
]
Text = Annotated[str | None, typer.Argument(metavar="QUERY", help="A text.", show_default=False)]
VectorFile = Annotated[
    Path | None,
    typer.Option("--vectors", metavar="FILE", help="Take the query from a file, instead."),
]
Row = Annotated[int, typer.Option("--row", metavar="N", help="Its row in that file.")]


@dataclass(frozen=True, kw_only=True)
class ExplainSettings:
    """What to explain."""

    id: tuple[str, ...] = field(
        default=(), metadata=about("Explain this row, hit or not; may be repeated.", "ID")
    )
    limit: int = field(default=3, metadata=about("Hits to explain, at most.") | {"short": "-n"})
    k: int | None = field(
        default=None, metadata=about("Active latents of the query. [default: the documents']")
    )
    top: int = field(default=3, metadata=about("Documents of each latent to show."))
    text: str | None = field(
        default=None,
        metadata=about("Payload field with texts, whose distinctive words name latents.", "FIELD"),
    )
    background: int = field(
        default=1000, metadata=about("Points at most that words are compared with.")
    )
    encoder: Path | None = field(
        default=None,
        metadata=about("Folder of the encoder. [default: the one in the collection's folder]"),
    )
    embedder: str | None = field(
        default=None,
        metadata=about("What makes vectors of texts. [default: the collection's]", "URI"),
    )

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, least in (("limit", 1), ("top", 0), ("background", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")


@configured
def explain(
    settings: ExplainSettings,
    server: ServerSettings,
    folder: Folder = None,
    query: Text = None,
    vectors: VectorFile = None,
    row: Row = 0,
    json: AsJson = False,
) -> None:
    """Explain why a query finds what it finds.

    The score of a hit is the sum, over the latents that it shares with the query, of the product
    of both weights. Each of them is shown with the documents in which it is strongest and, with
    --text, with the words that set these documents apart.
    """
    from csr_qdrant.explain import explain as explained

    out = Output(as_json=json)
    if server.given and folder is not None:  # then the first word is the query
        folder, query = None, folder
    with closing(place_of(Path(folder) if folder else None, server)) as place:
        asked = _query(query, vectors, row)
        if place.existing() is None:
            raise CsrError(f"there is no collection at {place.name}: make one with `csr index`")
        encoder = Encoder.load(settings.encoder) if settings.encoder else None
        embedder = None
        if settings.embedder is not None:
            from csr_qdrant.cli.embedding import named_embedder

            embedder = named_embedder(settings.embedder)
        with place.open(encoder, embedder) as collection:
            found = explained(
                collection,
                asked,
                ids=_ids(collection, settings.id) if settings.id else None,
                limit=settings.limit,
                k=settings.k,
                top=settings.top,
                text=settings.text,
                background=settings.background,
            )
    shown = query if query is not None else f"{vectors}, row {row}"
    result = {"query": shown, "hits": [each._asdict() for each in found]}
    views = [view for each in found for view in _views(each, settings.text)]
    out.result(result, *(views or ["no hits"]))


def _query(text: str | None, vectors: Path | None, row: int) -> Any:
    if (text is None) == (vectors is None):
        raise ConfigError("give one query: a text, or --vectors FILE with --row N")
    if text is not None:
        return text
    assert vectors is not None
    first = 0
    for names, contents in queries.from_file(vectors):
        if 0 <= row - first < len(names):
            at = row - first
            one = contents[at : at + 1]
            return one[0] if isinstance(one, list) else one
        first += len(names)
    raise ConfigError(f"{vectors} has {first} rows, got row {row}: rows count from 0")


def _ids(collection: Collection, given: tuple[str, ...]) -> list[Any]:
    """Return ids as the rows have them: digits may be a number or a text."""
    ids: list[Any] = []
    for text in given:
        known = [int(text), text] if text.isdecimal() and int(text) < 2**64 else [text]
        found = collection.get(known) if len(known) > 1 else {}
        ids.append(next((each for each in known if each in found), text))
    return ids


# --- showing ----------------------------------------------------------------------------------


def _views(found: "Explanation", field: str | None) -> list[Any]:
    heading = (
        f"\nid {found.id}: score {found.score:.4f}, {len(found.latents)} latents shared of "
        f"{found.query_latents} in the query and {found.document_latents} in the document"
    )
    text = _text(found.payload, field)
    lines = [heading, f"  {text}"] if text else [heading]
    if not found.latents:
        return lines
    columns = ["latent", "query", "document", "product", "share"]
    named = any(each.name for each in found.latents)
    columns += ["name"] if named else []
    rows = [_row(each, field, named=named) for each in found.latents]
    return [*lines, table([*columns, "strongest in"], rows)]


def _row(shared: "SharedLatent", field: str | None, *, named: bool) -> list[str]:
    cells = [str(shared.latent), f"{shared.query:.3f}", f"{shared.document:.3f}"]
    cells += [f"{shared.contribution:.4f}", f"{100 * shared.share:.0f} %"]
    documents = [f"{hit.id} {_text(hit.payload, field)}".strip() for hit in shared.top]
    return [*cells, *([shared.name or ""] if named else []), "; ".join(documents)]


def _text(payload: dict[str, Any], field: str | None) -> str:
    """Return what describes a document best: the named field, or its text."""
    from csr_qdrant.explain_names import text_of

    return textwrap.shorten(text_of(payload, field or "text"), SHOWN_CHARACTERS, placeholder=" …")
