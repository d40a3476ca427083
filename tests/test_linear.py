"""Linear adapters: what is learned, what is applied, what lies on disk."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.numpy import load_file, save_file
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from sklearn.neighbors import KNeighborsClassifier  # type: ignore[import-untyped]
from torch.nn import functional as F

from csr_qdrant import linear as runtime
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError, RowError
from csr_qdrant.linear import LinearAdapter
from csr_qdrant.trainer import Pairs, TrainConfig
from csr_qdrant.trainer.adapter import learn_adapter
from csr_qdrant.trainer.batch import TorchBatch
from csr_qdrant.trainer.data import Batch
from csr_qdrant.trainer.linear import LinearReport, Run, fit_linear, principal_axes
from csr_qdrant.trainer.linear_config import LinearConfig
from csr_qdrant.trainer.linear_objective import Objective
from csr_qdrant.trainer.linear_sampling import MatchSampler, plan_batches

F32 = npt.NDArray[np.float32]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the runs here are too small for more
    yield
    torch.set_num_threads(threads)


def random(*shape: int, seed: int = 0) -> F32:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def some_adapter(d: int = 6, **changes: Any) -> LinearAdapter:
    made = LinearAdapter(
        matrix=random(d, d), mean=random(d, seed=1), dims=(2, 4), info={"steps": 3, "é": [1]}
    )
    return replace(made, **changes)


# --- applying ---------------------------------------------------------------------------------


def test_apply_is_the_centred_product_at_norm_one() -> None:
    adapter, x = some_adapter(), random(50, 6, seed=2)
    assert adapter.mean is not None
    for size in (1, 2, 4, 6):
        expected = unit((x - adapter.mean) @ adapter.matrix[:size].T)
        got = adapter.apply(x, size)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(adapter.apply(x), adapter.apply(x, 4))  # the largest trained
    plain = replace(adapter, mean=None).apply(x, 6)
    np.testing.assert_allclose(plain, unit(x @ adapter.matrix.T), rtol=1e-5, atol=1e-6)


def test_blocks_and_memory_maps_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, x = some_adapter(), random(300, 6, seed=2)
    whole = adapter.apply(x)
    np.save(tmp_path / "x.npy", x.astype(np.float64))
    monkeypatch.setattr(runtime, "BLOCK_BYTES", 1)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_allclose(adapter.apply(mapped), whole, rtol=1e-6, atol=1e-7)
    assert adapter.apply(x[:0]).shape == (0, 4)


def test_extreme_lengths_and_rows_without_a_direction() -> None:
    adapter = LinearAdapter(matrix=np.eye(3, dtype=np.float32), dims=(3,))
    rows = np.array([[3e-30, 4e-30, 0], [3e25, 0, 4e25], [0, 0, 0]])
    expected = np.array([[0.6, 0.8, 0], [0.6, 0, 0.8], [0, 0, 0]])
    np.testing.assert_allclose(adapter.apply(rows), expected, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39, 1e300])
def test_a_row_that_is_not_finite_is_named(bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "BLOCK_BYTES", 1)
    x = random(200, 6).astype(np.float64)
    x[130, 5] = x[190, 0] = bad
    with pytest.raises(RowError, match=r"row 1130 of x\.npy holds NaN, infinity") as raised:
        some_adapter().apply(x, 2, first_row=1000, name="x.npy")
    assert raised.value.row == 1130


@pytest.mark.parametrize(
    ("vectors", "dims", "sentence"),
    [
        (np.ones((3, 5)), None, r"takes vectors of shape \(n, 6\), got \(3, 5\)"),
        (np.ones(6), None, r"got \(6,\)"),
        ([[1.0] * 6, [1.0]], None, "must be an array of numbers"),
        ([["a"] * 6], None, "must be numbers, got <U1"),
        (np.ones((3, 6)), 0, r"rising numbers in 1\.\.6 \(the vectors' size\), got 0"),
        (np.ones((3, 6)), 7, "got 7"),
    ],
)
def test_what_cannot_be_applied_is_refused(vectors: Any, dims: int | None, sentence: str) -> None:
    with pytest.raises(CsrError, match=sentence):
        some_adapter().apply(vectors, dims)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"matrix": random(6, 5)}, r"matrix of shape \(d, d\), got \(6, 5\)"),
        ({"matrix": np.empty((0, 0), np.float32)}, r"got \(0, 0\)"),
        ({"mean": random(5)}, r"mean must have shape \(6,\), got \(5,\)"),
        ({"matrix": np.eye(6)}, "matrix must be float32, got float64"),
        ({"mean": np.full(6, np.nan, np.float32)}, "mean holds NaN"),
        ({"dims": ()}, "got none"),
        ({"dims": (4, 2)}, "rising"),
        ({"dims": (2, 7)}, "got 2, 7"),
        ({"dims": (2.5,)}, "got 2.5"),
    ],
)
def test_adapters_that_cannot_be_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CsrError, match=sentence):
        some_adapter(**changes)


# --- on disk ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [random(6, seed=1), None])
def test_a_saved_adapter_comes_back(tmp_path: Path, mean: F32 | None) -> None:
    adapter, x = some_adapter(mean=mean), random(9, 6, seed=2)
    adapter.save(tmp_path / "a")
    back = LinearAdapter.load(tmp_path / "a")
    np.testing.assert_array_equal(back.apply(x), adapter.apply(x))
    assert (back.dims, back.info, back.d) == ((2, 4), {"steps": 3, "é": [1]}, 6)
    assert back.fingerprint == adapter.fingerprint
    assert back.fingerprint != some_adapter(matrix=random(6, 6, seed=8), mean=mean).fingerprint
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "linear.json", "linear.safetensors"]


def test_an_existing_folder_is_kept_and_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    some_adapter().save(tmp_path / "a")
    with pytest.raises(ConfigError, match="already exists"):
        some_adapter(dims=(3,)).save(tmp_path / "a")
    with pytest.raises(TypeError):
        some_adapter(info={"x": object()}).save(tmp_path / "a", overwrite=True)
    assert LinearAdapter.load(tmp_path / "a").dims == (2, 4)
    some_adapter(dims=(3,)).save(tmp_path / "a", overwrite=True)
    assert LinearAdapter.load(tmp_path / "a").dims == (3,)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def described(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "linear.json"
        value = json.loads(path.read_text("utf-8")) | changes
        path.write_text(json.dumps({k: v for k, v in value.items() if v is not None}))

    return change


def stored(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        save_file(load_file(folder / "linear.safetensors") | changes, folder / "linear.safetensors")

    return change


def truncated(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:-9])

    return change


def removed(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (removed("linear.json"), r"is not a linear adapter, it lacks linear\.json"),
        (removed("linear.safetensors"), r"it lacks linear\.safetensors"),
        (truncated("linear.json"), r"linear\.json is damaged"),
        (truncated("linear.safetensors"), "is damaged"),
        (described(kind="encoder"), "describes no linear adapter"),
        (lambda f: (f / "linear.json").write_text("[1]"), "describes no linear adapter"),
        (described(format_version=2), "has format version 2, this release reads 1"),
        (described(dims=None), r"is damaged \('dims'\)"),
        (described(dims=[2, 9]), "rising numbers in 1..6"),
        (described(dims=["2"]), "rising numbers"),
        (described(dims=4), "is damaged"),
        (described(info=[1]), "is damaged"),
        (described(d=7), r"linear\.json says d 7, the weights say 6"),
        (stored(matrix=random(6, 6, seed=9)), "says fingerprint"),
        (stored(matrix=np.full((6, 6), np.nan, np.float32)), "holds NaN"),
        (stored(matrix=np.eye(6)), "must be float32"),
        (stored(matrix=random(5, 6)), r"got \(5, 6\)"),
        (stored(bias=random(6)), r"must hold matrix and perhaps mean, got \['bias'"),
    ],
)
def test_foreign_and_damaged_folders_are_refused(
    tmp_path: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    some_adapter().save(tmp_path / "a")
    damage(tmp_path / "a")
    with pytest.raises(CsrError, match=sentence):
        LinearAdapter.load(tmp_path / "a")


def test_an_encoder_and_nothing_are_no_adapters(tmp_path: Path, tiny_encoder: Encoder) -> None:
    tiny_encoder.save(tmp_path / "enc")
    with pytest.raises(CsrError, match=r"enc is not a linear adapter, it lacks linear\.json"):
        LinearAdapter.load(tmp_path / "enc")
    with pytest.raises(CsrError, match="there is no folder"):
        LinearAdapter.load(tmp_path / "nothing")


# --- the objective ----------------------------------------------------------------------------


def plain_loss(matrix: torch.Tensor, batch: TorchBatch, sizes: tuple[int, ...], t: float) -> Any:
    """Return the mean over the sizes, written the obvious way, row by row."""
    total = []
    for size in sizes:
        y = F.normalize((batch.x @ matrix.T)[:, :size], dim=1)
        if batch.matches is not None:
            q, d, known, weights, wrong = batch.matches
            scores = (y[q] @ y[torch.cat([d, wrong])].T / t).masked_fill(known, -torch.inf)
            rows = [
                w * -(scores[i].log_softmax(0)[i] + scores[: len(q), i].log_softmax(0)[i]) / 2
                for i, w in enumerate(weights)
            ]
            total.append(torch.stack(rows).sum() / weights.sum())
            continue
        dense, rows = F.normalize(batch.x, dim=1), []
        for i in range(len(y)):
            others = [j for j in range(len(y)) if j != i]
            scores = y[others] @ y[i] / t
            if batch.labels is None:
                target = (dense[others] @ dense[i] / t).log_softmax(0)
                rows.append((target.exp() * (target - scores.log_softmax(0))).sum())
            elif (same := batch.labels[others] == batch.labels[i]).any():
                rows.append(scores.logsumexp(0) - scores[same].logsumexp(0))
        total.append(torch.stack(rows).mean())
    return torch.stack(total).mean()


def a_batch(kind: str) -> Batch:
    x = random(40, 6, seed=3)
    if kind == "labels":
        return Batch(x, np.arange(40) % 7)
    if kind == "rows":
        return Batch(x)
    q, r = [0, 1, 1, 2, 0, 3], [4, 5, 6, 4, 9, 7]
    pairs = Pairs.of(random(4, 6, seed=4), q, r, [1, 2, 1, 1, 0, 1])
    return MatchSampler.of(x, pairs, np.arange(5), 5, 0).at(0)


@pytest.mark.parametrize("kind", ["rows", "labels", "pairs"])
def test_loss_and_step_are_those_of_the_plain_objective(kind: str) -> None:
    config, objective = LinearConfig(lr=0.01), Objective((2, 4, 6), 0.3)
    matrix = torch.from_numpy(random(6, 6, seed=5))
    parameter = torch.nn.Parameter(matrix.clone())
    run = Run(config, objective, 1.0, None, parameter, torch.optim.Adam([parameter]))
    batch = run.on_device(a_batch(kind))
    expected = matrix.clone().requires_grad_()
    loss = plain_loss(expected, batch, objective.sizes, 0.3)
    loss.backward()
    got = run.update(batch, 0.0)
    assert float(got) == pytest.approx(float(loss.detach()), rel=1e-5)
    assert parameter.grad is not None and expected.grad is not None
    torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-4, atol=1e-6)
    moved = (parameter.detach() - matrix).abs()  # Adam's first step: the rate, in each entry
    torch.testing.assert_close(moved, torch.full_like(moved, 0.01), rtol=1e-2, atol=0)


def test_pairs_of_held_out_queries_are_never_trained_on() -> None:
    rng = np.random.default_rng(0)
    q, r = rng.integers(0, 50, 400), rng.integers(0, 80, 400)
    pairs = Pairs.of(random(50, 6), q, r)
    plan = plan_batches(random(80, 6), None, pairs, batch_size=32, held_out=99, seed=1)
    assert plan.held_out_pairs is not None and isinstance(plan.training, MatchSampler)
    kept, trained = plan.held_out_pairs.chosen, plan.training.chosen
    assert len(np.unique(q[kept])) == 5  # a tenth
    assert not set(q[kept]) & set(q[trained])
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, trained])), np.arange(400))


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
