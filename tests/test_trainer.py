"""`fit` from end to end: what it learns, from what, and what it refuses."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from csr_qdrant import Encoder, SparseCodes
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.trainer import Listeners, Pairs, StepReport, TrainConfig, Validation, fit
from csr_qdrant.trainer.model import Autoencoder

Floats = npt.NDArray[np.float32]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small products are faster so, above all where other processes want the cores too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def clustered(n: int = 2000, d: int = 64, seed: int = 0) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Return vectors of norm 3 in forty clusters of twelve dimensions, with noise; and clusters."""
    world, rng = np.random.default_rng(99), np.random.default_rng(seed)
    basis, centres = world.standard_normal((12, d)), world.standard_normal((40, 12))
    labels = rng.integers(40, size=n)
    x = (centres[labels] + 0.5 * rng.standard_normal((n, 12))) @ basis
    x += 0.3 * rng.standard_normal((n, d))
    return unit(x) * np.float32(3), labels


def unit(x: Any) -> Floats:
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


def config(**settings: Any) -> TrainConfig:
    values: dict[str, Any] = {"k": (4, 16), "h": 256, "steps": 60, "batch_size": 128}
    # Rows in a few tight clusters, which are to stay together.
    values |= {"held_out": 200, "validate_every": 20, "contrastive": 1.0}
    return TrainConfig(**(values | settings))


# Latents that start at random and are left to their fate, as in the papers.
RANDOM: dict[str, Any] = {"start": "random", "revive": False, "centre": False}


def small(**settings: Any) -> TrainConfig:
    values: dict[str, Any] = {"k": (2, 4), "h": 32, "steps": 5, "batch_size": 16, "held_out": 0}
    return config(**(values | settings))


def cosines(queries: SparseCodes, documents: SparseCodes) -> Floats:
    return np.asarray(queries.normalised().to_dense() @ documents.normalised().to_dense().T)


# --- learning -----------------------------------------------------------------------------


def test_the_loss_falls_and_recall_rises() -> None:
    x, _ = clustered()
    reports: list[StepReport] = []
    validations: list[Validation] = []
    listeners = Listeners(reports.append, validations.append)
    encoder = fit(x, config(**RANDOM), listeners=listeners, device="cpu")

    assert [report.step for report in reports] == [1, 11, 21, 31, 41, 51]
    assert [report.progress for report in reports] == [report.step / 60 for report in reports]
    assert reports[-1].loss < 0.8 * reports[0].loss
    for term in ("reconstruction", "multi_k", "distillation"):
        assert reports[-1].terms[term] < 0.85 * reports[0].terms[term]
    peak = max(report.lr for report in reports)
    assert reports[0].lr < 0.1 * peak and reports[-1].lr < 0.1 * peak <= 0.1 * config().peak_lr(
        x.shape[1]
    )

    assert [validation.step for validation in validations] == [20, 40, 60]
    untrained = fit(x, config(steps=1, warmup=0.5, **RANDOM), device="cpu").info["validations"][-1]
    for before, after in zip(untrained["at"], validations[-1].at, strict=True):
        assert after.recall > before["recall"] + 0.04
        assert after.fvu < 0.85 * before["fvu"]
    four, sixteen = validations[-1].at
    assert (four.k, sixteen.k) == (4, 16) and four.recall < sixteen.recall

    assert (encoder.k, encoder.h, encoder.d) == (16, 256, 64)
    assert encoder.info["validations"] == [each.to_json() for each in validations]
    assert encoder.info["steps"] == 60 and encoder.info["seconds"] > 0
    assert encoder.info["training"]["batch_size"] == 128
    assert encoder.encode(x[:100]).lengths.tolist() == [16] * 100


def test_recall_on_vectors_that_were_never_seen() -> None:
    x, _ = clustered()
    documents, _ = clustered(1500, seed=1)
    queries, _ = clustered(150, seed=2)
    near = np.argsort(-(unit(queries) @ unit(documents).T), axis=1)[:, :10]

    def recall(encoder: Encoder) -> float:
        scores = cosines(encoder.encode(queries), encoder.encode(documents))
        found = np.argsort(-scores, axis=1)[:, :10]
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(near, found, strict=True)]))

    untrained = Autoencoder(64, 256, torch.Generator().manual_seed(0)).to_encoder(k=16)
    assert recall(fit(x, config(lr=0.02, steps=200), device="cpu")) > recall(untrained) + 0.1


def test_a_seed_decides_everything() -> None:
    x, labels = clustered(400)
    for given in (None, labels):
        one, same = (fit(x, config(steps=12), labels=given, device="cpu") for _ in range(2))
        other = fit(x, config(steps=12, seed=1), labels=given, device="cpu")
        assert one.fingerprint == same.fingerprint != other.fingerprint
        assert one.info["validations"] == same.info["validations"]


def test_the_arguments_stay_as_they_are() -> None:
    x, labels = clustered(300)
    x_before, labels_before = x.copy(), labels.copy()
    info = {"embedder": "mine"}
    encoder = fit(x, small(), labels=labels, info=info, device="cpu")
    assert np.array_equal(x, x_before) and np.array_equal(labels, labels_before)
    assert info == {"embedder": "mine"} and encoder.embedder == "mine"


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_scale_of_vectors_does_not_matter(scale: float) -> None:
    x, _ = clustered(400)
    plain = fit(x, small(steps=20), device="cpu").encode(x)
    scaled = fit(x * np.float32(scale), small(steps=20), device="cpu").encode(x * np.float32(scale))
    rows = (plain.indptr == scaled.indptr).all() and plain.indices == scaled.indices
    assert np.mean(rows) > 0.99
    ratio = scaled.normalised().to_dense() - plain.normalised().to_dense()
    assert np.median(np.abs(ratio).max(1)) < 1e-3


def with_bias_below_zero(monkeypatch: pytest.MonkeyPatch, bias: float) -> None:
    """Let every second latent of a new model start far below the others."""
    original = Autoencoder.__init__

    def init(self: Autoencoder, d: int, h: int, generator: Any = None) -> None:
        original(self, d, h, generator)
        with torch.no_grad():
            self.latent_bias[::2] = bias

    monkeypatch.setattr(Autoencoder, "__init__", init)


def test_dead_latents_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = clustered()
    with_bias_below_zero(monkeypatch, -1.0)
    settings: dict[str, Any] = {"steps": 80, "lr": 0.02, "dead_after": 4, **RANDOM}
    revived = fit(x, config(**settings), device="cpu").info["validations"]
    left = fit(x, config(**settings, aux=0.0), device="cpu").info["validations"]
    assert left[-1]["dead"] > 0.45
    assert revived[-1]["dead"] < 0.2


def test_latents_far_from_life_do_not_harm_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = clustered()
    with_bias_below_zero(monkeypatch, -10.0)
    settings: dict[str, Any] = {"steps": 60, "lr": 0.02, "dead_after": 4, **RANDOM}
    with_aux = fit(x, config(**settings), device="cpu").info["validations"][-1]["at"][1]
    without = fit(x, config(**settings, aux=0.0), device="cpu").info["validations"][-1]["at"][1]
    assert with_aux["recall"] > without["recall"] - 0.05


def test_a_k_given_twice_is_measured_once() -> None:
    x, _ = clustered(100)
    measured = fit(x, small(k=(4, 2, 4), held_out=10), device="cpu").info["validations"][-1]
    assert [at["k"] for at in measured["at"]] == [2, 4]


def test_k_anneals_to_the_k_that_was_asked_for() -> None:
    x, _ = clustered(600)
    encoder = fit(x, config(k=(4,), k_anneal=32, steps=30), device="cpu")
    assert encoder.k == 4
    assert encoder.info["validations"][-1]["at"][0]["k"] == 4
    plain = fit(x, config(k=(4,), steps=30), device="cpu")
    assert plain.fingerprint != encoder.fingerprint


def test_dead_latents_are_counted_by_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = clustered(400)
    with_bias_below_zero(monkeypatch, -100.0)
    reports: list[StepReport] = []
    settings: dict[str, Any] = {
        "steps": 21,
        "dead_after": 15,
        "aux": 0.0,
        "k": (32,),
        "multi_k": 0.0,
        **RANDOM,
    }
    encoder = fit(x, small(**settings), listeners=Listeners(reports.append), device="cpu")
    assert [report.dead for report in reports] == [0, 0, 16]
    assert encoder.steps_since_active is not None
    assert encoder.steps_since_active[::2].tolist() == [21] * 16
    assert encoder.steps_since_active[1::2].max() < 10


# --- budgets ------------------------------------------------------------------------------


def test_minutes_end_about_on_time() -> None:
    x, _ = clustered(600)
    reports: list[StepReport] = []
    fit(x, small(), device="cpu")  # whatever is loaded lazily is loaded now
    start = time.perf_counter()
    encoder = fit(x, small(minutes=0.02), listeners=Listeners(reports.append), device="cpu")
    taken = time.perf_counter() - start
    assert 1.2 <= encoder.info["seconds"] <= taken + 0.1
    assert taken < 4
    assert encoder.info["steps"] > 20
    progress = [report.progress for report in reports]
    assert progress == sorted(progress) and progress[0] < 0.2 and progress[-1] > 0.6


def test_an_adapter_leaves_half_of_the_minutes() -> None:
    x = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32)
    pairs = Pairs.of(x[:50], np.arange(50), np.arange(50))
    encoder = fit(x, small(minutes=0.05, adapter_steps=10**6), pairs=pairs, device="cpu")
    assert encoder.info["steps"] > 0 and encoder.info["seconds"] < 3 * 0.05 * 60


def test_preparing_counts_and_may_take_all_the_minutes() -> None:
    x, _ = clustered(300)
    pairs = Pairs.of(x[:50], np.arange(50), np.arange(50))
    with pytest.raises(CsrError, match="preparing took all of the 1e-09 minutes"):
        fit(x, small(minutes=1e-9, adapter_steps=50), pairs=pairs, device="cpu")


# --- shapes and kinds of data -------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 9, 10, 15, 17, 33])
def test_any_number_of_rows_trains(n: int) -> None:
    x, _ = clustered(n, d=8)
    encoder = fit(x, small(held_out=5), device="cpu")
    assert len(encoder.info["validations"]) == (1 if n >= 10 else 0)
    assert encoder.encode(x).h == 32


def test_equal_rows_train() -> None:
    x = np.ones((40, 8), np.float32)
    encoder = fit(x, small(held_out=4, dead_after=1), device="cpu")
    assert encoder.info["validations"][-1]["at"][0]["recall"] == 1.0


def test_without_held_out_rows_nothing_is_validated() -> None:
    called: list[Validation] = []
    x, _ = clustered(200)
    encoder = fit(x, small(), listeners=Listeners(on_validation=called.append), device="cpu")
    assert called == [] and encoder.info["validations"] == []


def test_a_float16_memory_map_trains_as_its_values_do(tmp_path: Path) -> None:
    x = clustered(500)[0].astype(np.float16)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    one = fit(mapped, small(held_out=20), device="cpu")
    same = fit(x.astype(np.float64), small(held_out=20), device="cpu")
    assert one.fingerprint == same.fingerprint


def test_lists_train_too() -> None:
    x = clustered(50, d=4)[0]
    listed: Any = x.tolist()
    one = fit(listed, small(), device="cpu")
    assert one.fingerprint == fit(x.astype(np.float64), small(), device="cpu").fingerprint


@pytest.mark.parametrize(("value", "fault"), [(np.nan, "holds NaN"), (0.0, "is all zeros")])
def test_bad_rows_are_named_before_training(value: float, fault: str) -> None:
    x, _ = clustered(300)
    x[123] = value
    reports: list[StepReport] = []
    with pytest.raises(CsrError, match=f"row 123 of the training vectors {fault}"):
        fit(x, small(), listeners=Listeners(reports.append), device="cpu")
    assert not reports


def test_bad_rows_of_large_data_are_named_when_they_are_met(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("csr_qdrant.trainer.data.CHECKED_BYTES", 0)
    monkeypatch.setattr("csr_qdrant.trainer.data.SAMPLED_ROWS", 10)
    x, _ = clustered(300)
    x[123] = np.inf
    with pytest.raises(CsrError, match="row 123 of the training vectors holds NaN or infinity"):
        fit(x, small(steps=100), device="cpu")


@pytest.mark.slow
def test_memory_maps_are_not_read_whole_into_memory(tmp_path: Path) -> None:
    code = """
import re, sys, threading, time
from pathlib import Path
import numpy as np, torch
from csr_qdrant.trainer import TrainConfig, fit

torch.set_num_threads(1)
def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
def settings(**more):
    return TrainConfig(k=(4,), h=64, steps=20, batch_size=256, held_out=50, **more)
small = np.random.default_rng(0).standard_normal((30_000, 256))
fit(small, settings(), labels=np.arange(30_000) % 1000, device="cpu")
x = np.load(sys.argv[1], mmap_mode="r")
labels = np.arange(len(x)) % 1000
before, peak, over = anonymous(), [0.0], threading.Event()
def watch():
    while not over.wait(0.005):
        peak[0] = max(peak[0], anonymous())
watcher = threading.Thread(target=watch)
watcher.start()
fit(x, settings(), labels=labels, device="cpu")
over.set()
watcher.join()
print(peak[0] - before)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    path = tmp_path / "x.npy"
    block = np.random.default_rng(0).standard_normal((5000, 256)).astype(np.float16)
    mapped = np.lib.format.open_memmap(path, "w+", np.float16, (1_000_000, 256))
    for start in range(0, len(mapped), len(block)):
        mapped[start : start + len(block)] = block
    del mapped
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    growth_mb = float(run.stdout)
    assert growth_mb < 300  # the file holds 488 MB, its values as float32 take 977


# --- refusing and failing -----------------------------------------------------------------


def test_settings_that_do_not_fit_the_vectors_are_refused() -> None:
    x, _ = clustered(50)
    with pytest.raises(
        ConfigError, match=r"k must be in 1\.\.32 \(the number of latents\), got 40"
    ):
        small(k=(8, 40))
    with pytest.raises(ConfigError, match="device 'cuda:77' cannot be used"):
        fit(x, small(), device="cuda:77")
    with pytest.raises(CsrError, match="must have shape"):
        fit(x[0], small(), device="cpu")


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_diverging_run_is_stopped_and_never_kept(checkpoint: bool, tmp_path: Path) -> None:
    x, _ = clustered(300)
    path = tmp_path / "run" if checkpoint else None
    wild = small(lr=1e38, steps=8, warmup=0.0, checkpoint_seconds=0)
    with pytest.raises(
        CsrError, match=r"training diverged: the loss is not finite at step \d+; lo"
    ):
        fit(x, wild, checkpoint=path, device="cpu")
    if path is not None:
        from safetensors.numpy import load_file

        assert all(np.isfinite(value).all() for value in load_file(path).values())


def test_too_little_memory_is_told_with_what_needs_it() -> None:
    x, _ = clustered(50)
    sentence = f"memory does not suffice for h={2**42} latents and batches of 16 rows: lower h or b"
    with pytest.raises(CsrError, match=sentence):
        fit(x, small(h=2**42), device="cpu")


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt()])
def test_errors_of_listeners_come_through_and_end_the_reading_thread(error: BaseException) -> None:
    import threading

    def fail(_: object) -> None:
        raise error

    x, _ = clustered(200)
    with pytest.raises(type(error)):
        fit(x, small(), listeners=Listeners(on_step=fail), device="cpu")
    assert not [t for t in threading.enumerate() if t.name.startswith("batches")]


@pytest.mark.parametrize("name", ["fit", "Listeners", "Validation"])
def test_without_torch_the_extra_is_named(name: str) -> None:
    code = f"""
import sys
sys.modules["torch"] = None
from csr_qdrant.errors import MissingExtraError
from csr_qdrant.trainer import TrainConfig
assert TrainConfig().k
try:
    from csr_qdrant.trainer import {name}
except MissingExtraError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == (
        "torch is not installed: run `pip install 'csr-qdrant[train]'` and try again\n"
    )


@pytest.mark.gpu
def test_a_gpu_learns_what_a_cpu_learns() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    x, labels = clustered()
    for given in (None, labels):
        on = {d: fit(x, config(), labels=given, device=d) for d in ("cpu", "cuda")}
        at = {d: encoder.info["validations"][-1]["at"] for d, encoder in on.items()}
        for cpu, gpu in zip(at["cpu"], at["cuda"], strict=True):
            assert gpu["recall"] == pytest.approx(cpu["recall"], abs=0.03)
            assert gpu["fvu"] == pytest.approx(cpu["fvu"], rel=0.03)
        # The same seed draws the same weights and rows: codes agree but for rounding that grew.
        codes = {d: encoder.encode(x, device="cpu").normalised() for d, encoder in on.items()}
        same = (codes["cpu"].to_dense() * codes["cuda"].to_dense()).sum(1)
        assert np.median(same) > 0.95
