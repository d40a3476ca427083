"""Bulk indexing: a source of any size into a collection, resumable at any moment.

Rows are written in blocks; every few seconds the store is flushed and the number of finished rows
is written beside the points. A killed run, started again, goes on from there. The rows of the last
unrecorded blocks are written once more, onto the same ids, so the end is the same.
"""

import hashlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from csr_qdrant.collection import Collection
from csr_qdrant.errors import ConfigError, CsrError, RowError
from csr_qdrant.points import Rows, make_points
from csr_qdrant.sources.base import BLOCK_ROWS, Block, Source
from csr_qdrant.stores.base import PointBatch
from csr_qdrant.stores.checks import refuse_attached
from csr_qdrant.telemetry import span

PROGRESS_KEY = "csr_qdrant_index_"
FLUSH_ROWS = 16_384
FLUSH_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """Settings of `index_source`."""

    skip_zero: bool = field(
        default=False, metadata={"help": "Store all-zero vectors without a code."}
    )
    resume: bool = field(
        default=True, metadata={"help": "Go on where an interrupted run of the source stopped."}
    )
    optimise: bool = field(
        default=True, metadata={"help": "Build the index at the end (embedded engine)."}
    )
    device: str | None = field(
        default=None, metadata={"help": "numpy, cpu, cuda or mps; default: the best there is."}
    )


class Indexed(NamedTuple):
    """What a run did."""

    rows: int  # rows of the source, all of them in the collection now
    skipped: int  # of them, finished by an earlier run
    without_code: int  # of them, stored without a code
    seconds: float  # reading, embedding, encoding and writing
    optimise_seconds: float


def index_source(
    source: Source,
    collection: Collection,
    config: IndexConfig | None = None,
    on_rows: Callable[[int], None] = lambda done: None,
) -> Indexed:
    """Write all rows of `source` into `collection`; rows with a known id are replaced.

    Args:
        source: rows of vectors, texts or codes.
        collection: open; its encoder makes the codes, its embedder the vectors of texts.
        config: settings.
        on_rows: called with the number of finished rows.

    A finished source is skipped as well, until its files change; a changed one starts over, onto
    the same ids. Whatever stops a run, the rows that it has written are recorded.

    Raises:
        RowError: a bad row. The rows before it are written and recorded.
        CsrError: the source, the embedder or the engine failed.
    """
    with span("index", rows=len(source), kind=source.kind):
        return _indexed(source, collection, config or IndexConfig(), on_rows)


def _indexed(
    source: Source, collection: Collection, config: IndexConfig, on_rows: Callable[[int], None]
) -> Indexed:
    check_source(source, collection)
    journal = _Journal.open(source, collection, config.resume)
    skipped = journal.rows
    started = time.perf_counter()
    on_rows(skipped)
    try:
        with closing(_prepared(source, collection, config, skipped)) as batches:
            for points in batches:
                with span("upsert", points=len(points)):
                    collection.store.upsert(points)
                journal.add(points)
                on_rows(journal.rows)
    except BaseException:
        with suppress(CsrError):  # what went wrong first is what the user must hear of
            journal.write()
        raise
    journal.write()
    seconds = time.perf_counter() - started
    if config.optimise:
        with span("optimise"):
            collection.optimise()
    optimise_seconds = time.perf_counter() - started - seconds
    return Indexed(journal.rows, skipped, journal.without_code, seconds, optimise_seconds)


def finished_rows(source: Source, metadata: Mapping[str, Any]) -> int:
    """Return how many rows of `source` a collection with this `metadata` holds for good."""
    stored: Any = metadata.get(_progress_key(source))
    return min(int(stored["rows"]), len(source)) if isinstance(stored, dict) else 0


def _progress_key(source: Source) -> str:
    return PROGRESS_KEY + hashlib.sha256(source.fingerprint.encode()).hexdigest()[:16]


def check_source(source: Source, collection: Collection) -> None:
    """Raise ConfigError or CsrError if the rows of `source` cannot go into `collection`."""
    refuse_attached(collection.store.schema)
    if source.kind == "codes" and collection.keeps_dense:
        raise ConfigError(
            f"{collection.store.location} keeps dense vectors for rescoring, but {source.name} "
            f"holds codes alone: index the vectors"
        )
    first = next(source.blocks(1), None)
    if first is None:
        raise CsrError(f"{source.name} holds no rows: there is nothing to index")
    encoder = collection.encoder
    if first.vectors is not None and first.vectors.shape[1] != encoder.d:
        raise CsrError(
            f"{source.name} holds vectors of {first.vectors.shape[1]} dimensions, but the encoder "
            f"takes {encoder.d}: use the embedding model that it was trained on"
        )
    if first.codes is not None and first.codes.h != encoder.h:
        raise CsrError(
            f"{source.name} holds codes over {first.codes.h} latents, but the collection's "
            f"encoder has {encoder.h}: encode them with that encoder"
        )


def _prepared(
    source: Source, collection: Collection, config: IndexConfig, start: int
) -> Generator[PointBatch]:
    """Yield points from row `start` on; the next block is made while one is being written."""
    blocks = source.blocks(BLOCK_ROWS[source.kind], start)
    run = copy_context().run  # spans of the thread belong to the run's
    with ThreadPoolExecutor(1, thread_name_prefix="index") as pool:
        coming = pool.submit(run, _next_points, blocks, source.name, collection, config)
        while (prepared := coming.result()) is not None:
            points, error = prepared
            if error is None:
                coming = pool.submit(run, _next_points, blocks, source.name, collection, config)
            yield points
            if error is not None:
                raise error


def _next_points(
    blocks: Iterator[Block], name: str, collection: Collection, config: IndexConfig
) -> tuple[PointBatch, RowError | None] | None:
    """Return the points of the next block, or of its rows before a bad one and what is wrong."""
    block = next(blocks, None)
    if block is None:
        return None
    vectors = block.vectors
    if block.texts is not None:
        vectors = collection.embedder.embed_documents(block.texts)
    rows = Rows(block.ids, vectors, block.codes, block.payloads, block.start, name)
    bad: RowError | None = None
    while True:
        try:
            return _points(rows, collection, config), bad
        except RowError as error:
            bad, rows = error, rows.before(error.row)


def _points(rows: Rows, collection: Collection, config: IndexConfig) -> PointBatch:
    with span("encode", rows=len(rows.ids)):
        return make_points(
            rows,
            collection.encoder,
            collection.identity.k,
            collection.keeps_dense,
            skip_zero=config.skip_zero,
            device=config.device,
        )


@dataclass
class _Journal:
    """How many rows of one source are in the collection for good, kept beside its points."""

    collection: Collection
    key: str
    source: str
    rows: int = 0
    without_code: int = 0
    written_rows: int = 0
    written_at: float = field(default_factory=time.monotonic)

    @classmethod
    def open(cls, source: Source, collection: Collection, resume: bool) -> "_Journal":
        """Return the journal of `source`; that of the file before it changed is removed."""
        journal = cls(collection, _progress_key(source), source.name)
        metadata = collection.store.metadata()
        for key, stored in metadata.items():
            is_ours = key.startswith(PROGRESS_KEY) and stored.get("source") == source.name
            if is_ours and not (resume and key == journal.key):
                collection.store.write_metadata(key, None)
        if resume and (rows := finished_rows(source, metadata)):
            journal.rows = journal.written_rows = rows
            journal.without_code = int(metadata[journal.key]["without_code"])
        return journal

    def add(self, points: PointBatch) -> None:
        """Count rows that the store has taken, and record them now and then."""
        self.rows += len(points)
        self.without_code += int((points.codes.lengths == 0).sum())
        late = time.monotonic() - self.written_at >= FLUSH_SECONDS
        if late or self.rows - self.written_rows >= FLUSH_ROWS:
            self.write()

    def write(self) -> None:
        """Flush the store, then record: a row counts only once it is durable."""
        self.collection.flush()
        value = {"source": self.source, "rows": self.rows, "without_code": self.without_code}
        self.collection.store.write_metadata(self.key, value)
        self.written_rows, self.written_at = self.rows, time.monotonic()
