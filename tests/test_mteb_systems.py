"""The systems that mteb's tasks are scored with, their encoders and their names."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from csr_qdrant.benchmarks.compare import compare
from csr_qdrant.benchmarks.matrix.config import BenchConfig
from csr_qdrant.benchmarks.mteb_matrix import matrix_systems
from csr_qdrant.benchmarks.mteb_run import run_mteb
from csr_qdrant.benchmarks.mteb_search import Part
from csr_qdrant.benchmarks.mteb_systems import Candidate, codes, dense
from csr_qdrant.benchmarks.mteb_tasks import compare_task, load_task, parts
from csr_qdrant.benchmarks.mteb_texts import Embeddings
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.benchmarks.systems import DenseSystem
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError

sys.path.insert(0, str(Path(__file__).parent))
from mteb_world import SOME, D, WordEmbedder, exact_only, tiny_encoder, tiny_task, words_fixture

words = words_fixture()


def test_scores_are_kept_apart_by_encoder_and_settings(words: WordEmbedder, tmp_path: Path) -> None:
    encoder = tiny_encoder()

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
    encoder = tiny_encoder()
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
    (scored,) = run_mteb(tiny_task(), words.embedder, exact_only, tmp_path / "out", depth=10)
    assert isinstance(compared.vectors, np.memmap)
    assert list(compared.query_ids) == scored.by_query[0].query_ids
    np.testing.assert_array_equal(exact.ndcg, scored.by_query[0].ndcg)
    task.ignore_identical_ids = True
    with pytest.raises(CsrError, match="TinyRetrieval leaves a query's own document out"):
        compare_task(task, part, Embeddings(words.embedder, tmp_path / "embeddings"))
