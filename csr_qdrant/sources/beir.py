"""BEIR folders: a corpus, queries, and which documents are relevant to which query."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from csr_qdrant.errors import CsrError
from csr_qdrant.sources.files import FileSource
from csr_qdrant.sources.options import SourceOptions
from csr_qdrant.sources.pairs import read_pairs
from csr_qdrant.sources.records import open_records, read_jsonl

_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class BeirSplit:
    """The judged queries of one split."""

    query_ids: Sequence[str]
    texts: Sequence[str]
    qrels: dict[str, dict[str, int]]  # query id -> document id -> grade; 0 is judged irrelevant


def open_beir(folder: Path, options: SourceOptions) -> FileSource:
    """Open the corpus of a BEIR folder; its ids are texts, as those of its judgements are."""
    path = _present(folder, "corpus.jsonl")
    return open_records(path, options, partial(read_jsonl, path), text_ids=True)


def read_queries(folder: str | Path) -> tuple[list[str], list[str]]:
    """Return (ids, texts) of all queries of a BEIR folder."""
    path = _present(Path(folder), "queries.jsonl")
    options = SourceOptions(text_field="text", payload_fields=())
    source = open_records(path, options, partial(read_jsonl, path), text_ids=True)
    ids: list[str] = []
    texts: list[str] = []
    for block in source.blocks(_BLOCK_ROWS):
        ids += map(str, block.ids)
        texts += block.texts or ()
    return ids, texts


def beir_splits(folder: str | Path) -> dict[str, Path]:
    """Return the judgement files of a BEIR folder by split, whichever way they are laid out."""
    folder = Path(folder)
    found = {}
    for pattern, prefix in (("qrels/*.tsv*", ""), ("qrels.*.tsv*", "qrels.")):
        for path in sorted(folder.glob(pattern)):
            stem = path.name.removesuffix(".gz")
            if stem.endswith(".tsv"):
                found[stem.removesuffix(".tsv").removeprefix(prefix)] = path
    return found


def read_beir(folder: str | Path, split: str) -> BeirSplit:
    """Read the queries that `split` judges, in the order of the queries file.

    Raises CsrError if the split is missing, a grade is no integer, or a judged query has no text.
    """
    folder = Path(folder)
    splits = beir_splits(folder)
    if split not in splits:
        raise CsrError(
            f"{folder} has no judgements {split!r} (found: {', '.join(splits) or 'none'}): "
            f"name one of these or add qrels/{split}.tsv"
        )
    qrels = _qrels(splits[split])
    ids, texts = read_queries(folder)
    judged = [(name, text) for name, text in zip(ids, texts, strict=True) if name in qrels]
    if len(judged) < len(qrels):
        unknown = next(iter(qrels.keys() - set(ids)))
        raise CsrError(f"{splits[split]} judges query {unknown!r}, which {folder} does not hold")
    return BeirSplit([name for name, _ in judged], [text for _, text in judged], qrels)


def _qrels(path: Path) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    pairs = read_pairs(path)
    for query, document, score in zip(
        pairs.query_ids, pairs.doc_ids, pairs.scores.tolist(), strict=True
    ):
        if score != int(score):
            raise CsrError(f"{path} must grade with integers, got {score} for query {query!r}")
        qrels.setdefault(query, {})[document] = int(score)
    return qrels


def _present(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise CsrError(f"{folder} is no BEIR folder, it has no {name} or {name}.gz: check the path")
