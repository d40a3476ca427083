"""A benchmark from plan to report, on made-up vectors in the real engine."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.benchmarks.csr_system import CsrSystem
from csr_qdrant.benchmarks.faiss_exact import blockwise, ground_truth
from csr_qdrant.benchmarks.image_bench import labelled_bench
from csr_qdrant.benchmarks.labelled_task import LabelledData, LabelledRows
from csr_qdrant.benchmarks.matrix.config import FAMILIES, BenchConfig
from csr_qdrant.benchmarks.matrix.run import run_benchmark
from csr_qdrant.benchmarks.matrix.task import BenchTask, limited
from csr_qdrant.benchmarks.matrix.timing import throughput
from csr_qdrant.benchmarks.neighbours import exact_neighbours, unit_rows
from csr_qdrant.benchmarks.report.format import parse_report
from csr_qdrant.benchmarks.systems import DenseSystem
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.trainer import Listeners, TrainConfig, fit

N, M, D = 600, 40, 16


def labelled(name: str, vectors: Any, labels: Any, queries: Any, wanted: Any) -> BenchTask:
    gallery = LabelledRows(name="gallery", vectors=vectors, labels=labels)
    asked = LabelledRows(name="queries", vectors=queries, labels=wanted)
    return labelled_bench(name, LabelledData(gallery=gallery, queries=asked))


def made_up() -> BenchTask:
    """Ten classes of vectors round their middles."""
    random = np.random.default_rng(0)
    classes = random.integers(0, 10, N + M)
    middles = 2 * random.standard_normal((10, D))
    vectors = (middles[classes] + random.standard_normal((N + M, D))).astype(np.float32)
    return labelled("made up", vectors[:N], classes[:N], vectors[N:], classes[N:])


TASK = made_up()
assert TASK.labels is not None
LABELS = TASK.labels


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("csr_qdrant.benchmarks.matrix.timing.SECONDS", 0.02)
        yield


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder") / "enc"
    config = TrainConfig(k=(4, 8), h=64, steps=30, batch_size=128, held_out=50)
    fit(TASK.vectors, config, device="cpu").save(folder)
    return folder


class Told(list[str]):
    """What a run says that it does."""

    @contextmanager
    def watch(self, name: str) -> Iterator[Listeners]:
        self.append(name)
        yield Listeners()


def run(
    folder: Path, encoder: Path | tuple[Path, ...] = (), task: BenchTask = TASK, **settings: Any
) -> tuple[dict[str, Any], Told]:
    told = Told()
    given: dict[str, Any] = {
        "systems": ("exact", "hnsw", "truncated", "binary", "csr"),
        "k": (4, 8),
        "query_k": (4,),
        "ef": (8, 32),
        "dims": (4,),
        "candidates": 40,
        "clients": (1, 2),
        "encoder": (encoder,) if isinstance(encoder, Path) else encoder,
        **settings,
    }
    return run_benchmark(task, BenchConfig(**given), folder, told.append, told.watch), told


@pytest.fixture(scope="module")
def finished(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Told]:
    folder = tmp_path_factory.mktemp("bench") / "b"
    report, told = run(folder, encoder)
    return folder, report, told


def test_the_report_holds_every_system_and_what_was_measured(finished: Any) -> None:
    folder, report, _ = finished
    assert json.loads((folder / "report.json").read_text()) == json.loads(json.dumps(report))
    parsed = parse_report(report)
    names = [system.name for system in parsed.systems]
    assert names[0] == "dense float32, exact"
    for name in (
        "HNSW m=16, ef 8",
        "truncated to 4, rescored",
        "binary, HNSW, rescored",
        "CSR k=8, queries 4",
        "CSR k=8, u8",
    ):
        assert name in names
    assert len(report["comparisons"]) == len(names) - 1
    for system in report["systems"]:
        assert 0 <= system["quality"]["top1"]["low"] <= system["quality"]["top1"]["high"] <= 1
        assert system["latency_ms"]["search"]["p50"] > 0
        assert set(system["qps"]) == {"1", "2"} and min(system["qps"].values()) > 0
        assert system["bytes_per_vector"]["searched"] > 0
        encoded = system["family"] in ("truncated", "CSR")
        assert (system["latency_ms"]["encode"] is not None) == encoded


def test_what_it_measures_is_what_the_systems_find(finished: Any, encoder: Path) -> None:
    _, report, _ = finished
    of = {system["name"]: system for system in report["systems"]}
    truth = exact_neighbours(TASK.queries, TASK.vectors, 10)
    right = TASK.judge(truth)["top1"].mean()
    assert of["dense float32, exact"]["quality"]["top1"]["mean"] == pytest.approx(right)
    assert of["dense float32, exact"]["fidelity"]["recall@10"] == 1
    codes = Encoder.load(encoder).encode(TASK.vectors, 8)
    postings = of["CSR k=8"]["postings"]
    assert postings["nonzeros"] == pytest.approx(codes.lengths.mean())
    lists = np.bincount(codes.indices, minlength=64)
    assert (postings["longest"], postings["dead"]) == (lists.max(), (lists == 0).mean())
    fewer = of["CSR k=8, queries 4"]["postings"]
    assert fewer["per_query_n"] < postings["per_query_n"]
    assert of["truncated to 4"]["bytes_per_vector"]["searched"] == pytest.approx(16, rel=0.2)


def test_finished_cells_are_not_measured_again(
    finished: Any, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, report, told = finished
    assert any(step.startswith("building") for step in told)

    def refused(*_: Any) -> Any:
        raise AssertionError("nothing is left to build")

    with monkeypatch.context() as patch:
        patch.setattr(DenseSystem, "build", refused)
        patch.setattr(CsrSystem, "build", refused)
        again, told = run(folder, encoder)
    assert not [step for step in told if step.startswith(("building", "measuring"))]
    for one, other in zip(again["systems"], report["systems"], strict=True):
        assert (one["quality"], one["build_s"]) == (other["quality"], other["build_s"])
    # A cell that was lost is measured on the index that is there; other settings build their own.
    (folder / "cells" / "binary-rescored.json").unlink()
    more, told = run(folder, encoder, m=8)
    assert "measuring binary, rescored" in told and "building binary" not in told
    assert "building HNSW m=8, ef 8" in told
    assert len(more["systems"]) == len(report["systems"])


def test_a_run_killed_while_it_built_builds_again(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = DenseSystem.build

    def killed(self: DenseSystem, vectors: Any, folder: Path) -> Any:
        build(self, vectors[: N // 2], folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(DenseSystem, "build", killed)
        run(tmp_path / "b", encoder, systems=("exact",))
    report, _ = run(tmp_path / "b", encoder, systems=("exact",))
    assert report["systems"][0]["fidelity"]["recall@10"] == 1


def test_models_are_learned_once_with_labels_too(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "minutes": 0.03,
        "systems": ("pca", "adapter", "csr"),
        "candidates": 0,
    }
    report, told = run(tmp_path / "b", **settings)
    families = {system["family"] for system in report["systems"]}
    assert families == {"dense", "PCA", "dense adapter", "CSR", "CSR labels"}
    assert "training an encoder (labels)" in told
    trained = [s["build_s"]["train"] for s in report["systems"] if s["family"] == "CSR labels"]
    assert min(trained) > 0
    again, told = run(tmp_path / "b", **settings)
    assert not [step for step in told if "training" in step or "finding" in step]
    assert [s["quality"] for s in again["systems"]] == [s["quality"] for s in report["systems"]]


def test_each_encoder_has_indexes_of_its_own(encoder: Path, tmp_path: Path) -> None:
    other = tmp_path / "enc"
    config = TrainConfig(k=(4, 8), h=64, steps=1, batch_size=128, held_out=50, seed=3)
    fit(TASK.vectors, config, device="cpu").save(other)
    settings: dict[str, Any] = {"systems": ("csr",), "candidates": 0, "k": (), "query_k": ()}
    first, _ = run(tmp_path / "b", encoder, **settings)
    second, _ = run(tmp_path / "b", other, **settings)
    third, told = run(tmp_path / "b", encoder, **settings)
    names = [system["name"] for system in first["systems"]]
    assert names[1:] == [
        "CSR k=4",
        "CSR k=8",
        "CSR k=4, u8",
        "CSR k=8, u8",
    ]  # what it was trained for
    figures = [[s["fidelity"] for s in report["systems"]] for report in (first, second, third)]
    assert figures[0] == figures[2] != figures[1]
    assert not [step for step in told if step.startswith("building")]
    report, _ = run(tmp_path / "both", (encoder, other), **settings)
    assert {s["family"] for s in report["systems"]} == {"dense", f"CSR {encoder}", f"CSR {other}"}


def test_other_judgements_do_not_meet_old_figures(encoder: Path, tmp_path: Path) -> None:
    data = (TASK.vectors, LABELS, TASK.queries)
    wanted = LABELS[:M]
    run(tmp_path / "b", encoder, labelled("made up", *data, wanted), systems=("exact",))
    with pytest.raises(CsrError, match="holds figures by other measures or judgements"):
        run(tmp_path / "b", encoder, labelled("made up", *data, wanted[::-1]), systems=("exact",))


def test_rows_without_a_direction_are_found_before_anything_is_learned(
    encoder: Path, tmp_path: Path
) -> None:
    vectors = TASK.vectors.copy()
    vectors[7] = 0
    task = labelled("gap", vectors, LABELS, TASK.queries, LABELS[:M])
    with pytest.raises(CsrError, match=r"row 7 of gap is all zeros.*leave pca out of --systems"):
        run(tmp_path / "b", encoder, task, systems=("pca", "csr"))
    report, _ = run(tmp_path / "b", encoder, task, systems=("csr",))
    assert len(report["systems"]) > 1


def test_rescoring_looks_at_least_at_what_is_asked_for(encoder: Path, tmp_path: Path) -> None:
    report, _ = run(tmp_path / "b", encoder, candidates=1, systems=("truncated", "binary", "csr"))
    recall = {s["name"]: s["fidelity"]["recall@10"] for s in report["systems"]}
    assert recall["truncated to 4, rescored"] >= recall["truncated to 4"]
    assert recall["CSR k=8, rescored"] >= recall["CSR k=8"]


def test_other_data_do_not_meet_old_figures(encoder: Path, finished: Any, tmp_path: Path) -> None:
    folder, _, _ = finished
    with pytest.raises(CsrError, match=r"holds another benchmark \(other queries\)"):
        run(folder, encoder, max_queries=5)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    with pytest.raises(CsrError, match="holds something else"):
        run(other, encoder)
    assert (other / "thesis.tex").read_text() == "mine"


def test_an_encoder_of_other_vectors_is_refused(encoder: Path, tmp_path: Path) -> None:
    task = labelled("flat", TASK.vectors[:, :8], LABELS, TASK.queries[:, :8], np.zeros(M, int))
    with pytest.raises(CsrError, match="encodes vectors of 16 dimensions, got 8"):
        run(tmp_path / "b", encoder, task)


def test_an_encoder_of_another_model_is_remarked_on(encoder: Path, tmp_path: Path) -> None:
    other = tmp_path / "enc"
    replace(Encoder.load(encoder), info={"embedder": "timm:a"}).save(other)
    settings: dict[str, Any] = {"systems": ("csr",), "candidates": 0, "k": (4,), "query_k": ()}
    for name, remarked in (("timm:a", 0), ("timm:b", 1), (None, 0)):
        task = replace(TASK, embedder=name)
        _, told = run(tmp_path / str(name), other, task, **settings)
        said = "was trained on vectors of timm:a, these are of timm:b"
        assert sum(said in step for step in told) == remarked


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"systems": ("dense",)}, f"systems are {FAMILIES[0]}"),
        ({"clients": ()}, "clients must not be empty"),
        ({"k": (8, 4, 8)}, "k names 8 twice"),
        ({"ef": (0,)}, "ef must be above 0"),
        ({"timed": 0}, "timed must be at least 1"),
        ({"max_queries": 0}, "max_queries must be at least 1"),
        ({"minutes": 0}, "minutes must be above 0"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        BenchConfig(**settings)


def test_sizes_of_shortened_vectors() -> None:
    assert BenchConfig().sizes(256) == (16, 64, 128)
    assert BenchConfig().sizes(4) == (1, 2)
    assert BenchConfig(dims=(8, 4)).sizes(16) == (4, 8)
    with pytest.raises(ConfigError, match="dims must be below 16, got 16"):
        BenchConfig(dims=(16,)).sizes(16)


def test_tasks_that_do_not_fit_together() -> None:
    assert len(limited(TASK, 7).queries) == 7
    assert limited(TASK, 7).judge(exact_neighbours(TASK.queries[:7], TASK.vectors, 10))[
        "top1"
    ].shape == (7,)
    with pytest.raises(CsrError, match="embed both with one model"):
        replace(TASK, queries=TASK.queries[:, :3])
    with pytest.raises(CsrError, match="needs some queries"):
        replace(TASK, queries=TASK.queries[:0])
    with pytest.raises(CsrError, match="needs 10 rows at least: 3"):
        replace(TASK, vectors=TASK.vectors[:3])


# --- parts --------------------------------------------------------------------------------------


def test_the_ground_truth_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = exact_neighbours(TASK.queries, TASK.vectors, 10)
    monkeypatch.setattr("csr_qdrant.benchmarks.faiss_exact.ROWS", 70)
    monkeypatch.setattr("csr_qdrant.benchmarks.faiss_exact.QUERIES", 9)
    found = ground_truth(TASK.queries, TASK.vectors, 10)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    monkeypatch.setattr("csr_qdrant.benchmarks.faiss_exact._faiss", lambda: None)
    np.testing.assert_array_equal(ground_truth(TASK.queries, TASK.vectors, 10).rows, expected.rows)


def test_equal_scores_of_several_blocks_stand_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csr_qdrant.benchmarks.faiss_exact.ROWS", 2)

    def search(queries: Any, vectors: Any, k: int) -> Any:
        found = exact_neighbours(queries, vectors, k)
        return found.scores, found.rows

    vectors = np.ones((6, 3), np.float32)
    assert blockwise(search, unit_rows(vectors[:1]), vectors, 4).rows.tolist() == [[0, 1, 2, 3]]
    with pytest.raises(ConfigError, match="k >= 1"):
        blockwise(search, vectors, vectors, 0)


def test_all_clients_search_all_queries() -> None:
    seen: list[int] = []
    calls = [partial(seen.append, i) for i in range(8)]
    rate, latency = throughput(calls, 3, seconds=0.05)
    assert set(seen) == set(range(8))
    assert rate == pytest.approx(len(seen) / 0.05, rel=0.9)
    assert 0 < latency.p50_ms < 50


def test_a_client_that_fails_is_not_lost() -> None:
    def failing() -> None:
        raise CsrError("the server went away")

    with pytest.raises(CsrError, match="the server went away"):
        throughput([int, failing], 2, seconds=5)
