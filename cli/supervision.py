"""What `csr train` may know beside the vectors: labels of rows, and pairs of query and document."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from csr_qdrant.cli.rows import SourceFields, about
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.sources import Source, beir_splits, open_source, read_pairs
from csr_qdrant.sources.base import Block
from csr_qdrant.sources.npy import map_npy

_BLOCK_ROWS = 4096


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """Where labels or pairs come from."""

    labels: str | None = field(
        default=None,
        metadata=about("Labels of the rows: a .npy file, or a field of the source.", "FILE|FIELD"),
    )
    pairs: str | None = field(
        default=None,
        metadata=about(
            "Pairs of query and document: a TSV of query-id, doc-id, score, or a split of a BEIR "
            "folder (train).",
            "FILE|SPLIT",
        ),
    )
    queries: Path | None = field(
        default=None,
        metadata=about(
            "The queries that the pairs name. [default: those of the BEIR folder]", "FILE"
        ),
    )
    aligned: Path | None = field(
        default=None,
        metadata=about(
            "Second modality: vectors or texts whose rows belong to the source's, row by row.",
            "FILE",
        ),
    )
    query_ids: Path | None = field(
        default=None, metadata=about("File of ids beside --queries: as --ids.", "FILE")
    )

    def __post_init__(self) -> None:
        """Check that the settings fit together."""
        kinds = ("labels", "pairs", "aligned")
        given = [f"--{kind}" for kind in kinds if getattr(self, kind) is not None]
        if len(given) > 1:
            raise ConfigError(f"a run takes one kind of supervision: choose {' or '.join(given)}")
        if self.queries is not None and self.pairs is None:
            raise ConfigError("--queries needs --pairs, which say what answers them")
        if self.query_ids is not None and self.queries is None:
            raise ConfigError("--query-ids needs --queries, the file whose rows it names")

    @property
    def pairs_rows(self) -> bool:
        """Whether there are pairs, of whatever form."""
        return self.pairs is not None or self.aligned is not None


# --- labels -----------------------------------------------------------------------------------


def read_labels(
    choice: str, path: Path, fields: SourceFields, rows: int
) -> npt.NDArray[np.integer[Any] | np.str_]:
    """Return one label a row, from a `.npy` file or from a field of the source at `path`."""
    if choice.endswith(".npy"):
        labels = map_npy(Path(choice))
        if labels.shape != (rows,):
            raise CsrError(
                f"{choice} must hold one label a row: {path} has {rows} rows, got an array of "
                f"shape {labels.shape}"
            )
        return labels
    if path.suffix in (".npy", ".npz", ".safetensors"):
        raise ConfigError(f"{path} has no fields, so no {choice!r}: give labels as a .npy file")
    return _numbered(fields.opened(path, payload_fields=(choice,)), choice)


def _numbered(source: Source, name: str) -> npt.NDArray[np.int64]:
    """Return the labels of a field as numbers, in the order in which they appear."""
    numbers: dict[Any, int] = {}
    labels = np.empty(len(source), np.int64)
    for block in source.blocks(_BLOCK_ROWS):
        payloads: Any = block.payloads or [{}] * len(block)
        for row, payload in enumerate(payloads, block.start):
            label = payload.get(name)
            if not isinstance(label, str | int | float):
                raise CsrError(
                    f"row {row} of {source.name} has no label in {name!r}, got {label!r}: every "
                    f"row needs a text or a number"
                )
            labels[row] = numbers.setdefault(label, len(numbers))
    return labels


# --- pairs ------------------------------------------------------------------------------------


class JudgedRows(NamedTuple):
    """Pairs as row numbers, and the queries that they name."""

    queries: Source  # only the queries that some pair names
    query_rows: npt.NDArray[np.int64]  # (p,)
    document_rows: npt.NDArray[np.int64]  # (p,)
    scores: npt.NDArray[np.float32]  # (p,)


def read_judged(settings: Supervision, path: Path, documents: Source) -> JudgedRows:
    """Read the pairs and find their rows.

    Pairs with a score of 0 or less are hard negatives of queries that have an answer too.
    Raises CsrError if no score is above 0, or they name ids that `documents` (at `path`) or the
    queries do not hold.
    """
    if settings.aligned is not None:
        return _row_by_row(open_source(settings.aligned), documents)
    assert settings.pairs is not None
    file = _pairs_file(settings.pairs, path)
    judged = read_pairs(file)
    answered = {judged.query_ids[row] for row in np.flatnonzero(judged.scores > 0)}
    if not answered:
        raise CsrError(f"{file} holds no pair with a score above 0: there is nothing to learn")
    kept = [row for row, name in enumerate(judged.query_ids) if name in answered]
    answers = [judged.doc_ids[row] for row in kept]
    queries = _open_queries(settings, path)
    asked = _rows_of(queries, answered, file, "queries")
    found = _rows_of(documents, set(answers), file, "documents")
    order = {row: number for number, row in enumerate(sorted(asked.values()))}
    return JudgedRows(
        ChosenRows(queries, np.array(sorted(order), np.int64)),
        np.array([order[asked[judged.query_ids[row]]] for row in kept], np.int64),
        np.array([found[name] for name in answers], np.int64),
        judged.scores[kept],
    )


def _row_by_row(second: Source, first: Source) -> JudgedRows:
    """Return pairs of equal row numbers."""
    if len(first) != len(second):
        raise CsrError(
            f"aligned sources need as many rows as each other: {first.name} has {len(first)} and "
            f"{second.name} {len(second)}"
        )
    rows = np.arange(len(first), dtype=np.int64)
    return JudgedRows(second, rows, rows, np.ones(len(rows), np.float32))


def _pairs_file(choice: str, path: Path) -> Path:
    splits = beir_splits(path) if path.is_dir() else {}
    if choice in splits:
        return splits[choice]
    file = Path(choice)
    if not file.exists() and path.is_dir():
        raise CsrError(
            f"{path} has no pairs {choice!r} (found: {', '.join(splits) or 'none'}), and there is "
            f"no such file: name one of these or a TSV"
        )
    return file


def _open_queries(settings: Supervision, path: Path) -> Source:
    if settings.queries is not None:
        return open_source(settings.queries, ids=settings.query_ids)
    if not path.is_dir():
        raise ConfigError(
            f"the pairs name queries, and {path} holds documents alone: pass --queries"
        )
    for name in ("queries.jsonl", "queries.jsonl.gz"):
        if (path / name).is_file():
            return open_source(path / name, text_field="text", payload_fields=())
    raise CsrError(f"{path} has no queries.jsonl: add it or pass --queries")


def _rows_of(source: Source, wanted: set[str], file: Path, what: str) -> dict[str, int]:
    """Return the row of each wanted id (as text); raises CsrError if some are missing."""
    rows: dict[str, int] = {}
    for block in source.blocks(_BLOCK_ROWS):
        for row, name in enumerate(map(str, block.ids), block.start):
            if name in wanted:
                rows[name] = row
    if missing := sorted(wanted - rows.keys()):
        raise CsrError(
            f"{file} names {what} that {source.name} does not hold ({len(missing):,} of "
            f"{len(wanted):,}, {missing[0]!r} for example): check that the ids of both are the same"
        )
    return rows


@dataclass(frozen=True)
class ChosenRows:
    """Some rows of a source, as a source."""

    source: Source
    rows: npt.NDArray[np.int64]  # rising

    @property
    def name(self) -> str:
        """Name of the whole source."""
        return self.source.name

    @property
    def kind(self) -> str:
        """Kind of the whole source."""
        return self.source.kind

    @property
    def fingerprint(self) -> str:
        """Changes with the source and with the choice."""
        return f"{self.source.fingerprint} {hashlib.sha256(self.rows.tobytes()).hexdigest()}"

    def __len__(self) -> int:
        """Return the number of chosen rows."""
        return len(self.rows)

    def blocks(self, size: int, start: int = 0) -> Iterator[Block]:
        """Yield the chosen rows from the `start`th on, in blocks of at most `size`."""
        if start >= len(self.rows):
            return
        for block in self.source.blocks(size, int(self.rows[start])):
            first, last = np.searchsorted(self.rows, [block.start, block.start + len(block)])
            if last > first:
                yield _taken(block, self.rows[first:last] - block.start, int(first))


def _taken(block: Block, rows: npt.NDArray[np.int64], start: int) -> Block:
    def items(column: Any) -> Any:
        return None if column is None else [column[row] for row in rows]

    return replace(
        block,
        start=start,
        ids=items(block.ids),
        vectors=None if block.vectors is None else block.vectors[rows],
        texts=items(block.texts),
        codes=None if block.codes is None else block.codes[rows],
        payloads=items(block.payloads),
    )


def pair_summary(judged: JudgedRows | None) -> Mapping[str, int] | None:
    """Return the counts of pairs for reports."""
    if judged is None:
        return None
    return {"pairs": len(judged.query_rows), "queries": len(judged.queries)}
