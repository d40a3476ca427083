"""Codes against shortened vectors: the systems, the search, the comparisons."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from sklearn.decomposition import PCA, TruncatedSVD  # type: ignore[import-untyped]
from sklearn.neighbors import KNeighborsClassifier  # type: ignore[import-untyped]

from csr_qdrant.benchmarks import dims, dims_gaps, dims_systems
from csr_qdrant.benchmarks.dims_task import load_task
from csr_qdrant.benchmarks.dims_trained import DimsConfig
from csr_qdrant.benchmarks.neighbours import Matrix, exact_neighbours, unit_rows
from csr_qdrant.benchmarks.synthetic import random_codes
from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import ConfigError


def _random(*shape: int, seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# --- searching --------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 5])
@pytest.mark.parametrize("scores", [1 << 24, 450])
def test_search_by_codes_is_exact(depth: int, scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dims_systems, "SCORES", scores)  # all queries at once, one at a time
    gallery = random_codes(300, h=64, k=6, seed=1)
    queries = random_codes(20, h=64, k=4, seed=2)
    found = dims_systems.nearest_codes(queries, gallery, depth)
    cosines = unit_rows(queries.to_dense()) @ unit_rows(gallery.to_dense()).T
    expected = np.argsort(-cosines, axis=1, kind="stable")[:, :depth]
    assert np.array_equal(found.rows, expected)
    assert found.scores == pytest.approx(np.take_along_axis(cosines, expected, 1), abs=1e-6)


@pytest.mark.parametrize("depth", [1, 5])
def test_search_by_vectors_is_exact(depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dims_systems, "SCORES", 900)  # three queries at a time
    gallery, queries = _random(300, 8), _random(20, 8, seed=1)
    found = dims_systems.nearest_vectors(queries, gallery, depth)
    expected = exact_neighbours(queries, gallery, depth)
    assert np.array_equal(found.rows, expected.rows)
    assert found.scores == pytest.approx(expected.scores, abs=1e-6)


def test_codes_that_share_no_latent_are_not_found() -> None:
    gallery = SparseCodes.from_dense([[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0]])
    queries = SparseCodes.from_dense([[2, 0, 0, 0], [0, 0, 0, 3], [0, 0, 0, 0]])
    found = dims_systems.nearest_codes(queries, gallery, 3)
    assert found.rows.tolist() == [[0, 2, -1], [-1, -1, -1], [-1, -1, -1]]
    assert found.scores[0] == pytest.approx([1, 0.5**0.5, 0])
    first = dims_systems.nearest_codes(queries, gallery, 1)
    assert first.rows.tolist() == [[0], [-1], [-1]]


def test_postings_count_the_lists_of_a_querys_latents() -> None:
    gallery = SparseCodes.from_dense([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 1, 0]])
    queries = SparseCodes.from_dense([[1, 1, 0], [0, 1, 1]])
    # The lists hold 3, 2 and 0 entries: the queries touch 5 and 2 of them, of 4 rows.
    assert dims_systems.postings(queries, gallery) == pytest.approx((5 + 2) / 2 / 4)


# --- shortened vectors ------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "reference"), [("PCA", PCA), ("PCA, not centred", TruncatedSVD)])
def test_components_are_those_of_scikit_learn(name: str, reference: Any) -> None:
    scales = np.linspace(3, 0.5, 12, dtype=np.float32)
    gallery, queries = _random(500, 12) * scales + 1, _random(40, 12, seed=1) * scales + 1
    made = {
        (each.name, each.active): each for each in dims_systems.principal(gallery, queries, (3, 5))
    }
    for m in (3, 5):
        ours = made[name, m]
        assert ours.bytes == 4 * m
        theirs = reference(n_components=m, random_state=0).fit(gallery)
        for rows, found in ((gallery, ours.gallery), (queries, ours.queries)):
            expected = theirs.transform(rows)
            signs = np.sign((found * expected).sum(axis=0))
            assert found == pytest.approx(expected * signs, abs=1e-3)


def test_truncation_keeps_the_first_dimensions() -> None:
    gallery, queries = _random(30, 8), _random(4, 8, seed=1)
    made = dims_systems.truncated(gallery, queries, 3)
    assert (made.name, made.active, made.bytes) == ("truncation", 3, 12)
    expected = (unit_rows(queries[:, :3]) @ unit_rows(gallery[:, :3]).T).argmax(axis=1)
    assert dims_systems.nearest(made, 1).rows[:, 0].tolist() == expected.tolist()


@pytest.mark.parametrize("centred", [False, True])
def test_binary_scores_float_queries_by_signs(centred: bool) -> None:
    gallery, queries = _random(200, 16) + 0.5, _random(10, 16, seed=1) + 0.5
    made = dims_systems.binary(gallery, queries, centred=centred)
    mean = gallery.mean(axis=0) if centred else 0
    expected = ((queries - mean) @ np.where(gallery - mean > 0, 1, -1).T).argmax(axis=1)
    assert made.bytes == 2
    assert dims_systems.nearest(made, 1).rows[:, 0].tolist() == expected.tolist()


# --- comparisons ------------------------------------------------------------------------------


class _Line:
    def __init__(self, *values: float) -> None:
        self.mean = np.asarray(values, np.float64)


def test_codes_are_held_against_the_best_rival() -> None:
    lines = {
        ("CSR", 4): _Line(0.5, 0.7),
        ("truncation", 32): _Line(0.7, 0.9),
        ("PCA", 8): _Line(0.1, 0.2),
        ("MRL adapter", 8): _Line(0.4, 0.5),
        ("MRL adapter", 16): _Line(1, 1),
        ("CSR, labels", 8): _Line(0.9, 0.8),
        ("dense adapter, labels", 16): _Line(0.8, 0.7),
        ("dense", 16): _Line(0.8, 0.7),
    }
    found = {(*gap["ours"], *gap["theirs"]): gap for gap in dims_gaps.gaps(lines, "labels", 16)}
    assert {key: (gap["goal"], gap["reached"]) for key, gap in found.items()} == {
        ("CSR", 4, "truncation", 32): (True, False),
        ("CSR", 4, "MRL adapter", 8): (True, True),
        ("CSR, labels", 8, "MRL adapter", 16): (False, False),
        ("CSR, labels", 8, "dense adapter, labels", 16): (True, True),
    }
    gap = found["CSR", 4, "truncation", 32]
    assert (gap["gap"], gap["low"], gap["high"]) == pytest.approx((-0.2, -0.2, -0.2))
    assert found["CSR", 4, "MRL adapter", 8]["among"] == ["MRL adapter", "PCA"]


def test_pairs_have_no_goal_of_labels() -> None:
    lines = {("CSR, pairs", 4): _Line(1.0), ("dense", 8): _Line(0.5)}
    assert [gap["goal"] for gap in dims_gaps.gaps(lines, "pairs", 8)] == [False]


# --- the whole --------------------------------------------------------------------------------


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Write scikit-learn's digits as a folder of vectors, centred, so that cosines mean more."""
    values, labels = load_digits(return_X_y=True)
    vectors = (values - values.mean(axis=0)).astype(np.float32)
    folder = tmp_path / "digits"
    folder.mkdir()
    for name, rows in (("gallery", slice(0, 1300)), ("queries", slice(1300, None))):
        np.save(folder / f"{name}.npy", vectors[rows])
        np.save(folder / f"{name}_labels.npy", labels[rows])
    return folder


def test_digits(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dims.main(
        digits,
        "digits",
        steps=60,
        seeds=2,
        k="2,4",
        setting=["h=256", "batch_size=256"],
        adapter_setting=["steps=10"],
        threads=1,
        device="cpu",
        output=tmp_path,
    )
    record = json.loads((tmp_path / "dims-digits.json").read_text("utf-8"))
    assert record["params"]["training"] == {"steps": 60, "h": 256, "batch_size": 256}
    results = record["results"]
    systems = {(each["name"], each["active"]): each for each in results["systems"]}
    assert systems["dense", 64]["value"] == pytest.approx(_knn(digits), abs=1e-9)
    assert systems["dense", 64]["low"] < systems["dense", 64]["value"]
    for name in ("truncation", "PCA", "PCA, not centred", "MRL adapter", "MRL adapter, labels"):
        assert {m for each, m in systems if each == name} == {4, 8, 16, 32}, name
    assert ("dense adapter, labels", 64) in systems
    for name in ("CSR", "CSR, labels"):
        for k in (2, 4):
            code = systems[name, k]
            assert code["bytes"] == 8 * k
            assert [seed["seed"] for seed in code["seeds"]] == [0, 1]
            assert all(0 < seed["postings"] < k for seed in code["seeds"])
            values = [seed["value"] for seed in code["seeds"]]
            assert code["value"] == pytest.approx(np.mean(values))
    assert systems["CSR, labels", 4]["value"] > 0.8 > systems["truncation", 4]["value"]
    printed = capsys.readouterr().out
    assert "CSR, k=4 − truncation, 32: " in printed
    assert "dims: written to" in printed


def _knn(folder: Path) -> float:
    names = ("gallery", "gallery_labels", "queries", "queries_labels")
    gallery, labels, queries, wanted = (np.load(folder / f"{name}.npy") for name in names)
    classifier = KNeighborsClassifier(1, metric="cosine").fit(gallery, labels)
    return float(classifier.score(queries, wanted))


def test_one_encoder_for_each_k(digits: Path) -> None:
    config = DimsConfig(
        ks=(2, 3),
        kinds=("csr",),
        supervised=(False,),
        seeds=1,
        nested=False,
        training={"steps": 3, "h": 64, "held_out": 0},
        device="cpu",
    )
    lines = dims.measure(load_task(digits, tune=True), config)
    assert list(lines) == [("CSR", 2), ("CSR", 3)]
    nested = dims.measure(
        load_task(digits, tune=True), DimsConfig(**{**vars(config), "nested": True})
    )
    assert not np.array_equal(nested["CSR", 2].mean, lines["CSR", 2].mean)


def test_settings_are_checked(digits: Path) -> None:
    with pytest.raises(ConfigError, match="NAME=VALUE, got 'h'"):
        dims.main(digits, "x", setting=["h"])
    with pytest.raises(ConfigError, match="supervision is without, with or both, got 'some'"):
        dims.main(digits, "x", supervision="some")
    with pytest.raises(ConfigError, match=r"kinds are dense, .*got turbo"):
        DimsConfig(kinds=("dense", "turbo"), training={})
