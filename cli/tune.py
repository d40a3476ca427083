"""`csr tune`: how many latents a query needs, and how many candidates to rescore."""

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csr_qdrant.cli.opening import open_vectors
from csr_qdrant.cli.options import AsJson, Quiet, configured
from csr_qdrant.cli.output import Output, table
from csr_qdrant.cli.places import Place, ServerPlace, ServerSettings, place_of
from csr_qdrant.cli.rows import about
from csr_qdrant.collection import Collection
from csr_qdrant.encoder import Encoder, check_k
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.identity import Identity

if TYPE_CHECKING:
    from csr_qdrant.benchmarks.tune import Measured, Questions
    from csr_qdrant.benchmarks.tune_choice import Choice

Folder = Annotated[
    Path | None,
    typer.Argument(
        metavar="FOLDER", help="The collection's folder; left out with --url or --collection."
    ),
]


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """What to reach, and what to try."""

    recall: float | None = field(
        default=None,
        metadata=about(
            "Recall to reach, against exact dense search. [default without --p95-ms: 0.95]"
        ),
    )
    p95_ms: float | None = field(
        default=None, metadata=about("Milliseconds that 95 % of the queries may take.")
    )
    limit: int = field(default=10, metadata=about("Hits a query.") | {"short": "-n"})
    queries: int = field(
        default=200, metadata=about("Points of the collection to sample as queries.")
    )
    vectors: Path | None = field(
        default=None, metadata=about("File of vectors to ask instead of sampled points.", "FILE")
    )
    k: tuple[int, ...] = field(
        default=(),
        metadata=about("Active latents to try. [default: from an eighth to twice the documents']"),
    )
    candidates: tuple[int, ...] = field(
        default=(),
        metadata=about("Numbers of candidates to try; 0: none. [default: 0 to 50 times the limit]"),
    )
    seed: int = field(default=0, metadata=about("Of the sample and the order of the queries."))
    encoder: Path | None = field(
        default=None,
        metadata=about("Folder of the encoder. [default: the one in the collection's folder]"),
    )

    def __post_init__(self) -> None:
        """Check numbers and targets."""
        if self.limit < 1 or self.queries < 1:
            raise ConfigError(
                f"limit and queries must be at least 1, got {self.limit} and {self.queries}"
            )
        if self.recall is not None and self.p95_ms is not None:
            raise ConfigError("got both --recall and --p95-ms: give one target")


@configured
def tune(
    settings: TuneSettings,
    server: ServerSettings,
    folder: Folder = None,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Choose query k and candidates to rescore, for a recall or a latency.

    Points of the collection are sampled as queries and searched with many settings; what is right
    is what exact search by the dense vectors finds. A setting is chosen on one half of the queries
    and reported on the other. Nothing is written.
    """
    from csr_qdrant.benchmarks.tune import grid, measured
    from csr_qdrant.benchmarks.tune_choice import Target, chosen

    out = Output(as_json=json, quiet=quiet)
    recall = 0.95 if settings.recall is None and settings.p95_ms is None else settings.recall
    target = Target(recall=recall, p95_ms=settings.p95_ms)
    with closing(place_of(folder, server)) as place:
        encoder = Encoder.load(settings.encoder) if settings.encoder is not None else None
        asked = _questions(place, settings, encoder, out)
        with _opened(place, encoder) as collection:
            tried = grid(collection, settings.limit, settings.k, settings.candidates)
            rounds = len(asked.vectors) + 5
            with out.progress(f"{len(tried)} settings", rounds, "queries") as progress:
                found = measured(
                    collection,
                    asked,
                    tried,
                    settings.limit,
                    seed=settings.seed,
                    progress=progress.advance,
                )
    choice = chosen(found, target)
    _report(out, found, choice, asked, {"recall": recall, "p95_ms": settings.p95_ms}, settings)


def _questions(
    place: Place, settings: TuneSettings, encoder: Encoder | None, out: Output
) -> "Questions":
    """Sample queries and find their exact neighbours, before the collection is opened."""
    from csr_qdrant.benchmarks.tune import questions

    if (existing := place.existing()) is None:
        raise CsrError(f"there is no collection at {place.name}: make one with `csr index`")
    schema = existing.schema
    if schema.dense_dim is None:
        raise CsrError(
            f"{place.name} keeps no dense vectors, so there is nothing to hold codes against: "
            "index with --keep-dense, or measure with `csr bench`"
        )
    _check_encoder(place, encoder, existing.identity)
    for k in settings.k:
        check_k(k, existing.identity.h)
    given = _vectors(settings.vectors) if settings.vectors else None
    if given is not None and given.shape[1] != schema.dense_dim:
        raise ConfigError(
            f"{settings.vectors} has vectors of {given.shape[1]} dimensions, {place.name} of "
            f"{schema.dense_dim}: make them with the same embedder"
        )
    with open_vectors(place, schema.dense_name) as points:
        out.note("looking for the exact neighbours of the queries")
        return questions(points, settings.queries, settings.limit, given=given, seed=settings.seed)


def _check_encoder(place: Place, encoder: Encoder | None, identity: Identity) -> None:
    """Refuse what cannot work before a server looks at every point, which takes its time."""
    if encoder is not None:
        identity.check(encoder, place.name)
    elif isinstance(place, ServerPlace):
        raise ConfigError(f"{place.name} keeps no encoder: pass --encoder, its folder")


def _opened(place: Place, encoder: Encoder | None) -> Collection:
    """Open the collection, on a server so that a bad moment does not end a long run."""
    if not isinstance(place, ServerPlace) or encoder is None:
        return place.open(encoder)
    from csr_qdrant.benchmarks.tune_server import PatientStore

    store = PatientStore.open(place.client, place.collection)
    return Collection(store, encoder, Identity.from_metadata(store.metadata(), store.location))


def _vectors(path: Path) -> Any:
    import numpy as np

    from csr_qdrant.sources import open_source

    blocks = [block.vectors for block in open_source(path).blocks(4096)]
    if not blocks or any(block is None for block in blocks):
        raise CsrError(f"{path} holds no vectors: give a file of dense vectors")
    vectors = np.concatenate([np.asarray(block, np.float32) for block in blocks])
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        bad = int(np.argmin(finite))
        raise CsrError(f"row {bad} of {path} holds NaN or an infinity: mend or remove it")
    return vectors


# --- showing ----------------------------------------------------------------------------------


def _report(
    out: Output,
    found: "list[Measured]",
    choice: "Choice",
    asked: "Questions",
    target: dict[str, Any],
    settings: TuneSettings,
) -> None:
    from csr_qdrant.benchmarks.tune_choice import front, to_json

    k, candidates = choice.measured.setting
    code = f"collection.search(query, limit={settings.limit}, k={k}, rescore={candidates})"
    result = {
        "target": target,
        "limit": settings.limit,
        "queries": len(asked.vectors),
        "points": asked.points,
        "chosen": to_json(choice.measured),
        "reached": choice.reached,
        "held": choice.held,
        "code": code,
        "settings": [to_json(each) for each in found],
    }
    best = list(front(found))
    shown = best if choice.measured in best else [*best, choice.measured]
    rows = [_row(each, each is choice.measured) for each in shown]
    title = "settings that none beats in both recall and latency; figures of the other half"
    columns = ("", "k", "rescore", "recall", "95 % interval", "p50 ms", "p95 ms", "postings")
    out.result(result, table(columns, rows, title), f"\n{code}")
    if not choice.reached:
        out.warn("no setting reaches the target; this one comes nearest")
    elif not choice.held:
        out.warn("the target was reached on the half it was chosen by, not on the other: ask more")


def _row(measured: "Measured", is_chosen: bool) -> tuple[Any, ...]:
    figures = measured.half(1)
    recall, latency = figures.recall, figures.latency
    return (
        "→" if is_chosen else "",
        *measured.setting,
        f"{recall.mean:.3f}",
        f"{recall.low:.3f}–{recall.high:.3f}",
        f"{latency.p50_ms:.2f}",
        f"{latency.p95_ms:.2f}",
        f"{measured.postings:.0f}",
    )
