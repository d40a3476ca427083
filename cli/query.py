"""`csr query`: search a collection by texts, vectors or codes."""

import json as json_format
import textwrap
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from csr_qdrant.cli import queries
from csr_qdrant.cli.options import AsJson, Quiet, configured
from csr_qdrant.cli.output import Output, table
from csr_qdrant.cli.places import ServerSettings, place_of
from csr_qdrant.cli.rows import about
from csr_qdrant.codes import SparseCodes
from csr_qdrant.collection import Collection
from csr_qdrant.encoder import Encoder, check_k
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.stores.base import Hit

SHOWN_CHARACTERS = 100  # of a hit's text

Folder = Annotated[
    str | None,
    typer.Argument(
        metavar="FOLDER", help="The collection's folder; left out with --url or --collection."
    ),
]
Texts = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TEXT",
        help="Queries; - reads them from stdin, a text or a JSON array of numbers on each line.",
        show_default=False,
    ),
]
VectorFile = Annotated[
    Path | None,
    typer.Option("--vectors", metavar="FILE", help="Queries from a file of vectors or codes."),
]


@dataclass(frozen=True, kw_only=True)
class QuerySettings:
    """How to search."""

    limit: int = field(default=10, metadata=about("Hits a query, at most.") | {"short": "-n"})
    k: int | None = field(
        default=None,
        metadata=about("Active latents of the queries, fewer for speed. [default: the documents']"),
    )
    filter: str | None = field(
        default=None, metadata=about("Qdrant's filter on the payload, as JSON.", "JSON")
    )
    rescore: int = field(
        default=0, metadata=about("Score so many candidates anew by their dense vectors.")
    )
    payload: bool = field(default=True, metadata=about("Return the payload of the hits."))
    encoder: Path | None = field(
        default=None,
        metadata=about("Folder of the encoder. [default: the one in the collection's folder]"),
    )
    embedder: str | None = field(
        default=None,
        metadata=about("What makes vectors of texts. [default: the collection's]", "URI"),
    )

    def __post_init__(self) -> None:
        """Check the numbers and the filter."""
        if self.limit < 1:
            raise ConfigError(f"limit must be at least 1, got {self.limit}")
        if self.rescore < 0:
            raise ConfigError(f"rescore must be at least 0, got {self.rescore}")
        self.parsed_filter()

    def parsed_filter(self) -> dict[str, Any] | None:
        """Return the filter; raises ConfigError if it is no JSON object."""
        if self.filter is None:
            return None
        try:
            parsed = json_format.loads(self.filter)
        except ValueError as error:
            raise ConfigError(f"--filter is not JSON ({error}): got {self.filter!r}") from None
        if not isinstance(parsed, dict):
            raise ConfigError(f"--filter must be a JSON object, got {self.filter!r}")
        return parsed


@configured
def query(
    settings: QuerySettings,
    server: ServerSettings,
    folder: Folder = None,
    texts: Texts = None,
    vectors: VectorFile = None,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Search a collection by texts, vectors or codes.

    With --json, each query gives one line with its hits, as soon as they are found.
    """
    out = Output(as_json=json, quiet=quiet)
    given = list(texts or ())
    if server.given and folder is not None:  # then the first word is a query too
        given, folder = [folder, *given], None
    with closing(place_of(Path(folder) if folder else None, server)) as place:
        batches = _batches(given, vectors)
        if (found := place.existing()) is None:
            raise CsrError(f"there is no collection at {place.name}: make one with `csr index`")
        if settings.k is not None:
            check_k(settings.k, found.identity.h)
        encoder = Encoder.load(settings.encoder) if settings.encoder else None
        embedder = None
        if settings.embedder is not None:
            from csr_qdrant.embedders import load_embedder

            embedder = load_embedder(settings.embedder)
        with place.open(encoder, embedder) as collection:
            _answer_all(
                out, collection, batches, settings, titled=len(given) != 1 or given == ["-"]
            )


def _batches(texts: list[str], vectors: Path | None) -> Iterator[queries.Batch]:
    if vectors is not None and texts:
        raise ConfigError(f"got texts ({texts[0]!r}, …) and --vectors: give one kind of queries")
    if vectors is not None:
        return queries.from_file(vectors)
    if texts == ["-"]:
        return queries.from_stdin()
    if not texts:
        raise ConfigError("there is no query: give texts, --vectors FILE, or - for stdin")
    return queries.from_texts(texts)


# --- searching --------------------------------------------------------------------------------


def _answer_all(
    out: Output,
    collection: Collection,
    batches: Iterator[queries.Batch],
    settings: QuerySettings,
    *,
    titled: bool,
) -> None:
    asked = 0
    silent: list[Any] = []
    for names, contents in batches:
        found = _answers(collection, contents, settings, asked)
        asked += len(names)
        for name, hits in zip(names, found, strict=True):
            if hits is None:
                silent.append(name)
            _show(out, name, hits or [], titled=titled)
    if not asked:
        raise CsrError("there is no query on stdin: give at least one line")
    if silent:
        _report_silent(out, silent, asked)


def _report_silent(out: Output, silent: list[Any], asked: int) -> None:
    what = f"query {_short(str(silent[0]))!r} activates no latent"
    if asked > 1:
        what += f" ({len(silent)} of {asked} queries)"
    sentence = (
        f"{what}, so nothing can be found: ask in other words, or with vectors of the embedding "
        f"model that the encoder was trained on"
    )
    if len(silent) == asked:
        raise CsrError(sentence)
    out.warn(sentence)


def _answers(
    collection: Collection, contents: queries.Contents, settings: QuerySettings, first: int
) -> list[list[Hit] | None]:
    """Return the hits of each query, None where no latent is active."""
    if isinstance(contents, SparseCodes):
        active = contents.lengths > 0
        return _spread(active, _search(collection, contents, settings))
    if not isinstance(contents, np.ndarray):
        contents = collection.embedder.embed_queries(contents)
    dense = np.asarray(contents, np.float32)
    finite = np.isfinite(dense).all(axis=1)
    if not finite.all():
        bad = first + int(np.flatnonzero(~finite)[0])
        raise CsrError(f"query {bad} holds NaN or infinity: mend or remove it")
    active = np.array(dense.any(axis=1))  # all zeros: a text without a known token, say
    hits = _search(collection, dense, settings)
    unfound = [row for row, found in enumerate(hits) if not found and active[row]]
    if unfound:
        active[unfound] = collection.encoder.encode(dense[unfound]).lengths > 0
    return _spread(active, hits)


def _spread(active: Any, hits: list[list[Hit]]) -> list[list[Hit] | None]:
    return [found if alive else None for alive, found in zip(active, hits, strict=True)]


def _search(collection: Collection, contents: Any, settings: QuerySettings) -> list[list[Hit]]:
    return collection.search_batch(
        contents,
        limit=settings.limit,
        k=settings.k,
        filter=settings.parsed_filter(),
        rescore=settings.rescore,
        payload=settings.payload,
    )


# --- showing ----------------------------------------------------------------------------------


def _show(out: Output, name: Any, hits: list[Hit], *, titled: bool) -> None:
    result = {
        "query": name,
        "hits": [{"id": id, "score": score, "payload": payload} for id, score, payload in hits],
    }
    heading = [f"\nquery {_short(str(name))!r}"] if titled else []
    if not hits:
        out.row(result, *heading, "no hits")
        return
    rows = [
        (rank, f"{score:.4f}", id, _text(payload))
        for rank, (id, score, payload) in enumerate(hits, 1)
    ]
    out.row(result, *heading, table(("rank", "score", "id", "text"), rows))


def _text(payload: dict[str, Any]) -> str:
    """Return what describes a hit best: its text, or its first field that is one."""
    texts = [value for value in payload.values() if isinstance(value, str)]
    text = payload.get("text")
    return _short(text if isinstance(text, str) else texts[0] if texts else "")


def _short(text: str) -> str:
    return textwrap.shorten(text, SHOWN_CHARACTERS, placeholder=" …")
