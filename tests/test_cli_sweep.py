"""`csr train --sweep`: each point is what `csr train` gives, and the record, table, plot say so."""

import json
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch

from csr_qdrant.cli.watch import Watch
from csr_qdrant.encoder import Encoder
from csr_qdrant.trainer import TrainConfig, fit

Csr = Callable[..., Any]

RNG = np.random.default_rng(0)
X = (
    RNG.normal(size=(20, 16))[RNG.integers(20, size=300)] + 0.3 * RNG.normal(size=(300, 16))
).astype(np.float32)
Y = (X @ RNG.normal(size=(16, 12))).astype(np.float32)
OPTIONS = ("--steps", 12, "--held-out", 25, "--batch-size", 64)
CONFIG: dict[str, Any] = {"steps": 12, "held_out": 25, "batch_size": 64}
GRID = ("--sweep", "h=32,64", "--sweep", "seed=0,1,2", "--k", "2,4")
NAMES = [f"h={h},seed={seed}" for h in (32, 64) for seed in (0, 1, 2)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the runs here are too small for more
    yield
    torch.set_num_threads(threads)


def swept(folder: Path | str = "sw") -> Any:
    return json.loads((Path(folder) / "sweep.json").read_text("utf-8"))


def assert_same(folder: Path | str, expected: Encoder) -> None:
    got = Encoder.load(folder)
    np.testing.assert_array_equal(got.weight, expected.weight)
    np.testing.assert_array_equal(got.latent_bias, expected.latent_bias)
    assert got.k == expected.k


def png_size(path: Path) -> tuple[int, int]:
    """Return width and height from the first chunk of a PNG file."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert content[12:16] == b"IHDR"
    assert content[-8:-4] == b"IEND"
    width, height = struct.unpack(">II", content[16:24])
    return width, height


# --- a whole sweep ----------------------------------------------------------------------------


def test_every_point_is_a_run_and_the_record_holds_their_measures(csr: Csr) -> None:
    np.save("x.npy", X)
    ran = csr("train", "x.npy", "-o", "sw", *OPTIONS, *GRID, "--json")
    told = ran.json
    assert told == swept()
    files = {"sweep.json", "sweep.md", "sweep.png"}
    assert {path.name for path in Path("sw").iterdir()} == {*NAMES, *files}
    assert told["points"] == [run["name"] for run in told["runs"]] == NAMES
    assert told["axes"] == {"h": [32, 64], "seed": [0, 1, 2]}
    assert (told["settings"]["steps"], "h" in told["settings"]) == (12, False)
    expected = fit(X, TrainConfig(**CONFIG, k=(2, 4), h=64, seed=1))
    assert_same("sw/h=64,seed=1", expected)
    run, last = told["runs"][4], expected.info["validations"][-1]
    assert run["point"] == {"h": 64, "seed": 1}
    assert (run["at"], run["dead"]) == (last["at"], last["dead"])
    assert (run["d"], run["h"], run["k"], run["steps"]) == (16, 64, [2, 4], 12)
    assert run["fingerprint"] == Encoder.load("sw/h=64,seed=1").fingerprint
    _assert_documented(told, run, told["sources"][0], told["summary"][0])
    lines = [line for line in ran.stderr.splitlines() if line.startswith("point ")]
    assert lines == [f"point {number} of 6: {name}" for number, name in enumerate(NAMES, 1)]


def _assert_documented(*objects: dict[str, Any]) -> None:
    document = (Path(__file__).parents[1] / "docs" / "cli.md").read_text("utf-8")
    section = document.split("\n## `csr train`\n")[1].split("\n## ")[0]
    for key in {key for each in objects for key in each}:
        assert f"`{key}`" in section, key


def test_table_and_summary_hold_medians_and_extremes_over_seeds(csr: Csr) -> None:
    np.save("x.npy", X)
    ran = csr("train", "x.npy", "-o", "sw", *OPTIONS, *GRID, "-q")
    record = swept()
    assert [(row["setting"], row["k"]) for row in record["summary"]] == [
        ({"h": h}, k) for h in (32, 64) for k in (2, 4)
    ]
    recalls = [run["at"][1]["recall"] for run in record["runs"][3:]]  # h=64, k=4
    assert len(set(recalls)) > 1
    row = record["summary"][3]
    spread = {"median": median(recalls), "low": min(recalls), "high": max(recalls)}
    assert (row["runs"], row["recall"]) == (3, spread)
    cell = f"{spread['median']:.3f} ({spread['low']:.3f}–{spread['high']:.3f})"
    text = Path("sw/sweep.md").read_text("utf-8")
    assert f"\n| 64 | 4 | {cell} | " in text
    assert text.startswith("# h on x.npy\n\n6 of 6 runs: h = 32, 64; seed = 0, 1, 2.\n")
    assert "![recall against postings](sweep.png)" in text
    assert cell in ran.stdout
    assert ran.stdout.splitlines()[-1].startswith("wrote sw: ")
    assert png_size(Path("sw/sweep.png")) == (1125, 675)


def test_a_sweep_over_k_trains_an_encoder_for_each(csr: Csr) -> None:
    np.save("x.npy", X)
    options = (*OPTIONS, "--h", 64, "--sweep", "k=2,8", "--tensorboard", "tb", "--json", "-q")
    runs = csr("train", "x.npy", "-o", "sw", *options).json["runs"]
    assert sorted(path.name for path in Path("tb").iterdir()) == ["k=2", "k=8"]
    assert [[at["k"] for at in run["at"]] for run in runs] == [[2], [8]]
    assert_same("sw/k=8", fit(X, TrainConfig(**CONFIG, k=(8,), h=64)))
    assert [(row["setting"], row["k"]) for row in swept()["summary"]] == [({}, 2), ({}, 8)]


# --- the same command again -------------------------------------------------------------------


def test_finished_points_are_skipped(csr: Csr) -> None:
    np.save("x.npy", X)
    seeds = ("--h", 32, "--k", 4, "--sweep", "seed=0,1,2")
    command = ("train", "x.npy", "-o", "sw", *OPTIONS, *seeds, "--json")
    first = csr(*command)
    weights = [Path(f"sw/seed={seed}/model.safetensors") for seed in range(3)]
    before = [path.stat().st_mtime_ns for path in weights]
    shutil.rmtree("sw/seed=1")
    Path("sw/seed=2.partial").mkdir()  # as if killed right after the encoder was written
    states = [point["state"] for point in csr(*command, "--dry-run").json["points"]]
    assert states == ["done", "new", "done"]
    second = csr(*command)
    assert "point 1 of 3: seed=0 is done\npoint 2 of 3: seed=1\n" in second.stderr
    after = [path.stat().st_mtime_ns for path in weights]
    assert [a == b for a, b in zip(after, before, strict=True)] == [True, False, True]
    assert _without_times(second.json) == _without_times(first.json)
    assert not list(Path("sw").glob("*.partial"))


def _without_times(record: Any) -> Any:
    for entry in (*record["runs"], *record["summary"]):
        entry.pop("seconds")
    return record


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Interrupt the second run after its eleventh step."""
    follow = Watch._step
    reached: list[int] = []

    def step(self: Watch, report: Any) -> None:
        follow(self, report)
        if report.step > 10:
            reached.append(report.step)
            if len(reached) == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(Watch, "_step", step)
    yield
    assert len(reached) > 1


@pytest.mark.parametrize("flags", [(), ("--restart",)])
def test_an_interrupted_point_goes_on_where_it_stopped_or_starts_anew(
    csr: Csr, interrupted: None, flags: tuple[str, ...]
) -> None:
    np.savez("x.npz", vectors=X)  # cannot be mapped: its vectors are made once for all points
    command = ("train", "x.npz", "-o", "sw", *OPTIONS, "--h", 32, "--k", 4, "--sweep", "seed=0,1,2")
    stopped = csr(*command)
    assert stopped.exit_code == 130
    assert {path.name for path in Path("sw").iterdir()} == {
        *("seed=0", "seed=1.partial", "vectors.partial", "sweep.json", "sweep.md")
    }
    assert [path.name for path in Path("sw/seed=1.partial").iterdir()] == ["checkpoint.safetensors"]
    assert Path("sw/sweep.md").read_text("utf-8").startswith("# seed on x.npz\n\n1 of 3 runs")
    plan = csr(*command, *flags, "--dry-run", "--json").json["points"]
    assert [p["state"] for p in plan] == ["done", "new" if flags else "continues", "new"]
    ended = csr(*command, *flags)
    assert ("continuing the run in sw/seed=1.partial" in ended.stderr) is not bool(flags)
    for seed in (0, 1, 2):
        assert_same(f"sw/seed={seed}", fit(X, TrainConfig(**CONFIG, h=32, k=(4,), seed=seed)))
    assert not list(Path("sw").glob("*.partial"))


def test_a_folder_of_another_sweep_is_refused_or_replaced(csr: Csr) -> None:
    np.save("x.npy", X)
    np.save("y.npy", Y)
    options = (*OPTIONS, "--h", 32, "--k", 4, "--sweep", "seed=0,1")
    assert csr("train", "x.npy", "-o", "sw", *options, "-q").exit_code == 0
    before = Path("sw/sweep.json").read_bytes()
    for changed, difference in (
        (("train", "x.npy", "-o", "sw", *options, "--lr", 0.1), "lr: None there, 0.1 here"),
        (("train", "y.npy", "-o", "sw", *options), "sources"),
        (("train", "x.npy", "-o", "sw", *options[:-1], "seed=0,1,2"), "seed: 0, 1 there, 0, 1, 2"),
        (("train", "x.npy", "-o", "sw", *options[:-1], "lr=0.1"), "lr: None there, 0.1 here"),
    ):
        for flags in ((), ("--dry-run",)):
            refused = csr(*changed, *flags)
            assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
            assert f"sw holds a sweep with other settings ({difference}" in refused.stderr
    assert Path("sw/sweep.json").read_bytes() == before
    assert csr("train", "x.npy", "-o", "sw", *options[:-1], "seed=7", "--overwrite").exit_code == 0
    assert sorted(path.name for path in Path("sw").iterdir() if path.is_dir()) == ["seed=7"]


@pytest.mark.parametrize("record", [None, "{}", '{"format": "another/1"}', "{"])
def test_a_folder_of_anything_else_is_refused_whatever_the_flags(
    csr: Csr, record: str | None
) -> None:
    np.save("x.npy", X)
    Path("sw").mkdir()
    Path("sw/precious.txt").write_text("kept")
    if record is not None:
        Path("sw/sweep.json").write_text(record)
    refused = csr("train", "x.npy", "-o", "sw", *OPTIONS, *GRID, "--overwrite")
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "choose another name" in refused.stderr
    assert Path("sw/precious.txt").read_text() == "kept"


def test_an_empty_folder_is_taken(csr: Csr) -> None:
    np.save("x.npy", X)
    Path("sw").mkdir()
    options = (*OPTIONS, "--h", 32, "--k", 4, "--sweep", "seed=0")
    assert csr("train", "x.npy", "-o", "sw", *options).exit_code == 0
    assert Encoder.load("sw/seed=0").h == 32


# --- several sources --------------------------------------------------------------------------


def test_sources_are_an_axis(csr: Csr) -> None:
    np.save("x.npy", X)
    np.save("y.npy", Y)
    np.save("labels.npy", np.arange(300) % 7)
    options = (*OPTIONS, "--h", 32, "--k", 4, "--labels", "labels.npy")
    ran = csr("train", "x.npy", "-o", "sw", *options, "--sweep", "source=x.npy,y.npy", "--json")
    assert [(run["name"], run["d"]) for run in ran.json["runs"]] == [
        ("source=x.npy", 16),
        ("source=y.npy", 12),
    ]
    config = TrainConfig(**CONFIG, h=32, k=(4,))
    assert_same("sw/source=y.npy", fit(Y, config, labels=np.arange(300) % 7))
    assert "own dense vectors" in Path("sw/sweep.md").read_text("utf-8")


def test_sources_of_one_name_are_told_apart_by_their_folders(csr: Csr) -> None:
    for folder, vectors in (("a", X), ("b", Y)):
        Path(folder).mkdir()
        np.save(f"{folder}/x.npy", vectors)
    options = (*OPTIONS, "--h", 32, "--sweep", "source=a/x.npy,b/x.npy", "--dry-run", "--json")
    points = csr("train", "a/x.npy", "-o", "sw", *options).json["points"]
    assert [(point["name"], point["d"]) for point in points] == [
        ("source=a_x.npy", 16),
        ("source=b_x.npy", 12),
    ]


# --- plans ------------------------------------------------------------------------------------


def test_a_dry_run_lists_points_and_steps_and_writes_nothing(csr: Csr) -> None:
    np.save("x.npy", X)
    command = ("train", "x.npy", "-o", "sw", *OPTIONS, "--dry-run", "--sweep")
    plan = csr(*command, "h=32,64", "--sweep", "k=2,4", "--json").json
    assert (plan["dry_run"], plan["folder"], plan["replaces"]) == (True, "sw", False)
    _assert_documented(plan, plan["points"][0])
    points = [(p["name"], p["h"], p["k"], p["steps"], p["state"]) for p in plan["points"]]
    assert points == [
        (f"h={h},k={k}", h, [k], 12, "new") for h in (32, 64) for k in (2, 4)
    ]  # fmt: skip
    told = csr(*command, "minutes=0.5,2", "--h", 64).stdout
    assert "would train 2 of 2 points (2.5 minutes) into sw" in told
    plan = csr(*command, "steps=5,7", "--preset", "paper-vision", "--h", 64, "--json").json
    assert [point["steps"] for point in plan["points"]] == [5, 7]  # not the preset's 10 epochs
    assert [path.name for path in Path().iterdir()] == ["x.npy"]


@pytest.mark.parametrize("supervision", ["none", "labels", "pairs"])
def test_planned_epochs_are_the_steps_that_are_made(csr: Csr, supervision: str) -> None:
    np.save("x.npy", X)
    np.save("q.npy", X[:40])
    np.save("y.npy", np.arange(300) % 7)
    Path("p.tsv").write_text("".join(f"{i}\t{i + 1}\t1\n" for i in range(40)))
    options = {
        "none": (),
        "labels": ("--labels", "y.npy"),
        "pairs": ("--pairs", "p.tsv", "--queries", "q.npy", "--adapter-steps", 0),
    }[supervision]
    shape = ("--held-out", 25, "--batch-size", 50, "--h", 32, "--k", 4)
    command = ("train", "x.npy", "-o", "sw", *shape, *options, "--sweep", "epochs=2", "--json")
    planned = csr(*command, "--dry-run").json["points"][0]["steps"]
    assert planned == {"none": 2 * 6, "labels": 2 * 11, "pairs": 2 * 13}[supervision]
    assert csr(*command).json["runs"][0]["steps"] == planned


# --- what cannot work -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--sweep", "h"), "--sweep takes SETTING=VALUE,VALUE,…, got 'h'"),
        (("--sweep", "h=1,x"), "--sweep h must be an integer, got 'x'"),
        (("--sweep", "h="), "--sweep h takes different values, got none"),
        (("--sweep", "h=32,32"), "--sweep h takes different values, got 32, 32"),
        (("--sweep", "h=32", "--sweep", "h=64"), "--sweep names h twice"),
        (("--sweep", "depth=3"), "--sweep does not take 'depth': it takes adam_eps, adapter_lr"),
        (("--sweep", "preset=csrv2"), "--sweep does not take 'preset'"),
        (("--sweep", "steps=1,2", "--sweep", "epochs=1"), "sweep one of steps and epochs"),
        (("--sweep", "k=2,64", "--h", 32), "point k=64: k must be in 1..32"),
        (("--sweep", "h=64,3", "--k", 4), "point h=3: k must be in 1..3"),
        (("--sweep", "lr=0.1,-1"), "point lr=-1.0: lr must be above 0"),
        (("--sweep", "seed=1", "--held-out", 0), "needs held_out above 0"),
        (("--sweep", "source=y.npy"), "it lacks x.npy"),
        (("--sweep", "source=x.npy,x.npy"), "names a source twice"),
        (("--sweep", "source=x.npy,short.npy"), "same rows, got numbers of rows that differ"),
        (("--sweep", "source=x.npy,y.npy", "--aligned", "y.npy"), "sweep one source"),
        (("--sweep", "seed=1", "--method", "mrl"), "leave out --method mrl"),
    ],
)
def test_grids_that_cannot_work_are_refused_in_one_sentence(
    csr: Csr, options: tuple[Any, ...], sentence: str
) -> None:
    np.save("x.npy", X)
    np.save("y.npy", Y)
    np.save("short.npy", Y[:-1])
    ran = csr("train", "x.npy", "-o", "sw", "--steps", 2, *options)
    assert (ran.exit_code, ran.stderr.count("\n")) == (2, 1), ran.stderr
    assert sentence in ran.stderr
    assert not Path("sw").exists()


def test_without_matplotlib_nothing_is_trained(csr: Csr, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save("x.npy", X)
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ran = csr("train", "x.npy", "-o", "sw", *OPTIONS, *GRID)
    assert (ran.exit_code, ran.stderr.count("\n")) == (1, 1)
    assert "matplotlib is not installed: run `pip install 'csr-qdrant[bench]'`" in ran.stderr
    assert not Path("sw").exists()


def test_a_point_that_diverges_does_not_stop_the_others(csr: Csr) -> None:
    np.save("x.npy", X)
    options = (*OPTIONS, "--h", 32, "--k", 4, "--sweep", "lr=1e38,0.01")
    ran = csr("train", "x.npy", "-o", "sw", *options)
    assert ran.exit_code == 1
    assert "Warning: lr=1e+38 failed: training diverged" in ran.stderr
    assert "1 of 2 points failed, the first of them lr=1e+38: training diverged" in ran.stderr
    failed, done = swept()["runs"]
    assert failed["error"].startswith("training diverged")
    assert_same("sw/lr=0.01", fit(X, TrainConfig(**CONFIG, h=32, k=(4,), lr=0.01)))
    assert [row["setting"] for row in swept()["summary"]] == [{"lr": 0.01}]
    text = Path("sw/sweep.md").read_text("utf-8")
    assert "1 of 2 runs: lr = 1e+38, 0.01." in text
    assert "\n- lr=1e+38 failed: training diverged" in text
    assert f"| 0.01 | 4 | {done['at'][0]['recall']:.3f} | " in text
