"""A small task of mteb over real shards, scored by mteb itself and by trec_eval."""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.benchmarks.engine import Found
from csr_qdrant.benchmarks.matrix.config import BenchConfig
from csr_qdrant.benchmarks.mteb_matrix import matrix_systems
from csr_qdrant.benchmarks.mteb_run import Scored, run_mteb
from csr_qdrant.benchmarks.mteb_search import Part, SystemRetriever, model_meta
from csr_qdrant.benchmarks.mteb_systems import Candidate, Systems, codes, dense, shortened
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.benchmarks.systems import DenseSystem
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import CsrError

sys.path.insert(0, str(Path(__file__).parent))
from mteb_world import (
    SOME,
    Change,
    WordEmbedder,
    exact_only,
    judgements,
    queries,
    tiny_encoder,
    tiny_task,
    words_fixture,
)

mteb = pytest.importorskip("mteb")

words = words_fixture()


def _three(tiny: Encoder) -> Systems:
    def systems(vectors: Matrix, folder: Path) -> Sequence[Candidate]:
        return [dense("exact"), shortened(4), codes(tiny, k=4)]

    return systems


def _trec(run: Any, qrels: Any) -> dict[str, float]:
    import pytrec_eval

    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"})
    return {query: each["ndcg_cut_10"] for query, each in evaluator.evaluate(run).items()}


def _predictions(scored: Scored) -> Any:
    return json.loads(scored.predictions.read_text())["default"]["test"]


# --- scores ------------------------------------------------------------------------------------


def test_scores_are_those_of_trec_eval_and_of_mteb(words: WordEmbedder, tmp_path: Path) -> None:
    scored = run_mteb(tiny_task(), words.embedder, _three(tiny_encoder()), tmp_path)
    assert [each.system for each in scored] == ["exact", "truncated to 4", "CSR k=4"]
    for each in scored:
        (part,) = each.by_query
        assert part.part == Part("default", "test")
        assert part.query_ids == [query["id"] for query in queries()]
        theirs = _trec(_predictions(each), judgements())
        expected = [theirs[query] for query in part.query_ids]
        np.testing.assert_allclose(part.ndcg, expected, rtol=0, atol=1e-9)
        # mteb rounds to five digits.
        assert each.main_scores[part.part] == pytest.approx(part.ndcg.mean(), abs=5.1e-6)
        written = json.loads(each.result.read_text())
        assert written["task_name"] == "TinyRetrieval"
        assert written["scores"]["test"][0]["main_score"] == each.main_scores[part.part]
    means = [each.by_query[0].ndcg.mean() for each in scored]
    assert means[0] > means[2] > means[1] > 0.2


def test_exact_search_gets_the_score_of_mteb_with_the_same_vectors(
    words: WordEmbedder, tmp_path: Path
) -> None:
    """Hold the retriever against mteb's own search over an encoder of mteb."""
    from mteb.models.model_meta import ScoringFunction
    from mteb.types import PromptType

    class Encoding:
        mteb_model_meta = model_meta(words.embedder, "theirs", {}, "1")

        def encode(self, inputs: Any, *, prompt_type: PromptType, **settings: Any) -> Any:
            rows = [words.embedder.embed_documents(batch["text"]) for batch in inputs]
            return np.vstack(rows)

        def similarity(self, one: Any, other: Any) -> Any:
            from mteb.similarity_functions import cos_sim

            return cos_sim(one, other)

        similarity_pairwise = similarity

    assert Encoding.mteb_model_meta.similarity_fn_name is ScoringFunction.COSINE
    theirs = mteb.evaluate(Encoding(), tiny_task(), cache=None, co2_tracker=False)
    (ours,) = run_mteb(tiny_task(), words.embedder, exact_only, tmp_path)
    # The query without words has cosine 0 to all, a tie that each breaks in its own way.
    expected = theirs.task_results[0].scores["test"][0]
    written = json.loads(ours.result.read_text())["scores"]["test"][0]
    for name in ("ndcg_at_10", "recall_at_100", "map_at_10"):
        assert written[name] == pytest.approx(expected[name], abs=1.0 / len(queries()))
    part = ours.by_query[0]
    assert part.ndcg[:-1].sum() == pytest.approx(
        len(queries()) * expected["ndcg_at_10"], abs=len(queries()) * 5.1e-6 + part.ndcg[-1]
    )


def test_a_query_without_results_counts_as_0(words: WordEmbedder, tmp_path: Path) -> None:
    class Deaf(DenseSystem):
        """Finds nothing for the first queries."""

        def search(self, queries: Matrix, limit: int) -> Found:
            found = super().search(queries, limit)
            found.rows[:5], found.scores[:5] = -1, -np.inf
            return found

    def systems(vectors: Matrix, folder: Path) -> Sequence[Candidate]:
        return [dense("exact"), Candidate(name="deaf", make=lambda: Deaf(name="deaf", m=0))]

    exact, deaf = run_mteb(tiny_task(), words.embedder, systems, tmp_path)
    assert _predictions(deaf)["q0"] == {}
    assert exact.by_query[0].ndcg[:5].min() > 0
    assert deaf.by_query[0].ndcg[:5].tolist() == [0.0] * 5
    np.testing.assert_array_equal(deaf.by_query[0].ndcg[5:], exact.by_query[0].ndcg[5:])
    mean = deaf.main_scores[Part("default", "test")]
    assert mean == pytest.approx(deaf.by_query[0].ndcg.mean(), abs=5.1e-6)


def test_runs_are_reproducible(words: WordEmbedder, tmp_path: Path) -> None:
    tiny_encoder().save(tmp_path / "enc")
    systems = matrix_systems(BenchConfig(**SOME, encoder=(tmp_path / "enc",)))
    first = run_mteb(tiny_task(), words.embedder, systems, tmp_path / "a")
    second = run_mteb(tiny_task(), words.embedder, systems, tmp_path / "b")
    names = {"HNSW m=16, ef 32", "binary, HNSW, rescored", "CSR k=4, rescored", "CSR k=4, u8"}
    assert names < {each.system for each in first}
    for one, other in zip(first, second, strict=True):
        assert one.main_scores == other.main_scores
        assert one.result.relative_to(tmp_path / "a") == other.result.relative_to(tmp_path / "b")
        np.testing.assert_array_equal(one.by_query[0].ndcg, other.by_query[0].ndcg)


# --- runs that go on ---------------------------------------------------------------------------


def test_systems_and_runs_share_embeddings(words: WordEmbedder, tmp_path: Path) -> None:
    systems = _three(tiny_encoder())
    first = run_mteb(tiny_task(), words.embedder, systems, tmp_path)
    assert words.calls == 2  # the corpus and the queries, one block each
    said: list[str] = []
    second = run_mteb(tiny_task(), words.embedder, systems, tmp_path, tell=said.append)
    assert words.calls == 2
    assert [each.main_scores for each in second] == [each.main_scores for each in first]
    assert said == ["exact", "truncated to 4", "CSR k=4"]
    assert not list((tmp_path / "work" / "indexes").iterdir())


def test_what_is_finished_is_not_searched_again(
    words: WordEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[str] = []
    search = SystemRetriever.search

    def counting(self: SystemRetriever, *arguments: Any, **settings: Any) -> Any:
        searched.append(str(self.mteb_model_meta.experiment_kwargs))
        return search(self, *arguments, **settings)

    monkeypatch.setattr(SystemRetriever, "search", counting)

    def run(change: Change | None = None, **settings: Any) -> int:
        before = len(searched)
        run_mteb(tiny_task(change), words.embedder, exact_only, tmp_path, **settings)
        return len(searched) - before

    assert (run(), run()) == (1, 0)
    assert run(overwrite=True) == 1
    shutil.rmtree(next((tmp_path / "predictions").iterdir()))
    assert (run(), run()) == (1, 0)
    # Half-written files of a killed run are removed.
    next((tmp_path / "predictions").rglob("*_predictions.json")).write_text('{"default": ')
    assert (run(), run()) == (1, 0)
    next((tmp_path / "results").rglob("TinyRetrieval.json")).write_text("{")
    assert (run(), run()) == (1, 0)
    # Other judgements make other scores, though mteb knows the task by its name alone.
    assert run(lambda data: data["relevant_docs"]["q1"].update(d149=3)) == 1
    assert (run(depth=5), run(depth=5)) == (1, 0)


def test_a_failing_system_loses_nothing_of_the_others(words: WordEmbedder, tmp_path: Path) -> None:
    class Broken(DenseSystem):
        def build(self, vectors: Matrix, place: Any) -> Any:
            raise CsrError("the disk is full")

    def systems(vectors: Matrix, folder: Path) -> Sequence[Candidate]:
        return [dense("exact"), Candidate(name="broken", make=lambda: Broken(name="broken", m=0))]

    with pytest.raises(CsrError, match="the disk is full"):
        run_mteb(tiny_task(), words.embedder, systems, tmp_path)
    assert len(list((tmp_path / "results").rglob("TinyRetrieval.json"))) == 1
    assert not list((tmp_path / "work" / "indexes").iterdir())
