"""Tasks of mteb, and what is said of those that cannot be scored."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.benchmarks.mteb_run import run_mteb
from csr_qdrant.benchmarks.mteb_search import Part
from csr_qdrant.benchmarks.mteb_tasks import load_task, scores_by_query
from csr_qdrant.errors import ConfigError, CsrError, MissingExtraError

sys.path.insert(0, str(Path(__file__).parent))
from mteb_world import (
    Change,
    WordEmbedder,
    exact_only,
    hub_folder,
    judgements,
    tiny_task,
    words_fixture,
)

mteb = pytest.importorskip("mteb")
datasets = pytest.importorskip("datasets")

words = words_fixture()


def test_a_local_copy_in_the_layout_of_the_hub(
    words: WordEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = hub_folder(tmp_path / "nfcorpus")
    (scored,) = run_mteb("NFCorpus", words.embedder, exact_only, tmp_path / "out", local=folder)
    (own,) = run_mteb(tiny_task(), words.embedder, exact_only, tmp_path / "out")
    np.testing.assert_array_equal(scored.by_query[0].ndcg, own.by_query[0].ndcg)
    assert words.calls == 2  # the same texts
    # The class, which other runs use, still reads the hub.
    assert mteb.get_task("NFCorpus").metadata.dataset["path"] == "mteb/nfcorpus"
    (folder / "qrels" / "test.jsonl").unlink()
    with pytest.raises(CsrError, match=f"cannot load NFCorpus from {folder}: "):
        load_task("NFCorpus", local=folder)
    with pytest.raises(ConfigError, match=r"there is no folder .*none: give"):
        load_task("NFCorpus", local=tmp_path / "none")


def test_an_unreachable_hub_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CsrError, match=r"cannot load SciFact: .* or give a local copy"):
        load_task("SciFact")


def test_unknown_tasks_are_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"no task 'nfcorpus': did you mean 'NFCorpus'\?"):
        load_task("nfcorpus")
    with pytest.raises(ConfigError, match=r"no task '%%%': see `mteb.get_tasks\(\)`"):
        load_task("%%%")
    with pytest.raises(ConfigError, match="a task of mteb or its name is needed, got int"):
        load_task(7)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Banking77Classification", "is a task of Classification: choose a retrieval task"),
        ("SciDocsRR", "is a task of Reranking: choose a retrieval task"),
        ("MSCOCOT2IRetrieval", "is about text and image: choose a task of texts only"),
    ],
)
def test_tasks_of_other_kinds_are_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_task(name)


def _without_documents(data: dict[str, Any]) -> None:
    data["corpus"] = data["corpus"].select([])


def _without_relevant(data: dict[str, Any]) -> None:
    data["relevant_docs"] = {query: dict.fromkeys(g, 0) for query, g in judgements().items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_documents, "TinyRetrieval (default/test) has no documents"),
        (lambda data: data.update(relevant_docs={}), "has no judged queries: choose another split"),
        (lambda data: data.update(relevant_docs={"other": {"d1": 1}}), "has no judged queries"),
        (_without_relevant, "judges no document relevant"),
        (lambda data: data.pop("queries"), "has no data for default/test: choose another split"),
        (lambda data: data["no such key"], "cannot load TinyRetrieval: 'no such key'"),
    ],
)
def test_data_that_cannot_be_scored_are_one_sentence(change: Change, message: str) -> None:
    with pytest.raises(CsrError) as caught:
        load_task(tiny_task(change))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_split_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="evaluated on the splits test, got dev"):
        load_task(tiny_task(), splits=["dev"])
    with pytest.raises(CsrError, match="has no data for default/train"):
        load_task(tiny_task(eval_splits=["test", "train"]))


def test_queries_are_scored_as_the_task_says() -> None:
    task = load_task(tiny_task())
    task.ignore_identical_ids = True
    run = {"q1": {"q1": 9.0, **dict.fromkeys(judgements()["q1"], 1.0)}}
    scores = scores_by_query(task, Part("default", "test"), run)
    assert scores.ndcg[1] > 0.7  # as if the document q1 were not there
    assert scores.ndcg.sum() == scores.ndcg[1]  # queries without predictions count as 0
    task.skip_first_result = True
    best = next(iter(judgements()["q1"]))
    only = scores_by_query(task, Part("default", "test"), {"q1": {best: 2.0}})
    assert only.ndcg.sum() == 0


def test_without_mteb_the_extra_is_named(
    words: WordEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'csr-qdrant\[mteb\]'"):
        run_mteb("NFCorpus", words.embedder, exact_only, tmp_path)
