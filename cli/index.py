"""`csr index`: rows of any source into a collection."""

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from csr_qdrant.cli.options import AsJson, DryRun, Quiet, configured
from csr_qdrant.cli.output import Output
from csr_qdrant.cli.places import Existing, Place, Plan, ServerSettings, place_of
from csr_qdrant.cli.rows import SourceSettings, about, embedder_for
from csr_qdrant.collection import Collection
from csr_qdrant.encoder import Encoder, check_k
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.indexing import IndexConfig, Indexed, finished_rows, index_source
from csr_qdrant.points import Rows, make_points
from csr_qdrant.stores.checks import refuse_attached, refuse_deleting

if TYPE_CHECKING:
    from csr_qdrant.embedders import Embedder
    from csr_qdrant.sources import Source

FIRST_ROWS = 64  # tried before anything is written

SourcePath = Annotated[
    Path,
    typer.Argument(
        metavar="SOURCE",
        help="Vectors, texts or codes: .npy, .npz, .parquet, .jsonl[.gz], .csv[.gz], "
        ".safetensors or a BEIR folder.",
    ),
]
Target = Annotated[
    Path | None,
    typer.Argument(
        metavar="FOLDER",
        help="Folder of the collection, made if it is not there; left out with --url.",
    ),
]
Recreate = Annotated[
    bool,
    typer.Option("--recreate", help="Delete the existing collection first, after asking."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before deleting.")]


@dataclass(frozen=True, kw_only=True)
class CollectionSettings:
    """What a collection is made with; one that exists already must agree."""

    encoder: Path | None = field(
        default=None,
        metadata=about("Folder of the encoder. [default: the one in the collection's folder]"),
    )
    k: int | None = field(
        default=None, metadata=about("Active latents of the documents. [default: the encoder's]")
    )
    datatype: Literal["f32", "f16", "u8"] | None = field(
        default=None, metadata=about("Values in the sparse index. [default: f32]")
    )
    keep_dense: bool | None = field(
        default=None, metadata=about("Keep the dense vectors too, on disk, for --rescore.")
    )
    embedder: str | None = field(
        default=None,
        metadata=about("What makes vectors of texts. [default: the encoder's]", "URI"),
    )
    shards: int | None = field(
        default=None, metadata=about("Shards of a new collection on a server.")
    )
    replicas: int | None = field(
        default=None, metadata=about("Replicas of each shard, on a server.")
    )

    def __post_init__(self) -> None:
        """Check the numbers that only a server would refuse."""
        for name in ("shards", "replicas"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")


@configured
def index(
    source: SourcePath,
    settings: CollectionSettings,
    rows: SourceSettings,
    server: ServerSettings,
    config: IndexConfig,
    folder: Target = None,
    recreate: Recreate = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write codes into a Qdrant collection, in a folder or on a server.

    Makes the collection if there is none; rows with a known id are replaced. An interrupted run
    goes on where it stopped when the same command is given again. Nothing is ever deleted without
    --recreate.
    """
    out = Output(as_json=json, quiet=quiet)
    with closing(place_of(folder, server)) as place:
        read = rows.opened(source)
        found = place.existing()
        if found is not None:
            refuse_deleting(found.schema, place.name) if recreate else refuse_attached(found.schema)
        plan = _plan(place, found, settings, recreate)
        embedder = embedder_for(read, _embedder_uri(out, plan, found, settings), config.device)
        _try_first_rows(read, plan, embedder, config)
        if dry_run:
            _show_plan(out, read, place, found, plan, recreate, config)
            return
        if found is not None and recreate:
            _delete(out, place, yes)
            found = None
        made = found is None
        opened = place.create(plan, embedder) if made else place.open(plan.encoder, embedder)
        with opened as collection, _unmade_if_empty(place, collection, made):
            place.keep_encoder(plan.encoder)
            done = _write(out, read, collection, config)
            _show(out, collection, done, created=made)


# --- deciding -------------------------------------------------------------------------------


def _plan(
    place: Place, found: Existing | None, settings: CollectionSettings, recreate: bool
) -> Plan:
    """Return how the collection is or will be; ConfigError if settings contradict what is there."""
    encoder = Encoder.load(settings.encoder) if settings.encoder is not None else None
    if encoder is None and found is not None:
        encoder = place.own_encoder()
    if encoder is None:
        raise ConfigError("--encoder is missing: pass the folder that `csr train` wrote")
    if found is None or recreate:
        if settings.embedder is not None:  # the collection remembers it
            encoder = replace(encoder, info=encoder.info | {"embedder": settings.embedder})
        return Plan(
            encoder=encoder,
            k=check_k(encoder.k if settings.k is None else settings.k, encoder.h),
            datatype=settings.datatype or "f32",
            keep_dense=bool(settings.keep_dense),
            shards=settings.shards,
            replicas=settings.replicas,
        )
    found.identity.check(encoder, place.name)
    plan = Plan(
        encoder=encoder,
        k=found.identity.k,
        datatype=found.schema.datatype,
        keep_dense=found.schema.dense_dim is not None,
    )
    for name in ("k", "datatype", "keep_dense"):
        wanted, stored = getattr(settings, name), getattr(plan, name)
        if wanted is not None and wanted != stored:
            raise ConfigError(
                f"{place.name} was made with {name.replace('_', '-')} {_word(stored)}, got "
                f"{_word(wanted)}: leave the option out, or index into a new collection"
            )
    return plan


def _word(value: Any) -> str:
    return {True: "on", False: "off"}.get(value, str(value)) if value is not None else "none"


def _embedder_uri(
    out: Output, plan: Plan, found: Existing | None, settings: CollectionSettings
) -> str | None:
    stored = found.identity.embedder if found is not None else None
    if settings.embedder and stored and settings.embedder != stored:
        out.warn(f"the collection's texts were embedded by {stored}, not {settings.embedder}")
    return settings.embedder or stored or plan.encoder.embedder


def _try_first_rows(
    source: "Source", plan: Plan, embedder: "Embedder | None", config: IndexConfig
) -> None:
    """Raise what indexing would raise for the first rows, before a collection is made for them."""
    block = next(source.blocks(FIRST_ROWS), None)
    if block is None:
        raise CsrError(f"{source.name} holds no rows: there is nothing to index")
    if block.codes is not None and block.codes.h != plan.encoder.h:
        raise CsrError(
            f"{source.name} holds codes over {block.codes.h} latents, but the encoder has "
            f"{plan.encoder.h}: encode them with that encoder"
        )
    vectors = block.vectors
    if block.texts is not None and embedder is not None:
        vectors = embedder.embed_documents(block.texts)
    rows = Rows(block.ids, vectors, block.codes, block.payloads, block.start, source.name)
    make_points(
        rows,
        plan.encoder,
        plan.k,
        plan.keep_dense,
        skip_zero=config.skip_zero,
        device=config.device,
    )


def _delete(out: Output, place: Place, yes: bool) -> None:
    if not yes and not out.confirm(f"Delete {place.name} and all its points?"):
        raise ConfigError(
            f"{place.name} exists and was left as it is: confirm, or pass --yes with --recreate"
        )
    place.delete()
    out.note(f"deleted {place.name}")


# --- doing and showing ------------------------------------------------------------------------


@contextmanager
def _unmade_if_empty(place: Place, collection: Collection, made: bool) -> Iterator[None]:
    """Take back a collection that this run made, if it fails before the first row is in it."""
    try:
        yield
    except CsrError:
        with suppress(CsrError):
            if made and not len(collection):
                collection.close()
                place.delete()
        raise


def _write(out: Output, source: "Source", collection: Collection, config: IndexConfig) -> Indexed:
    try:
        with out.progress("indexing", len(source)) as progress:
            return index_source(source, collection, config, progress.update)
    except KeyboardInterrupt:
        out.note("stopped; give the same command again to go on")
        raise


def _show_plan(
    out: Output,
    source: "Source",
    place: Place,
    found: Existing | None,
    plan: Plan,
    recreate: bool,
    config: IndexConfig,
) -> None:
    kept = found is not None and not recreate
    finished = 0
    if found is not None and kept and config.resume:
        finished = finished_rows(source, found.metadata)
    result = {
        "dry_run": True,
        "source": source.name,
        "kind": source.kind,
        "rows": len(source),
        "finished_earlier": finished,
        "collection": place.name,
        "creates": not kept,
        "deletes": found is not None and recreate,
        "k": plan.k,
        "datatype": plan.datatype,
        "keep_dense": plan.keep_dense,
        "encoder": plan.encoder.fingerprint,
        "embedder": plan.encoder.embedder,
    }
    verb = "write into" if kept else "delete and make anew" if result["deletes"] else "make"
    out.result(
        result,
        f"would {verb} {place.name} (k={plan.k}, {plan.datatype}, dense vectors "
        f"{'kept' if plan.keep_dense else 'not kept'}) and index {len(source) - finished:,} of "
        f"{len(source):,} rows ({source.kind} of {source.name}) with encoder "
        f"{plan.encoder.fingerprint}",
    )


def _show(out: Output, collection: Collection, done: Indexed, *, created: bool) -> None:
    written = done.rows - done.skipped
    rate = written / done.seconds if done.seconds > 0 else 0.0
    result = {
        "collection": collection.store.location,
        "created": created,
        "rows": done.rows,
        "finished_earlier": done.skipped,
        "without_code": done.without_code,
        "seconds": round(done.seconds, 3),
        "rows_per_second": round(rate, 1),
        "optimise_seconds": round(done.optimise_seconds, 3),
        "points": len(collection),
    }
    earlier = f", {done.skipped:,} of them finished earlier" if done.skipped else ""
    empty = f"; {done.without_code:,} rows have no active latent" if done.without_code else ""
    out.result(
        result,
        f"indexed {done.rows:,} rows into {collection.store.location}{earlier}: "
        f"{done.seconds:.1f} s ({rate:,.0f} rows/s), index built in "
        f"{done.optimise_seconds:.1f} s; it holds {result['points']:,} points{empty}",
    )
