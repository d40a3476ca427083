"""`csr query`: search a collection by texts, vectors or codes."""

import json as json_format
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from csr_qdrant.cli import queries
from csr_qdrant.cli.hybrid import HybridSettings, OtherQueries
from csr_qdrant.cli.options import AsJson, Quiet, configured
from csr_qdrant.cli.output import Output
from csr_qdrant.cli.places import ServerSettings, place_of
from csr_qdrant.cli.query_show import short, show
from csr_qdrant.cli.rows import about
from csr_qdrant.codes import SparseCodes
from csr_qdrant.collection import Collection
from csr_qdrant.encoder import Encoder, check_k
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.queries import Fuse
from csr_qdrant.stores.base import Group, Hit

Found = Sequence[Sequence[Hit | Group]]

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
    group_by: str | None = field(
        default=None,
        metadata=about(
            "Group the hits by this field of the payload, on a server; --limit counts groups.",
            "FIELD",
        ),
    )
    group_size: int = field(default=3, metadata=about("Hits a group, at most."))
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
        if self.group_size < 1:
            raise ConfigError(f"group-size must be at least 1, got {self.group_size}")
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
    hybrid: HybridSettings,
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
    others = OtherQueries(hybrid)
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
            titled = len(given) != 1 or given == ["-"]
            _answer_all(out, collection, batches, settings, others, titled=titled)


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
    others: OtherQueries,
    *,
    titled: bool,
) -> None:
    asked = 0
    silent: list[Any] = []
    for names, contents in batches:
        fuse = others.of(slice(asked, asked + len(names)))
        found = _answers(collection, contents, partial(_search, collection, settings, fuse), asked)
        asked += len(names)
        for name, hits in zip(names, found, strict=True):
            if hits is None:
                silent.append(name)
            show(out, name, hits or [], titled=titled, grouped=settings.group_by is not None)
    if not asked:
        raise CsrError("there is no query on stdin: give at least one line")
    if silent:
        _report_silent(out, silent, asked)


def _report_silent(out: Output, silent: list[Any], asked: int) -> None:
    what = f"query {short(str(silent[0]))!r} activates no latent"
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
    collection: Collection, contents: queries.Contents, search: Callable[[Any], Found], first: int
) -> Sequence[Sequence[Hit | Group] | None]:
    """Return what is found for each query, None where no latent is active."""
    if isinstance(contents, SparseCodes):
        active = contents.lengths > 0
        return _spread(active, search(contents))
    if not isinstance(contents, np.ndarray):
        contents = collection.embedder.embed_queries(contents)
    dense = np.asarray(contents, np.float32)
    finite = np.isfinite(dense).all(axis=1)
    if not finite.all():
        bad = first + int(np.flatnonzero(~finite)[0])
        raise CsrError(f"query {bad} holds NaN or infinity: mend or remove it")
    active = np.array(dense.any(axis=1))  # all zeros: a text without a known token, say
    hits = search(dense)
    unfound = [row for row, found in enumerate(hits) if not found and active[row]]
    if unfound:
        codes = collection.encode(dense[unfound], collection.identity.k, name="the queries")
        active[unfound] = codes.lengths > 0
    return _spread(active, hits)


def _spread(active: Any, found: Found) -> Sequence[Sequence[Hit | Group] | None]:
    return [each if alive else None for alive, each in zip(active, found, strict=True)]


def _search(
    collection: Collection, settings: QuerySettings, fuse: Fuse | None, contents: Any
) -> Found:
    options: dict[str, Any] = {
        "limit": settings.limit,
        "k": settings.k,
        "filter": settings.parsed_filter(),
        "rescore": settings.rescore,
        "fuse": fuse,
        "payload": settings.payload,
    }
    if settings.group_by is None:
        return collection.search_batch(contents, **options)
    size = settings.group_size
    return collection.search_groups(contents, settings.group_by, group_size=size, **options)
