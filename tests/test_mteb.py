"""A small task of mteb over real shards, scored by mteb itself and by trec_eval."""

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.benchmarks import mteb_search
from csr_qdrant.benchmarks.compare import compare
from csr_qdrant.benchmarks.engine import Found
from csr_qdrant.benchmarks.matrix.config import BenchConfig
from csr_qdrant.benchmarks.mteb_matrix import matrix_systems
from csr_qdrant.benchmarks.mteb_run import Scored, run_mteb
from csr_qdrant.benchmarks.mteb_search import Part, SystemRetriever, model_meta
from csr_qdrant.benchmarks.mteb_systems import (
    Candidate,
    Systems,
    codes,
    dense,
    shortened,
)
from csr_qdrant.benchmarks.mteb_tasks import compare_task, load_task, parts, scores_by_query
from csr_qdrant.benchmarks.mteb_texts import Embeddings
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.benchmarks.systems import DenseSystem, truncated
from csr_qdrant.embedders import CallableEmbedder
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError, MissingExtraError

mteb = pytest.importorskip("mteb")
datasets = pytest.importorskip("datasets")

D = 16
WORDS = [f"word{i}" for i in range(60)]
TOPICS = 40
SOME: dict[str, Any] = {
    "systems": ("exact", "hnsw", "binary", "csr"),
    "ef": (32,),
    "k": (4,),
    "query_k": (),
    "candidates": 20,
}
Change = Callable[[dict[str, Any]], Any]


def documents() -> list[dict[str, str]]:
    rng = np.random.default_rng(5)
    return [
        {
            "id": f"d{i}",
            "title": WORDS[i % 60] if i % 3 else "",
            "text": " ".join([*rng.choice(WORDS, 6).tolist(), WORDS[i % 60]]),
        }
        for i in range(150)
    ]


def queries() -> list[dict[str, str]]:
    topics = [{"id": f"q{i}", "text": WORDS[i]} for i in range(TOPICS)]
    return [*topics, {"id": "empty", "text": ""}]


def judgements() -> dict[str, dict[str, int]]:
    """Return documents with the query's word, and one that there is not."""
    found: dict[str, dict[str, int]] = {}
    for query in queries()[:TOPICS]:
        word = query["text"]
        holding = [doc for doc in documents() if word in doc["text"].split()]
        found[query["id"]] = {doc["id"]: 1 + (doc["title"] == word) for doc in holding}
    found["q0"]["gone"] = 1
    return {**found, "empty": {"d3": 1}}


def tiny_task(change: Change | None = None, **about: Any) -> Any:
    """Return the task, its data as `change` leaves them."""
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    described: dict[str, Any] = {
        "name": "TinyRetrieval",
        "description": "words in texts",
        "dataset": {"path": "csr-qdrant/tiny", "revision": "1"},
        "type": "Retrieval",
        "category": "t2t",
        "eval_splits": ["test"],
        "eval_langs": ["eng-Latn"],
        "main_score": "ndcg_at_10",
        **about,
    }

    class TinyRetrieval(AbsTaskRetrieval):
        metadata = TaskMetadata(**described)

        def load_data(self, *arguments: Any, **settings: Any) -> None:
            split: dict[str, Any] = {
                "corpus": datasets.Dataset.from_list(documents()),
                "queries": datasets.Dataset.from_list(queries()),
                "relevant_docs": judgements(),
                "top_ranked": None,
            }
            if change is not None:
                change(split)
            parts: Any = {name: {"test": split} for name in self.hf_subsets}
            self.dataset = parts
            self.data_loaded = True

    return TinyRetrieval()


def hub_folder(folder: Path) -> Path:
    """Write the data set as it would lie on the hub."""
    (folder / "qrels").mkdir(parents=True)
    parts = {
        "default": ("test", "qrels/test.jsonl"),
        "corpus": ("corpus", "corpus.jsonl"),
        "queries": ("queries", "queries.jsonl"),
    }
    configs = [
        f"- config_name: {name}\n  data_files:\n  - split: {split}\n    path: {path}\n"
        for name, (split, path) in parts.items()
    ]
    (folder / "README.md").write_text("---\nconfigs:\n" + "".join(configs) + "---\n")
    _lines(folder / "corpus.jsonl", [{"_id": doc.pop("id"), **doc} for doc in documents()])
    _lines(folder / "queries.jsonl", [{"_id": query.pop("id"), **query} for query in queries()])
    judged = [
        {"query-id": query, "corpus-id": doc, "score": grade}
        for query, grades in judgements().items()
        for doc, grade in grades.items()
    ]
    _lines(folder / "qrels" / "test.jsonl", judged)
    return folder


def _lines(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class WordEmbedder:
    """Sums of fixed random vectors of words; counts its calls."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self._vectors = {word: rng.normal(size=D) for word in WORDS}
        self.calls = 0
        self.embedder = CallableEmbedder(self._embed, D, "words")

    def _embed(self, texts: list[str]) -> Any:
        self.calls += 1
        return [sum((self._vectors[w] for w in t.split()), np.zeros(D)) for t in texts]


@pytest.fixture
def words() -> WordEmbedder:
    return WordEmbedder()


def _three(tiny: Encoder) -> Systems:
    def systems(vectors: Matrix, folder: Path) -> Sequence[Candidate]:
        return [dense("exact"), shortened(4), codes(tiny, k=4)]

    return systems


def _encoder() -> Encoder:
    rng = np.random.default_rng(7)
    return Encoder(
        weight=rng.normal(size=(64, D)).astype(np.float32),
        latent_bias=np.zeros(64, np.float32),
        pre_bias=np.zeros(D, np.float32),
        k=4,
    )


def _exact_only(vectors: Matrix, folder: Path) -> Sequence[Candidate]:
    return [dense("exact")]


def _trec(run: Any, qrels: Any) -> dict[str, float]:
    import pytrec_eval

    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"})
    return {query: each["ndcg_cut_10"] for query, each in evaluator.evaluate(run).items()}


def _predictions(scored: Scored) -> Any:
    return json.loads(scored.predictions.read_text())["default"]["test"]


# --- scores -----------------------------------------------------------------------------------


def test_scores_are_those_of_trec_eval_and_of_mteb(words: WordEmbedder, tmp_path: Path) -> None:
    scored = run_mteb(tiny_task(), words.embedder, _three(_encoder()), tmp_path)
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
    (ours,) = run_mteb(tiny_task(), words.embedder, _exact_only, tmp_path)
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
    _encoder().save(tmp_path / "enc")
    systems = matrix_systems(BenchConfig(**SOME, encoder=(tmp_path / "enc",)))
    first = run_mteb(tiny_task(), words.embedder, systems, tmp_path / "a")
    second = run_mteb(tiny_task(), words.embedder, systems, tmp_path / "b")
    names = {"HNSW m=16, ef 32", "binary, HNSW, rescored", "CSR k=4, rescored", "CSR k=4, u8"}
    assert names < {each.system for each in first}
    for one, other in zip(first, second, strict=True):
        assert one.main_scores == other.main_scores
        assert one.result.relative_to(tmp_path / "a") == other.result.relative_to(tmp_path / "b")
        np.testing.assert_array_equal(one.by_query[0].ndcg, other.by_query[0].ndcg)


# --- runs that go on --------------------------------------------------------------------------


def test_systems_and_runs_share_embeddings(words: WordEmbedder, tmp_path: Path) -> None:
    systems = _three(_encoder())
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
        run_mteb(tiny_task(change), words.embedder, _exact_only, tmp_path, **settings)
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


# --- systems ----------------------------------------------------------------------------------


def test_scores_are_kept_apart_by_encoder_and_settings(words: WordEmbedder, tmp_path: Path) -> None:
    encoder = _encoder()

    def systems(vectors: Matrix, folder: Path) -> Sequence[Candidate]:
        return [codes(encoder, k=4), codes(encoder, k=2), codes(encoder, k=4, candidates=20)]

    scored = run_mteb(tiny_task(), words.embedder, systems, tmp_path)
    assert len({each.result for each in scored}) == 3
    for each in scored:
        meta = json.loads((each.result.parent / "model_meta.json").read_text())
        assert (meta["name"], meta["revision"]) == ("csr-qdrant/words", encoder.fingerprint)
        assert meta["experiment_kwargs"]["system"] == each.system
        assert (meta["embed_dim"], meta["model_type"]) == (D, ["sparse"])
        assert meta["training_datasets"] is None


def test_an_encoder_is_trained_on_the_corpus_once_and_said_to_be(
    words: WordEmbedder, tmp_path: Path
) -> None:
    config = BenchConfig(**SOME | {"systems": ("pca", "csr"), "dims": (4,)}, minutes=0.05)
    told: list[str] = []
    matrix = matrix_systems(config, embedder="words", tell=told.append)
    folders: list[Path] = []

    def systems(vectors: Matrix, folder: Path) -> Sequence[Candidate]:
        folders.append(folder)
        return matrix(vectors, folder)

    scored = run_mteb(tiny_task(), words.embedder, systems, tmp_path)
    (place,) = [path for path in folders[0].iterdir() if path.is_dir()]
    trained = Encoder.load(place)
    assert trained.embedder == "words"
    metas = {
        each.system: json.loads((each.result.parent / "model_meta.json").read_text())
        for each in scored
    }
    learned = [name for name in metas if name.startswith(("CSR", "PCA"))]
    assert set(metas) == {"dense float32, exact", *learned}
    for name, meta in metas.items():
        assert meta["training_datasets"] == (["TinyRetrieval"] if name in learned else None)
    assert metas["CSR k=4"]["revision"] == trained.fingerprint
    assert metas["dense float32, exact"]["revision"] == "dense"
    assert metas["PCA 4"]["revision"] not in ("dense", "first", trained.fingerprint)
    assert [step for step in told if "principal" in step]
    told.clear()
    before = (place / "model.safetensors").stat().st_mtime_ns
    run_mteb(tiny_task(), words.embedder, systems, tmp_path)
    assert (place / "model.safetensors").stat().st_mtime_ns == before
    assert not [step for step in told if "principal" in step]


def test_systems_of_the_matrix_with_an_encoder_from_a_folder(
    words: WordEmbedder, tmp_path: Path
) -> None:
    encoder = _encoder()
    encoder.save(tmp_path / "enc")
    settings = SOME | {"systems": ("exact", "truncated", "csr"), "k": (2, 4), "dims": (4,)}
    systems = matrix_systems(BenchConfig(**settings, encoder=(tmp_path / "enc",)))
    listed = systems(np.ones((10, D), np.float32), tmp_path)
    assert [each.name for each in listed] == [
        "dense float32, exact",
        "truncated to 4",
        "truncated to 4, rescored",
        "CSR k=2",
        "CSR k=4",
        "CSR k=2, rescored",
        "CSR k=4, rescored",
        "CSR k=2, u8",
        "CSR k=4, u8",
    ]
    assert [each.revision for each in listed] == ["dense"] * 3 + [encoder.fingerprint] * 6
    assert [each.sparse for each in listed] == [False] * 3 + [True] * 6
    assert not any(each.trained_here for each in listed)
    assert listed[4].settings == {
        "k": 4,
        "query_k": 4,
        "h": 64,
        "datatype": "f32",
        "candidates": 0,
    }
    with pytest.raises(CsrError, match="encodes vectors of 16 dimensions, got 5"):
        systems(np.ones((10, 5), np.float32), tmp_path)


def test_systems_need_names_of_their_own(words: WordEmbedder, tmp_path: Path) -> None:
    def none(vectors: Matrix, folder: Path) -> Sequence[Candidate]:
        return []

    def alike(vectors: Matrix, folder: Path) -> Sequence[Candidate]:
        return [dense("a"), dense("a")]

    for systems in (none, alike):
        with pytest.raises(ConfigError, match="systems need names of their own"):
            run_mteb(tiny_task(), words.embedder, systems, tmp_path)


def test_subsets_have_encoders_and_scores_of_their_own(words: WordEmbedder, tmp_path: Path) -> None:
    languages = {"one": ["eng-Latn"], "two": ["deu-Latn"]}
    made: list[Path] = []

    def systems(vectors: Matrix, folder: Path) -> Sequence[Candidate]:
        made.append(folder)
        candidate = dense("exact")
        return [Candidate(name="exact", make=candidate.make, revision=f"of-{folder.name}")]

    task = tiny_task(eval_langs=languages)
    (scored,) = run_mteb(task, words.embedder, systems, tmp_path)
    assert [path.name for path in made] == ["one-test", "two-test"]
    assert list(scored.main_scores) == [Part("one", "test"), Part("two", "test")]
    meta = json.loads((scored.result.parent / "model_meta.json").read_text())
    assert not meta["revision"].startswith("of-")  # of both
    (only,) = run_mteb(
        tiny_task(eval_langs=languages), words.embedder, systems, tmp_path, subsets=["two"]
    )
    assert list(only.main_scores) == [Part("two", "test")]
    with pytest.raises(ConfigError, match="evaluated on the subsets one, two, got three"):
        run_mteb(
            tiny_task(eval_langs=languages), words.embedder, systems, tmp_path, subsets=["three"]
        )


def test_a_part_is_a_task_of_these_benchmarks(words: WordEmbedder, tmp_path: Path) -> None:
    (part,) = parts(task := load_task(tiny_task()))
    compared = compare_task(task, part, Embeddings(words.embedder, tmp_path / "embeddings"))
    (exact,) = compare([DenseSystem(name="exact", m=0)], compared, tmp_path / "systems", timed=5)
    (scored,) = run_mteb(tiny_task(), words.embedder, _exact_only, tmp_path / "out", depth=10)
    assert isinstance(compared.vectors, np.memmap)
    assert list(compared.query_ids) == scored.by_query[0].query_ids
    np.testing.assert_array_equal(exact.ndcg, scored.by_query[0].ndcg)
    task.ignore_identical_ids = True
    with pytest.raises(CsrError, match="TinyRetrieval leaves a query's own document out"):
        compare_task(task, part, Embeddings(words.embedder, tmp_path / "embeddings"))


# --- the protocol -----------------------------------------------------------------------------


@pytest.fixture
def retriever(words: WordEmbedder, tmp_path: Path) -> Iterator[SystemRetriever]:
    meta = model_meta(words.embedder, "truncated", {"dims": 4}, "dense")
    made = SystemRetriever(
        Embeddings(words.embedder, tmp_path / "embeddings"),
        lambda vectors, part: truncated(4),
        meta,
        tmp_path / "indexes",
        depth=7,
    )
    yield made
    made.close()


def test_the_retriever_works_with_mteb_alone(retriever: SystemRetriever, tmp_path: Path) -> None:
    from mteb.models import EncoderProtocol, SearchProtocol

    assert isinstance(retriever, SearchProtocol)
    assert not isinstance(retriever, EncoderProtocol)
    cache = mteb.ResultCache(tmp_path / "cache")
    found = mteb.evaluate(retriever, tiny_task(), cache=cache, co2_tracker=False)
    assert 0.1 < found.task_results[0].get_score() < 1
    assert list((tmp_path / "cache").rglob("TinyRetrieval.json"))


def test_searches_return_every_query_and_at_most_depth_documents(
    retriever: SystemRetriever, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mteb_search, "QUERIES", 6)  # several blocks
    where: dict[str, Any] = {"hf_split": "test", "hf_subset": "default"}
    about = tiny_task().metadata
    corpus = datasets.Dataset.from_list(documents())
    asked = datasets.Dataset.from_list(queries())
    with pytest.raises(CsrError, match="call index before search"):
        retriever.search(asked, task_metadata=about, top_k=10, **where)
    retriever.index(corpus, task_metadata=about, **where)
    run = retriever.search(asked, task_metadata=about, top_k=10, **where)
    assert list(run) == [query["id"] for query in queries()]
    assert {len(found) for found in run.values()} == {7}
    assert len(retriever.search(asked, task_metadata=about, top_k=3, **where)["q1"]) == 3
    with pytest.raises(CsrError, match="TinyRetrieval reorders documents that it names itself"):
        retriever.search(asked, task_metadata=about, top_k=3, top_ranked={"q1": ["d1"]}, **where)
    with pytest.raises(CsrError, match="TinyRetrieval has no documents in default/test"):
        retriever.index(corpus.select([]), task_metadata=about, **where)


def test_of_documents_that_share_an_id_the_best_stays(words: WordEmbedder, tmp_path: Path) -> None:
    meta = model_meta(words.embedder, "exact", {}, "dense")
    corpus = datasets.Dataset.from_list(
        [{"id": "same", "text": "word1"}, {"id": "same", "text": "word2"}]
    )
    made = SystemRetriever(
        Embeddings(words.embedder, tmp_path / "e"),
        lambda vectors, part: DenseSystem(name="exact", m=0),
        meta,
        tmp_path / "i",
    )
    where: dict[str, Any] = {"hf_split": "test", "hf_subset": "default"}
    made.index(corpus, task_metadata=tiny_task().metadata, **where)
    asked = datasets.Dataset.from_list([{"id": "q", "text": "word2"}])
    run = made.search(asked, task_metadata=tiny_task().metadata, top_k=10, **where)
    made.close()
    assert run["q"]["same"] == pytest.approx(1.0, abs=1e-5)


def test_depth_must_be_positive(words: WordEmbedder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="depth must be at least 1, got 0"):
        run_mteb(tiny_task(), words.embedder, _exact_only, tmp_path, depth=0)


def test_hub_models_are_named_as_what_was_adapted() -> None:
    embedder = CallableEmbedder(lambda texts: texts, 4, "sentence-transformers:org/model")
    assert model_meta(embedder, "x", {}, "1").adapted_from == "org/model"


# --- tasks ------------------------------------------------------------------------------------


def test_a_local_copy_in_the_layout_of_the_hub(
    words: WordEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = hub_folder(tmp_path / "nfcorpus")
    (scored,) = run_mteb("NFCorpus", words.embedder, _exact_only, tmp_path / "out", local=folder)
    (own,) = run_mteb(tiny_task(), words.embedder, _exact_only, tmp_path / "out")
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
        run_mteb("NFCorpus", words.embedder, _exact_only, tmp_path)


# --- the command ------------------------------------------------------------------------------


def test_the_command_scores_the_matrix(
    csr: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    hub_folder(Path("nfcorpus"))
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(128, 64)).astype(np.float32)
    latents, inputs = np.zeros(128, np.float32), np.zeros(64, np.float32)
    Encoder(weight=weight, latent_bias=latents, pre_bias=inputs, k=8).save(Path("enc"))
    command = ("bench", "mteb", "NFCorpus", "--local", "nfcorpus", "--embedder", "wordllama:64")
    settings = ("--systems", "exact,csr", "--candidates", 0, "--depth", 10)
    rows = csr(*command, *settings, "--encoder", "enc", "--json").json
    assert [row["system"] for row in rows] == ["dense float32, exact", "CSR k=8", "CSR k=8, u8"]
    assert rows[0]["difference"] is None and rows[1]["difference"]["low"] <= 0
    assert all(Path(row["result"]).is_file() and row["main_score"] > 0 for row in rows)
    assert "against the first system" in csr(*command, *settings, "--encoder", "enc").stdout


# --- the documentation ------------------------------------------------------------------------


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    hub_folder(tmp_path / "nfcorpus")
    text = (Path(__file__).parents[1] / "docs" / "mteb.md").read_text("utf-8")
    readme = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert readme is not None
    (tmp_path / "nfcorpus" / "README.md").write_text(readme[1])
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(128, 64)).astype(np.float32)
    latents, inputs = np.zeros(128, np.float32), np.zeros(64, np.float32)
    encoder = Encoder(weight=weight, latent_bias=latents, pre_bias=inputs, k=32)
    encoder.save(tmp_path / "encoder")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    for said, meant in {
        "sentence-transformers:BAAI/bge-small-en-v1.5": "wordllama:64",  # comes with its package
        "minutes=5": "minutes=0.05",
        'scored = run_mteb("NFCorpus", embedder, systems, Path("mteb-nfcorpus"), tell=print)': (
            "scored = []"  # that one asks the hub
        ),
        "candidates=100": "candidates=20",
        "depth=10": "depth=10, local=Path('nfcorpus')",
    }.items():
        assert said in code
        code = code.replace(said, meant)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/mteb.md", "exec"), names)
    assert [each.system for each in names["scored"]] == [
        "dense float32, exact",
        "int8, rescored",
        "truncated to 16, rescored 20",
        "CSR k=32, queries 16, rescored 20",
    ]
    assert names["difference"].low <= names["difference"].mean <= names["difference"].high
