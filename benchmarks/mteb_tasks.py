"""Retrieval tasks of mteb: loaded from the hub or from a local copy, and taken apart."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from csr_qdrant.benchmarks.compare import Task
from csr_qdrant.benchmarks.metrics import Floats, ndcg
from csr_qdrant.benchmarks.mteb_search import Part, import_mteb
from csr_qdrant.benchmarks.mteb_texts import Embeddings, text_digest
from csr_qdrant.errors import ConfigError, CsrError

RERANKING = "Reranking"  # in the types of tasks that name the documents to reorder
K = 10  # of nDCG, the leaderboard's main score of retrieval


class PartData(NamedTuple):
    """What a part of a task holds."""

    corpus: Any  # a data set with `id`, `text` and perhaps `title`
    queries: Any  # a data set with `id` and `text`
    qrels: Mapping[str, Mapping[str, int]]  # query id -> document id -> grade


class PartScores(NamedTuple):
    """A system's nDCG@10 of each query of a part, in the order of the queries."""

    part: Part
    query_ids: list[str]
    ndcg: Floats  # (m,)


def load_task(
    task: Any,
    *,
    local: Path | None = None,
    splits: Sequence[str] | None = None,
    subsets: Sequence[str] | None = None,
) -> Any:
    """Return a loaded retrieval task of mteb.

    Args:
        task: its name in mteb, or a task, which may be one of your own.
        local: a folder with a copy of its data set, laid out as on the hub; None: the hub, or
            whatever the task's own `load_data` reads.
        splits: those to evaluate on; None: those of the leaderboard.
        subsets: those to evaluate on, such as languages; None: all.

    Raises MissingExtraError without mteb, ConfigError for a task that there is not or that cannot
    be used here, CsrError for data that cannot be had.
    """
    import_mteb()
    found = _named(task) if isinstance(task, str) else task
    _check_kind(found)
    name = found.metadata.name
    if splits is not None:
        _check_known(name, "split", splits, found.metadata.eval_splits)
        found.filter_eval_splits(list(splits))
    if subsets is not None:
        _check_known(name, "subset", subsets, found.hf_subsets)
        found.hf_subsets = [each for each in found.hf_subsets if each in subsets]
    if local is not None:
        _read_from(found, local)
    _load(found, local)
    for part in parts(found):
        _check_part(name, part, part_data(found, part))
    return found


def parts(task: Any) -> list[Part]:
    """Return the parts that a task is evaluated on."""
    return [Part(subset, split) for split in task.eval_splits for subset in task.hf_subsets]


def part_data(task: Any, part: Part) -> PartData:
    """Return the data of one part; raises CsrError if the task has none."""
    try:
        data = task.dataset[part.subset][part.split]
        return PartData(data["corpus"], data["queries"], data["relevant_docs"])
    except (KeyError, TypeError):
        raise CsrError(
            f"{task.metadata.name} has no data for {part.subset}/{part.split}: choose another split"
        ) from None


def compare_task(task: Any, part: Part, embeddings: Embeddings) -> Task:
    """Return a part as a task of these benchmarks, embedded; its vectors are mapped from disk.

    Raises CsrError for a task that leaves out some results when it scores, which `Task` does not.
    """
    if task.ignore_identical_ids or task.skip_first_result:
        raise CsrError(
            f"{task.metadata.name} leaves a query's own document out of its results, which only "
            "mteb's own scores do: measure it through mteb"
        )
    corpus, queries, qrels = part_data(task, part)
    ids = list(queries["id"])
    rows = [row for row, query in enumerate(ids) if qrels.get(query)]
    judged = [ids[row] for row in rows]
    return Task(
        doc_ids=[doc for block in _ids(corpus) for doc in block],
        vectors=embeddings.documents(corpus),
        query_ids=judged,
        queries=embeddings.queries(queries)[rows],
        qrels={query: qrels[query] for query in judged},
    )


def data_digest(task: Any) -> str:
    """Return sixteen hex digits that change with a task's texts, ids and judgements."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts(task):
        corpus, queries, qrels = part_data(task, part)
        texts = [text_digest(corpus, "documents"), text_digest(queries, "queries")]
        digest.update(json.dumps([*part, *texts]).encode())
        for dataset in (corpus, queries):
            for ids in _ids(dataset):
                digest.update(json.dumps(ids).encode())
        for query in sorted(qrels):
            digest.update(json.dumps([query, sorted(qrels[query].items())]).encode())
    return digest.hexdigest()


def scores_by_query(task: Any, part: Part, run: Mapping[str, Mapping[str, float]]) -> PartScores:
    """Return nDCG@10 of each query from its predictions, as mteb scores them.

    A query that found nothing, or is not among the predictions, counts as 0; queries without a
    text are left out, as mteb does.
    """
    _, queries, qrels = part_data(task, part)
    wanted = [query for query in queries["id"] if qrels.get(query)]
    ranked = {query: dict(run.get(query, {})) for query in wanted}
    if task.ignore_identical_ids:
        for query, scores in ranked.items():
            scores.pop(query, None)
    if task.skip_first_result:
        ranked = {query: _without_first(scores) for query, scores in ranked.items()}
    return PartScores(part, wanted, ndcg(ranked, {query: qrels[query] for query in wanted}, K))


def _without_first(scores: Mapping[str, float]) -> dict[str, float]:
    return dict(sorted(scores.items(), key=lambda pair: pair[1], reverse=True)[1:])


# --- loading ----------------------------------------------------------------------------------


def _named(name: str) -> Any:
    try:
        return import_mteb().get_task(name)
    except KeyError as error:
        close = re.search(r"Did you mean: '([^']+)'", str(error))
        hint = f"did you mean {close[1]!r}?" if close else "see `mteb.get_tasks()` for those it has"
        raise ConfigError(f"mteb has no task {name!r}: {hint}") from None


def _check_kind(task: Any) -> None:
    from mteb.abstasks import AbsTaskRetrieval

    about = getattr(task, "metadata", None)
    if about is None:
        raise ConfigError(f"a task of mteb or its name is needed, got {type(task).__name__}")
    if not isinstance(task, AbsTaskRetrieval) or RERANKING in about.type:
        raise ConfigError(f"{about.name} is a task of {about.type}: choose a retrieval task")
    if list(about.modalities) != ["text"]:
        raise ConfigError(
            f"{about.name} is about {' and '.join(about.modalities)}: choose a task of texts only"
        )


def _check_known(name: str, what: str, wanted: Sequence[str], known: Sequence[str]) -> None:
    unknown = [each for each in wanted if each not in known]
    if unknown or not wanted:
        raise ConfigError(
            f"{name} is evaluated on the {what}s {', '.join(known)}, got "
            f"{', '.join(unknown) or 'none'}"
        )


def _read_from(task: Any, folder: Path) -> None:
    """Let a task read a local folder instead of the hub."""
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}: give a copy of the task's data set")
    # On the task alone: its class has the same metadata.
    dataset = {**task.metadata.dataset, "path": str(folder)}
    task.metadata = task.metadata.model_copy(update={"dataset": dataset})


def _load(task: Any, local: Path | None) -> None:
    name = task.metadata.name
    try:
        task.load_data()
        # What older tasks load has another form, which mteb changes when it evaluates.
        task.convert_v1_dataset_format_to_v2(num_proc=None)
    except CsrError:
        raise
    except (ConnectionError, TimeoutError) as error:
        raise CsrError(
            f"cannot load {name}: {_first_line(error)}; be online, or give a local copy of the "
            "data set"
        ) from error
    except Exception as error:  # of any kind: the hub's, the readers', the task's own
        where = f" from {local}" if local else ""
        raise CsrError(f"cannot load {name}{where}: {_first_line(error)}") from error


def _check_part(name: str, part: Part, data: PartData) -> None:
    label = f"{name} ({part.subset}/{part.split})"
    if not len(data.corpus):
        raise CsrError(f"{label} has no documents")
    if not any(data.qrels.get(query) for query in data.queries["id"]):
        raise CsrError(f"{label} has no judged queries: choose another split")
    if not any(grade > 0 for grades in data.qrels.values() for grade in grades.values()):
        raise CsrError(f"{label} judges no document relevant: choose another split")


def _ids(dataset: Any) -> Iterator[list[str]]:
    for start in range(0, len(dataset), 4096):
        yield list(dataset[start : start + 4096]["id"])


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")
