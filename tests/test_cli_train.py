"""`csr train`: the same as `fit`, from any source, resumable, with supervision."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from csr_qdrant.cli.watch import Watch
from csr_qdrant.encoder import Encoder
from csr_qdrant.trainer import Pairs, TrainConfig, fit

Csr = Callable[..., Any]

RNG = np.random.default_rng(0)
X = (
    RNG.normal(size=(20, 16))[RNG.integers(20, size=300)] + 0.3 * RNG.normal(size=(300, 16))
).astype(np.float32)
OPTIONS = ("--steps", 20, "--h", 64, "--held-out", 20, "--batch-size", 64, "--validate-every", 10)
CONFIG = {"steps": 20, "h": 64, "held_out": 20, "batch_size": 64, "validate_every": 10}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the runs here are too small for more
    yield
    torch.set_num_threads(threads)


def trained(**changes: Any) -> TrainConfig:
    return TrainConfig(**{**CONFIG, **changes})


def assert_same(folder: Path | str, expected: Encoder) -> None:
    got = Encoder.load(folder)
    np.testing.assert_array_equal(got.weight, expected.weight)
    np.testing.assert_array_equal(got.latent_bias, expected.latent_bias)
    np.testing.assert_array_equal(got.pre_bias, expected.pre_bias)
    assert got.k == expected.k


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# --- the plain case ---------------------------------------------------------------------------


def test_train_is_fit_with_the_same_settings(csr: Csr) -> None:
    np.save("x.npy", X)
    ran = csr("train", "x.npy", "-o", "enc", *OPTIONS, "--k", 8, "--seed", 3)
    assert ran.exit_code == 0, ran.stderr
    assert_same("enc", fit(X, trained(k=(8,), seed=3)))
    assert not Path("enc.partial").exists()


def test_the_table_and_the_json_hold_the_measures_of_the_run(csr: Csr) -> None:
    np.save("x.npy", X)
    ran = csr("train", "x.npy", "-o", "enc", *OPTIONS, "--k", "4,8", "--embedder", "wordllama")
    expected = fit(X, trained(k=(4, 8))).info["validations"]
    assert [f"{at['recall']:.3f}" in ran.stdout for at in expected[-1]["at"]] == [True, True]
    assert "wrote enc: d=16, h=64, k=4, 8, 20 steps" in ran.stdout
    assert ran.stderr.count("recall@10") == 2 * 2  # validations × k
    told = csr("train", "x.npy", "-o", "enc2", *OPTIONS, "--k", "4,8", "--json", "-q")
    assert told.stderr == ""
    assert told.json["validations"] == expected
    assert told.json["fingerprint"] == Encoder.load("enc").fingerprint
    assert told.json["data"] == {"source": "x.npy", "rows": 300}
    assert told.json["embedder"] is None
    assert Encoder.load("enc").embedder == "wordllama"


def test_settings_come_from_a_file_and_the_environment(
    csr: Csr, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save("x.npy", X)
    lines = [f"{name} = {value}" for name, value in CONFIG.items()]
    Path("csr.toml").write_text("\n".join(["[train]", *lines, "k = [4]"]))
    monkeypatch.setenv("CSR_TRAIN_SEED", "5")
    ran = csr("train", "x.npy", "-o", "enc", "--config", "csr.toml", "--k", 8)
    assert ran.exit_code == 0, ran.stderr
    assert_same("enc", fit(X, trained(k=(8,), seed=5)))


def test_a_dry_run_tells_the_plan_and_writes_nothing(csr: Csr) -> None:
    np.save("x.npy", X)
    plan = csr("train", "x.npy", "-o", "enc", *OPTIONS, "--k", 8, "--dry-run", "--json").json
    assert (plan["rows"], plan["d"], plan["h"], plan["k"]) == (300, 16, 64, [8])
    assert plan["continues"] is False
    assert [path.name for path in Path().iterdir()] == ["x.npy"]


def test_an_existing_output_is_kept_unless_told_otherwise(csr: Csr) -> None:
    np.save("x.npy", X)
    Path("enc").mkdir()
    ran = csr("train", "x.npy", "-o", "enc", *OPTIONS)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert ran.stderr.startswith("Error: enc already exists")
    assert csr("train", "x.npy", "-o", "enc", *OPTIONS, "--k", 8, "--overwrite").exit_code == 0
    assert Encoder.load("enc").k == 8


# --- interrupted runs -------------------------------------------------------------------------


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Interrupt the first run after its eleventh step."""
    follow = Watch._step
    raised: list[int] = []

    def step(self: Watch, report: Any) -> None:
        follow(self, report)
        if report.step > 10 and not raised:
            raised.append(report.step)
            raise KeyboardInterrupt

    monkeypatch.setattr(Watch, "_step", step)
    yield
    assert raised == [11]


def test_an_interrupted_run_goes_on_where_it_stopped(csr: Csr, interrupted: None) -> None:
    np.savez("x.npz", vectors=X)
    command = ("train", "x.npz", "-o", "enc", *OPTIONS, "--k", 8, "--checkpoint-seconds", 0)
    stopped = csr(*command)
    assert stopped.exit_code == 130
    assert "give the same command again" in stopped.stderr
    assert not Path("enc").exists()
    plan = csr(*command, "--dry-run", "--json").json
    assert plan["continues"] is True
    ended = csr(*command)
    assert "continuing the run in enc.partial" in ended.stderr
    assert_same("enc", fit(X, trained(k=(8,), checkpoint_seconds=0)))
    assert not Path("enc.partial").exists()


def test_other_settings_do_not_continue_a_run_but_restart_does(csr: Csr, interrupted: None) -> None:
    np.save("x.npy", X)
    command = ("train", "x.npy", "-o", "enc", *OPTIONS, "--checkpoint-seconds", 0, "--k")
    assert csr(*command, 8).exit_code == 130
    refused = csr(*command, 4)
    assert refused.exit_code == 1
    assert "belongs to a run with other settings or data" in refused.stderr
    assert csr(*command, 4, "--restart").exit_code == 0
    assert_same("enc", fit(X, trained(k=(4,), checkpoint_seconds=0)))


@pytest.mark.slow
def test_a_killed_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    command = [sys.executable, "-c", "from csr_qdrant.cli.main import main; main()", "train"]
    command += ["x.npy", "--steps", "400", "--h", "64", "--k", "8", "--checkpoint-seconds", "0.1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen([*command, "-o", "enc"], cwd=tmp_path, env=environment) as process:
        checkpoint = tmp_path / "enc.partial" / "checkpoint.safetensors"
        while not checkpoint.exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "enc").exists()
    for output in ("enc", "whole"):
        subprocess.run([*command, "-o", output], cwd=tmp_path, env=environment, check=True)
    assert_same(tmp_path / "enc", Encoder.load(tmp_path / "whole"))


# --- other sources ----------------------------------------------------------------------------


def test_vectors_of_json_lines_are_spilled_and_the_spill_is_removed(csr: Csr) -> None:
    rows = [{"id": f"r{i}", "vector": row.tolist()} for i, row in enumerate(X)]
    write_jsonl(Path("x.jsonl"), rows)
    ran = csr("train", "x.jsonl", "-o", "enc", *OPTIONS, "--k", 8)
    assert ran.exit_code == 0, ran.stderr
    assert_same("enc", fit(X, trained(k=(8,))))
    assert sorted(path.name for path in Path().iterdir()) == ["enc", "x.jsonl"]


def test_texts_are_embedded_and_the_embedder_is_remembered(csr: Csr) -> None:
    from csr_qdrant.embedders import load_embedder

    texts = [f"{a} {b}" for a in ADJECTIVES for b in _NOUNS]
    write_jsonl(Path("t.jsonl"), [{"id": i, "text": text} for i, text in enumerate(texts)])
    refused = csr("train", "t.jsonl", "-o", "enc", *OPTIONS)
    assert (refused.exit_code, "pass --embedder" in refused.stderr) == (2, True)
    ran = csr("train", "t.jsonl", "-o", "enc", *OPTIONS, "--k", 8, "--embedder", "wordllama:64")
    assert ran.exit_code == 0, ran.stderr
    dense = load_embedder("wordllama:64").embed_documents(texts)
    assert_same("enc", fit(dense, trained(k=(8,))))
    assert Encoder.load("enc").embedder == "wordllama:64"


ADJECTIVES = ("red", "blue", "old", "wise", "cold", "far", "kind", "small")
_NOUNS = ["man", "house", "river", "king", "bread", "lamb", "stone", "vine", "gate", "oil"]


# --- supervision ------------------------------------------------------------------------------

LABELS = np.arange(300) % 7


def test_labels_from_a_file_and_from_a_field(csr: Csr) -> None:
    np.save("x.npy", X)
    np.save("y.npy", LABELS)
    rows = [
        {"id": i, "vector": row.tolist(), "kind": f"kind {label}"}
        for i, (row, label) in enumerate(zip(X, LABELS, strict=True))
    ]
    write_jsonl(Path("x.jsonl"), rows)
    expected = fit(X, trained(k=(8,)), labels=LABELS)
    assert csr("train", "x.npy", "-o", "a", *OPTIONS, "--k", 8, "--labels", "y.npy").exit_code == 0
    ran = csr("train", "x.jsonl", "-o", "b", *OPTIONS, "--k", 8, "--labels", "kind", "--json")
    assert ran.json["data"] == {"source": "x.jsonl", "rows": 300, "labels": 300}
    assert_same("a", expected)
    assert_same("b", expected)
    assert not np.array_equal(expected.weight, fit(X, trained(k=(8,))).weight)


def test_pairs_over_two_vector_files_with_ids(csr: Csr) -> None:
    queries = X[[3, 50, 120, 200]] + np.float32(0.05)
    np.save("x.npy", X)
    np.save("q.npy", queries)
    Path("x.txt").write_text("".join(f"d{i}\n" for i in range(300)))
    Path("q.txt").write_text("a\nb\nc\nunasked\n")
    pairs = "query-id\tdoc-id\tscore\nc\td120\t1\na\td3\t1\nb\td50\t2\na\td4\t1\nunasked\td9\t0\n"
    Path("p.tsv").write_text(pairs)
    files = ("--ids", "x.txt", "--pairs", "p.tsv", "--queries", "q.npy", "--query-ids", "q.txt")
    options = (*OPTIONS, "--k", 8, "--adapter-steps", 5)
    ran = csr("train", "x.npy", "-o", "enc", *options, *files, "--json")
    assert ran.json["data"] == {"source": "x.npy", "rows": 300, "pairs": 4, "queries": 3}
    assert ran.json["adapter"] is True
    judged = Pairs.of(queries[:3], [2, 0, 1, 0], [120, 3, 50, 4], [1, 1, 2, 1])
    assert_same("enc", fit(X, trained(k=(8,), adapter_steps=5), pairs=judged))


def _beir(folder: Path) -> Path:
    write_jsonl(folder / "corpus.jsonl", [{"_id": f"d{i}", "text": t} for i, t in enumerate(TEXTS)])
    asked = [{"_id": f"q{i}", "text": noun} for i, noun in enumerate(_NOUNS)]
    write_jsonl(folder / "queries.jsonl", asked)
    (folder / "qrels").mkdir()
    lines = ["query-id\tcorpus-id\tscore", *(f"q{i}\td{i}\t1" for i in range(5))]
    (folder / "qrels" / "train.tsv").write_text("\n".join(lines) + "\n")
    return folder


TEXTS = [f"the {a} {b}" for b in _NOUNS for a in ADJECTIVES]


def test_pairs_of_a_split_use_only_the_queries_that_it_judges(csr: Csr) -> None:
    from csr_qdrant.embedders import load_embedder

    _beir(Path("beir"))
    options = (*OPTIONS, "--k", 8, "--adapter-steps", 5, "--embedder", "wordllama:64")
    ran = csr("train", "beir", "-o", "enc", *options, "--pairs", "train")
    assert ran.exit_code == 0, ran.stderr
    embedder = load_embedder("wordllama:64")
    documents, asked = embedder.embed_documents(TEXTS), embedder.embed_queries(_NOUNS[:5])
    judged = Pairs.of(asked, np.arange(5), np.arange(5))
    assert_same("enc", fit(documents, trained(k=(8,), adapter_steps=5), pairs=judged))


def test_pairs_with_unknown_ids_are_refused_with_counts_and_an_example(csr: Csr) -> None:
    folder = _beir(Path("beir"))
    options = (*OPTIONS, "--embedder", "wordllama:64", "--pairs")
    with (folder / "qrels" / "train.tsv").open("a") as file:
        file.write("q1\tnowhere\t1\nq1\tneither\t1\n")
    refused = csr("train", "beir", "-o", "enc", *options, "train")
    assert refused.exit_code == 1
    assert (
        "names documents that beir/corpus.jsonl does not hold (2 of 7, 'neither' for"
        in refused.stderr
    )
    Path("p.tsv").write_text("q1\td1\t1\nq99\td2\t1\n")
    refused = csr("train", "beir", "-o", "enc", *options, "p.tsv")
    assert (
        "names queries that beir/queries.jsonl does not hold (1 of 2, 'q99' for" in refused.stderr
    )
    refused = csr("train", "beir", "-o", "enc", *options, "dev")
    assert "beir has no pairs 'dev' (found: train)" in refused.stderr
    assert sorted(path.name for path in Path().iterdir()) == ["beir", "p.tsv"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--labels", "short.npy"), "short.npy must hold one label a row: x.npy has 300 rows"),
        (("--labels", "kind"), "x.npy has no fields, so no 'kind'"),
        (("--labels", "y.npy", "--pairs", "p.tsv"), "choose --labels or --pairs"),
        (("--pairs", "p.tsv"), "pass --queries"),
        (("--queries", "x.npy"), "--queries needs --pairs"),
        (("--pairs", "none.tsv", "--queries", "x.npy"), "none.tsv does not exist"),
        (("--pairs", "zero.tsv", "--queries", "x.npy"), "no pair with a score above 0"),
    ],
)
def test_supervision_that_does_not_fit_is_refused(
    csr: Csr, options: tuple[str, ...], sentence: str
) -> None:
    np.save("x.npy", X)
    np.save("short.npy", LABELS[:9])
    np.save("y.npy", LABELS)
    Path("p.tsv").write_text("0\t1\t1\n")
    Path("zero.tsv").write_text("0\t1\t0\n")
    ran = csr("train", "x.npy", "-o", "enc", *OPTIONS, *options)
    assert ran.exit_code in (1, 2)
    assert sentence in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert not any(path.is_dir() for path in Path().iterdir())


# --- TensorBoard ------------------------------------------------------------------------------


def test_tensorboard_holds_the_losses_and_the_validations(csr: Csr) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    np.save("x.npy", X)
    ran = csr("train", "x.npy", "-o", "enc", *OPTIONS, "--k", 8, "--tensorboard", "tb", "--json")
    events = EventAccumulator("tb")
    events.Reload()
    recall = [(e.step, e.value) for e in events.Scalars("recall/k=8")]
    validations = ran.json["validations"]
    assert recall == [(v["step"], pytest.approx(v["at"][0]["recall"])) for v in validations]
    assert [e.step for e in events.Scalars("train/loss")] == [1, 11]
    shutil.rmtree("tb")
