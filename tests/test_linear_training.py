"""Linear adapters: what is learned, and from what."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from sklearn.neighbors import KNeighborsClassifier  # type: ignore[import-untyped]

from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.trainer import Pairs, TrainConfig
from csr_qdrant.trainer.adapter import learn_adapter
from csr_qdrant.trainer.linear import LinearReport, fit_linear, principal_axes
from csr_qdrant.trainer.linear_config import LinearConfig

sys.path.insert(0, str(Path(__file__).parent))
from linear_rows import F32, random, unit


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the runs here are too small for more
    yield
    torch.set_num_threads(threads)


# --- training ---------------------------------------------------------------------------------


def test_the_plain_adapter_is_the_one_that_is_folded_into_an_encoder() -> None:
    x, queries = random(200, 12), random(40, 12, seed=1)
    rng = np.random.default_rng(2)
    q, r, scores = rng.integers(0, 40, 90), rng.integers(0, 200, 90), rng.integers(0, 3, 90)
    pairs = Pairs.of(queries, q, r, scores)
    config = LinearConfig(method="adapter", steps=25, batch_size=16, held_out=0, seed=4)
    adapter = fit_linear(x, config, pairs=pairs, device="cpu")
    theirs = TrainConfig(adapter_steps=25, batch_size=16, seed=4, adapter_lr=1e-3)
    expected = learn_adapter(x, pairs, theirs, torch.device("cpu")).numpy()
    np.testing.assert_allclose(adapter.matrix, expected, rtol=1e-4, atol=1e-6)
    assert (adapter.mean, adapter.dims) == (None, (12,))
    assert adapter.info["validations"] == []


def digits() -> tuple[F32, Any, F32, Any]:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order].astype(np.float32), y[order]
    return x[:1200], y[:1200], x[1200:], y[1200:]


def nearest_accuracy(gallery: Any, labels: Any, queries: Any, truth: Any) -> float:
    neighbour = KNeighborsClassifier(1).fit(unit(gallery), labels)
    return float(neighbour.score(unit(queries), truth))


def test_labels_make_eight_dimensions_better_than_principal_components() -> None:
    x, y, queries, truth = digits()
    config = LinearConfig(dims=(4, 8), steps=120, batch_size=128, lr=1e-2)
    adapter = fit_linear(x, config, labels=y, device="cpu")
    mean, axes = principal_axes(x)
    for size, gain in ((4, 0.08), (8, 0.015)):
        ours = nearest_accuracy(adapter.apply(x, size), y, adapter.apply(queries, size), truth)
        cut = axes[:size].T
        pca = nearest_accuracy((x - mean) @ cut, y, (queries - mean) @ cut, truth)
        assert ours > pca + gain
    before, after = (v["at"] for v in adapter.info["validations"])
    assert [at["dims"] for at in after] == [4, 8]
    assert after[0]["accuracy"] > before[0]["accuracy"]
    assert (adapter.info["supervision"], adapter.info["steps"]) == ("labels", 120)


def test_without_supervision_neighbours_are_kept_in_fewer_dimensions() -> None:
    x = digits()[0]
    reports: list[LinearReport] = []
    config = LinearConfig(dims=(4, 64), steps=61, batch_size=256, lr=3e-3)
    adapter = fit_linear(x, config, device="cpu", on_step=reports.append)
    before, after = (v["at"] for v in adapter.info["validations"])
    assert after[0]["recall"] > before[0]["recall"] + 0.02  # which is that of principal components
    assert after[1]["recall"] > before[1]["recall"] - 0.01
    assert (after[0]["accuracy"], after[0]["loss"]) == (None, None)
    assert reports[-1].loss < 0.9 * reports[0].loss
    assert adapter.mean is not None
    np.testing.assert_allclose(adapter.mean, x.mean(0), rtol=1e-5)


def test_lengths_of_vectors_do_not_matter() -> None:
    x, config = random(400, 12) + 1, LinearConfig(steps=20, batch_size=64)
    plain, tiny = (fit_linear(x * np.float32(s), config, device="cpu") for s in (1, 1e-14))
    np.testing.assert_allclose(tiny.matrix, plain.matrix, atol=0.01)
    np.testing.assert_allclose(tiny.apply(x * 1e-14), plain.apply(x), atol=0.02)
    measured = [[at["recall"] for at in a.info["validations"][-1]["at"]] for a in (plain, tiny)]
    assert measured[0] == pytest.approx(measured[1], abs=0.02)


def test_training_starts_where_the_loss_is_lower() -> None:
    """The first dimensions tell what belongs together, the others vary more."""
    meaning, noise = random(400, 4, seed=1), 3 * random(400, 8, seed=2)
    x = np.concatenate([meaning, noise], axis=1)
    asked = np.concatenate([meaning, 3 * random(400, 8, seed=3)], axis=1)
    config = LinearConfig(dims=(2, 4, 12), steps=1, lr=1e-9, held_out=0)
    pairs = Pairs.of(asked, np.arange(400), np.arange(400))
    kept = fit_linear(x, config, pairs=pairs, device="cpu").matrix
    np.testing.assert_allclose(kept, np.eye(12), atol=1e-6)
    axes = fit_linear(x, config, device="cpu").matrix
    np.testing.assert_allclose(axes @ axes.T, np.eye(12), atol=1e-5)
    assert np.square(axes[:8, 4:]).sum() > 7.9  # of 8: what varies most comes first


def test_pairs_bring_queries_to_their_documents() -> None:
    x, turned = random(600, 16), random(16, 16, seed=3) / 4
    queries = x[:300] + x[:300] @ turned
    pairs = Pairs.of(queries, np.arange(300), np.arange(300))
    config = LinearConfig(steps=150, batch_size=128, lr=5e-3)
    adapter = fit_linear(x, config, pairs=pairs, device="cpu")
    before, after = (v["at"] for v in adapter.info["validations"])
    assert [at["dims"] for at in after] == [8, 16]
    for first, last in zip(before, after, strict=True):
        assert last["loss"] < 0.8 * first["loss"]  # on queries that were held out
    assert adapter.info["supervision"] == "pairs"


def test_a_run_is_repeatable_and_reports_as_it_goes() -> None:
    reports: list[LinearReport] = []
    config = LinearConfig(steps=21, batch_size=64, held_out=0, seed=3)
    first = fit_linear(random(300, 16), config, device="cpu", on_step=reports.append)
    again = fit_linear(random(300, 16), config, device="cpu", info={"embedder": "e"})
    np.testing.assert_array_equal(first.matrix, again.matrix)
    other = fit_linear(random(300, 16), replace(config, seed=4), device="cpu")
    assert not np.array_equal(first.matrix, other.matrix)
    assert [(r.step, r.progress) for r in reports] == [(1, 1 / 21), (11, 11 / 21), (21, 1.0)]
    assert again.info["embedder"] == "e"
    assert again.info["training"]["seed"] == 3


@pytest.mark.parametrize("n", [2, 3, 5, 9])
def test_a_handful_of_rows_is_enough(n: int) -> None:
    config = LinearConfig(steps=12, batch_size=4)
    adapter = fit_linear(random(n, 8), config, device="cpu")
    assert np.abs(adapter.apply(random(n, 8))).max() <= 1
    pairs = Pairs.of(random(1, 8, seed=1), [0], [n - 1])
    assert fit_linear(random(n, 8), config, pairs=pairs, device="cpu").info["steps"] == 12


def test_minutes_end_a_run() -> None:
    config = LinearConfig(minutes=0.01, batch_size=32, held_out=0)
    adapter = fit_linear(random(100, 8), config, device="cpu")
    assert adapter.info["steps"] >= 1
    assert 0.6 <= adapter.info["seconds"] < 5
    with pytest.raises(CsrError, match="preparing took all of the 1e-09 minutes"):
        fit_linear(random(100, 8), replace(config, minutes=1e-9), device="cpu")


# --- refusals ---------------------------------------------------------------------------------


def test_sizes_double_up_to_the_vectors_own() -> None:
    assert LinearConfig().sizes(256) == (8, 16, 32, 64, 128, 256)
    assert LinearConfig().sizes(100) == (8, 16, 32, 64, 100)
    assert LinearConfig().sizes(5) == (5,)
    assert LinearConfig(dims=(3, 10)).sizes(12) == (3, 10)
    assert LinearConfig(method="adapter").sizes(12) == (12,)
    with pytest.raises(ConfigError, match=r"in 1\.\.9 \(the vectors' size\), got 3, 10"):
        LinearConfig(dims=(3, 10)).sizes(9)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"method": "csr"}, "method must be mrl or adapter, got 'csr'"),
        ({"dims": ()}, "got none"),
        ({"dims": (8, 4)}, "rising"),
        ({"dims": (0, 4)}, "got 0, 4"),
        ({"dims": (4,), "method": "adapter"}, "dims are for mrl"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch_size": 3}, "batch_size must be at least 4, got 3"),
        ({"held_out": -1}, "held_out must be at least 0"),
        ({"lr": 0}, "lr must be above 0 and at most 1, got 0"),
        ({"lr": 2.0}, "at most 1, got 2"),
        ({"temperature": -1.0}, "temperature must be above 0"),
        ({"minutes": float("nan")}, "minutes must be above 0, got nan"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        LinearConfig(**settings)


def with_nan() -> F32:
    x = random(100, 8)
    x[17, 3] = np.nan
    return x


@pytest.mark.parametrize(
    ("vectors", "config", "more", "sentence"),
    [
        (random(9), {}, {}, r"must have shape \(n, d\)"),
        (with_nan(), {}, {}, "row 17 of the training vectors holds NaN"),
        (np.ones((100, 8), np.float32), {}, {}, "all training vectors are equal"),
        (random(100, 8), {"method": "adapter"}, {}, "an adapter learns from labels or pairs"),
        (
            random(100, 8),
            {"temperature": 1e-45},
            {},
            "training diverged: the loss is not finite at step",
        ),
        (random(100, 8), {}, {"labels": np.zeros(100)}, "labels must differ, got a single label"),
        (random(100, 8), {}, {"labels": np.zeros(9)}, "labels must be one a row: 100 rows"),
        (random(100, 8), {}, {"pairs": Pairs.of(random(2, 8), [0], [100])}, "document row 100"),
        (random(100, 8), {}, {"pairs": Pairs.of(random(2, 9), [0], [1])}, "equal dimensions"),
        (random(100, 8), {}, {"device": "abacus"}, "device 'abacus' cannot be used"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(
    vectors: Any, config: dict[str, Any], more: dict[str, Any], sentence: str
) -> None:
    settings = LinearConfig(**{"steps": 30, "batch_size": 32, **config})
    with pytest.raises(CsrError, match=sentence):
        fit_linear(vectors, settings, **{"device": "cpu", **more})


def test_labels_and_pairs_together_are_refused() -> None:
    pairs = Pairs.of(random(2, 8), [0], [1])
    with pytest.raises(ConfigError, match="cannot be learned together"):
        fit_linear(random(20, 8), labels=np.arange(20) % 2, pairs=pairs)
