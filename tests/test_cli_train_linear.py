"""`csr train --method mrl` and `--method adapter`: the same as `fit_linear`, from any source."""

import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from csr_qdrant.cli.method import MethodSettings
from csr_qdrant.encoder import Encoder
from csr_qdrant.linear import LinearAdapter
from csr_qdrant.trainer import Pairs, TrainConfig
from csr_qdrant.trainer.linear import fit_linear
from csr_qdrant.trainer.linear_config import LinearConfig

Csr = Callable[..., Any]

RNG = np.random.default_rng(0)
X = (
    RNG.normal(size=(20, 16))[RNG.integers(20, size=300)] + 0.3 * RNG.normal(size=(300, 16))
).astype(np.float32)
LABELS = np.arange(300) % 7
OPTIONS = ("--steps", 20, "--held-out", 20, "--batch-size", 64, "--device", "cpu")
MRL = ("--method", "mrl", *OPTIONS)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the runs here are too small for more
    yield
    torch.set_num_threads(threads)


def fitted(config: dict[str, Any], **supervision: Any) -> LinearAdapter:
    settings = LinearConfig(**{"steps": 20, "held_out": 20, "batch_size": 64, **config})
    return fit_linear(X, settings, device="cpu", **supervision)


def assert_same(folder: str, expected: LinearAdapter) -> None:
    got = LinearAdapter.load(folder)
    assert (got.fingerprint, got.dims) == (expected.fingerprint, expected.dims)
    assert got.info["training"] == json.loads(json.dumps(expected.info["training"]))


# --- the plain case ---------------------------------------------------------------------------


def test_mrl_is_fit_linear_with_the_same_settings(csr: Csr) -> None:
    np.save("x.npy", X)
    more = ("--dims", "4,16", "--seed", 3, "--lr", 0.01, "--temperature", 0.2)
    ran = csr("train", "x.npy", "-o", "a", *MRL, *more)
    assert ran.exit_code == 0, ran.stderr
    expected = fitted({"dims": (4, 16), "seed": 3, "lr": 0.01, "temperature": 0.2})
    assert_same("a", expected)
    assert sorted(path.name for path in Path().iterdir()) == ["a", "x.npy"]
    before, after = (v["at"] for v in expected.info["validations"])
    for first, last in zip(before, after, strict=True):
        assert any(
            line.split() == [f"{last['dims']}", f"{last['recall']:.3f}", f"{first['recall']:.3f}"]
            for line in ran.stdout.splitlines()
        )
    assert ran.stdout.splitlines()[-1].startswith("wrote a: d=16, dims=4, 16, 20 steps in ")


def test_the_json_holds_the_measures_of_the_run(csr: Csr) -> None:
    np.save("x.npy", X)
    told = csr("train", "x.npy", "-o", "a", *MRL, "--embedder", "wordllama", "--json", "-q")
    assert told.stderr == ""
    expected = fitted({})
    got = told.json
    assert got.pop("seconds") >= 0
    assert got == {
        "folder": "a",
        "method": "mrl",
        "fingerprint": expected.fingerprint,
        "d": 16,
        "dims": [8, 16],
        "embedder": "wordllama",
        "data": {"source": "x.npy", "rows": 300},
        "steps": 20,
        "training": json.loads(json.dumps(expected.info["training"])),
        "validations": expected.info["validations"],
    }
    assert LinearAdapter.load("a").info["embedder"] == "wordllama"


def test_settings_come_from_a_file_and_the_environment(
    csr: Csr, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save("x.npy", X)
    Path("csr.toml").write_text('[train]\nmethod = "mrl"\nsteps = 20\nheld_out = 20\ndims = [4]')
    monkeypatch.setenv("CSR_TRAIN_BATCH_SIZE", "64")
    ran = csr("train", "x.npy", "-o", "a", "--config", "csr.toml", "--seed", 5, "--device", "cpu")
    assert ran.exit_code == 0, ran.stderr
    assert_same("a", fitted({"dims": (4,), "seed": 5}))


def test_defaults_are_those_of_linear_config(csr: Csr) -> None:
    np.save("x.npy", X)
    plan = csr("train", "x.npy", "-o", "a", "--method", "mrl", "--dry-run", "--json").json
    assert plan == {
        "dry_run": True,
        "method": "mrl",
        "source": "x.npy",
        "kind": "vectors",
        "rows": 300,
        "d": 16,
        "dims": [8, 16],
        "steps": LinearConfig().steps,
        "minutes": None,
        "working_bytes": 0,
        "supervision": None,
        "folder": "a",
    }
    ran = csr("train", "x.npy", "-o", "a", "--method", "mrl", "--dry-run", "--minutes", 2)
    assert "for 2 minutes, dims = 8, 16, and write a" in ran.stdout
    assert [path.name for path in Path().iterdir()] == ["x.npy"]


def test_csr_stays_the_default(csr: Csr) -> None:
    np.save("x.npy", X)
    options = (*OPTIONS, "--h", 64, "--k", 8)
    assert csr("train", "x.npy", "-o", "a", *options).exit_code == 0
    assert csr("train", "x.npy", "-o", "b", "--method", "csr", *options).exit_code == 0
    assert Encoder.load("a").fingerprint == Encoder.load("b").fingerprint


def test_an_existing_output_is_kept_unless_told_otherwise(csr: Csr) -> None:
    np.save("x.npy", X)
    Path("a").mkdir()
    ran = csr("train", "x.npy", "-o", "a", *MRL)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert ran.stderr.startswith("Error: a already exists")
    assert csr("train", "x.npy", "-o", "a", *MRL, "--overwrite").exit_code == 0
    assert_same("a", fitted({}))


# --- supervision and sources ------------------------------------------------------------------


def test_labels_from_a_file_and_from_a_field(csr: Csr) -> None:
    np.save("x.npy", X)
    np.save("y.npy", LABELS)
    rows = [{"id": i, "vector": X[i].tolist(), "kind": f"k{LABELS[i]}"} for i in range(300)]
    Path("x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = fitted({}, labels=LABELS)
    ran = csr("train", "x.npy", "-o", "a", *MRL, "--labels", "y.npy")
    assert "1-NN accuracy" in ran.stdout
    told = csr("train", "x.jsonl", "-o", "b", *MRL, "--labels", "kind", "--json").json
    assert told["data"] == {"source": "x.jsonl", "rows": 300, "labels": 300}
    assert told["validations"] == expected.info["validations"]
    assert_same("a", expected)
    assert_same("b", expected)
    assert not list(Path().glob("*.partial"))


@pytest.mark.parametrize("method", ["mrl", "adapter"])
def test_pairs_over_two_vector_files(csr: Csr, method: str) -> None:
    queries = X[:40] + np.float32(0.05)
    np.save("x.npy", X)
    np.save("q.npy", queries)
    lines = [f"{i}\t{i + shift}\t{1 + shift}" for i in range(40) for shift in (0, 1)]
    Path("p.tsv").write_text("query-id\tdoc-id\tscore\n" + "\n".join(lines) + "\n")
    files = ("--pairs", "p.tsv", "--queries", "q.npy")
    ran = csr("train", "x.npy", "-o", "a", "--method", method, *OPTIONS, *files)
    assert "loss of pairs" in ran.stdout, ran.stderr
    q = np.repeat(np.arange(40), 2)
    judged = Pairs.of(queries, q, q + np.tile([0, 1], 40), np.tile([1, 2], 40))
    assert_same("a", fitted({"method": method}, pairs=judged))
    assert LinearAdapter.load("a").info["data"]["pairs"] == 80


def test_texts_are_embedded_and_the_spill_is_removed(csr: Csr) -> None:
    from csr_qdrant.embedders import load_embedder

    texts = [f"{a} {b}" for a in ("red", "old", "wise") for b in ("man", "king", "gate", "oil")]
    rows = [{"id": i, "text": text} for i, text in enumerate(texts)]
    Path("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan = csr("train", "t.jsonl", "-o", "a", *MRL, "--embedder", "wordllama:64", "--dry-run")
    assert "12 rows of 64 dimensions (texts of t.jsonl) for 20 steps" in plan.stdout
    ran = csr("train", "t.jsonl", "-o", "a", *MRL, "--embedder", "wordllama:64")
    assert ran.exit_code == 0, ran.stderr
    dense = load_embedder("wordllama:64").embed_documents(texts)
    config = LinearConfig(steps=20, held_out=20, batch_size=64)
    assert_same("a", fit_linear(dense, config, device="cpu"))
    assert sorted(path.name for path in Path().iterdir()) == ["a", "t.jsonl"]


# --- refusals ---------------------------------------------------------------------------------


def test_every_setting_is_taken_or_refused_by_name() -> None:
    given = {each.name for each in fields(MethodSettings)}
    assert given == {f.name for cls in (TrainConfig, LinearConfig) for f in fields(cls)}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--method", "mrl", "--k", 8), "--method mrl does not take --k: leave it out"),
        (
            ("--method", "adapter", "--h", 64, "--preset", "csrv2"),
            "--method adapter does not take --h, --preset: leave them out",
        ),
        (("--dims", 8), "--method csr does not take --dims: leave it out"),
        (("--temperature", 0.1), "--method csr does not take --temperature"),
        (("--method", "mrl", "--tensorboard", "tb"), "--method mrl does not take --tensorboard"),
        (("--method", "adapter", "--dims", 8), "dims are for mrl"),
        (("--method", "adapter"), "an adapter learns from labels or pairs"),
        (("--method", "mrl", "--dims", "8,17"), "dims must be rising numbers in 1..16"),
        (("--method", "mrl", "--steps", 0), "steps must be at least 1, got 0"),
        (("--method", "pca"), "--method must be one of csr, mrl, adapter, got 'pca'"),
    ],
)
def test_options_that_do_not_apply_are_refused(
    csr: Csr, options: tuple[Any, ...], sentence: str
) -> None:
    np.save("x.npy", X)
    ran = csr("train", "x.npy", "-o", "a", *options)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert sentence in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["x.npy"]


def test_a_variable_that_does_not_apply_is_refused(
    csr: Csr, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save("x.npy", X)
    monkeypatch.setenv("CSR_TRAIN_K_AUX", "64")
    ran = csr("train", "x.npy", "-o", "a", *MRL)
    assert (ran.exit_code, "does not take --k-aux" in ran.stderr) == (2, True)


def test_an_interrupted_run_of_the_other_method_is_not_lost(csr: Csr) -> None:
    np.save("x.npy", X)
    Path("a.partial").mkdir()
    Path("a.partial/checkpoint.safetensors").write_bytes(b"days of work")
    ran = csr("train", "x.npy", "-o", "a", *MRL)
    assert ran.exit_code == 2
    assert "a.partial holds an interrupted run of --method csr" in ran.stderr
    assert Path("a.partial/checkpoint.safetensors").read_bytes() == b"days of work"
    assert csr("train", "x.npy", "-o", "a", *MRL, "--restart").exit_code == 0
    assert not Path("a.partial").exists()
    assert_same("a", fitted({}))


def test_an_interrupted_run_writes_nothing(csr: Csr, monkeypatch: pytest.MonkeyPatch) -> None:
    from csr_qdrant.trainer.linear import Run

    def interrupt(self: Run, batch: Any, progress: float) -> Any:
        raise KeyboardInterrupt

    np.save("x.npy", X)
    monkeypatch.setattr(Run, "update", interrupt)
    assert csr("train", "x.npy", "-o", "a", *MRL).exit_code == 130
    assert [path.name for path in Path().iterdir()] == ["x.npy"]
