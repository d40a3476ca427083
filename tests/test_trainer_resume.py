"""Checkpoints: a run that was stopped, however roughly, goes on to exactly the same end."""

import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from csr_qdrant import Encoder
from csr_qdrant.errors import CsrError
from csr_qdrant.trainer import Listeners, Pairs, StepReport, TrainConfig, fit
from csr_qdrant.trainer import run as run_module

STEPS = 40


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Sums are the same to the last bit only if they are split over threads in the same way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rows(n: int = 500, d: int = 24) -> Any:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((10, d))
    return (centres[rng.integers(10, size=n)] + 0.4 * rng.standard_normal((n, d))).astype("f4")


def labels() -> Any:
    return np.arange(500) % 7


def pairs() -> Pairs:
    x = rows()
    return Pairs.of(x[:80] + np.float32(0.1), np.arange(80), np.arange(80) + 2)


def settings(**more: Any) -> TrainConfig:
    values: dict[str, Any] = {"k": (2, 6), "h": 64, "steps": STEPS, "batch_size": 50}
    values |= {"held_out": 40, "validate_every": 8, "dead_after": 3, "adapter_steps": 10}
    values |= {"checkpoint_seconds": 0.0, "weight_decay": 0.01, "k_anneal": 12}
    return TrainConfig(**(values | more))


SUPERVISION: dict[str, dict[str, Any]] = {
    "alone": {},
    "labels": {"labels": labels()},
    "pairs": {"pairs": pairs()},
}


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, Encoder]:
    return {name: fit(rows(), settings(), device="cpu", **s) for name, s in SUPERVISION.items()}


def assert_equal(one: Encoder, other: Encoder) -> None:
    """Everything but the time taken is equal, bit for bit."""
    for name in ("weight", "latent_bias", "pre_bias", "steps_since_active"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert one.fingerprint == other.fingerprint
    without_time = [{**e.info, "seconds": 0, "training": 0} for e in (one, other)]
    assert without_time[0] == without_time[1]


class Crash(Exception):
    """Ends a run without any chance to save."""


def crash_at(step: int, error: BaseException | None = None) -> Listeners:
    def stop(report: StepReport) -> None:
        if report.step >= step:
            raise error or Crash

    return Listeners(on_step=stop)


KILLED = """
import sys, time
import torch
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[1]).parent))
import test_trainer_resume as t
from csr_qdrant.trainer import Listeners, fit

torch.set_num_threads(1)
def report(r):
    print(r.step, flush=True)
    time.sleep(0.2)  # so that it is still running when it is killed
fit(t.rows(), t.settings(), checkpoint=sys.argv[2], device="cpu", listeners=Listeners(report),
    **t.SUPERVISION[sys.argv[3]])
"""


@pytest.mark.parametrize("supervision", ["alone", pytest.param("pairs", marks=pytest.mark.slow)])
def test_killed_and_resumed_is_as_never_killed(
    supervision: str, tmp_path: Path, uninterrupted: dict[str, Encoder]
) -> None:
    path = tmp_path / "checkpoint"
    command = [sys.executable, "-c", KILLED, __file__, str(path), supervision]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while (line := process.stdout.readline()) and int(line) < 11:
            pass
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert 10 <= progress_of(path)["step"] < STEPS
    seen: list[StepReport] = []
    resumed = fit(
        rows(),
        settings(),
        device="cpu",
        checkpoint=path,
        listeners=Listeners(seen.append),
        **SUPERVISION[supervision],
    )
    assert seen[0].step > 10
    assert_equal(resumed, uninterrupted[supervision])


def progress_of(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="numpy") as file:
        progress: dict[str, Any] = json.loads(file.metadata()["progress"])
    return progress


@pytest.mark.parametrize("supervision", SUPERVISION)
@pytest.mark.parametrize("step", [1, 21])
def test_runs_that_crash_again_and_again_end_the_same(
    supervision: str, step: int, tmp_path: Path, uninterrupted: dict[str, Encoder]
) -> None:
    kwargs: dict[str, Any] = {"device": "cpu", "checkpoint": tmp_path / "run"}
    kwargs |= SUPERVISION[supervision]
    for at in (step, step + 10):  # reports come every ten steps; the last step is done again
        with pytest.raises(Crash):
            fit(rows(), settings(), listeners=crash_at(at), **kwargs)
    assert_equal(fit(rows(), settings(), **kwargs), uninterrupted[supervision])


def test_an_interrupt_keeps_what_was_learned(
    tmp_path: Path, uninterrupted: dict[str, Encoder]
) -> None:
    path, rare = tmp_path / "run", settings(checkpoint_seconds=1e9)
    with pytest.raises(KeyboardInterrupt):
        fit(
            rows(),
            rare,
            device="cpu",
            checkpoint=path,
            listeners=crash_at(21, KeyboardInterrupt()),
        )
    assert progress_of(path)["step"] == 21
    assert_equal(fit(rows(), rare, device="cpu", checkpoint=path), uninterrupted["alone"])


def test_an_interrupt_amid_an_update_keeps_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: dict[str, Encoder]
) -> None:
    path, rare = tmp_path / "run", settings(checkpoint_seconds=1e9)
    original, calls = torch.optim.AdamW.step, [0]

    def interrupted(self: Any, *args: Any) -> Any:
        calls[0] += 1
        done = original(self, *args)
        if calls[0] == 5:
            raise KeyboardInterrupt
        return done

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch.optim.AdamW, "step", interrupted)
        fit(rows(), rare, device="cpu", checkpoint=path)
    assert progress_of(path)["step"] == 0
    assert_equal(fit(rows(), rare, device="cpu", checkpoint=path), uninterrupted["alone"])


def test_an_interrupt_of_a_validation_does_not_lose_it(
    tmp_path: Path, uninterrupted: dict[str, Encoder]
) -> None:
    from csr_qdrant.trainer.validation import Validator

    path, original = tmp_path / "run", Validator.measure

    def interrupted(self: Any, model: Any, ops: Any, ks: Any, step: int) -> Any:
        if step == 16:
            raise KeyboardInterrupt
        return original(self, model, ops, ks, step)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Validator, "measure", interrupted)
        fit(rows(), settings(), device="cpu", checkpoint=path)
    resumed = fit(rows(), settings(), device="cpu", checkpoint=path)
    assert [each["step"] for each in resumed.info["validations"]] == [8, 16, 24, 32, 40]
    assert_equal(resumed, uninterrupted["alone"])


def test_a_finished_run_is_taken_as_it_is(
    tmp_path: Path, uninterrupted: dict[str, Encoder]
) -> None:
    kwargs: dict[str, Any] = {"device": "cpu", "checkpoint": tmp_path / "run"}
    fit(rows(), settings(), **kwargs)
    seen: list[Any] = []
    again = fit(rows(), settings(), listeners=Listeners(seen.append, seen.append), **kwargs)
    assert not seen
    assert_equal(again, uninterrupted["alone"])


def test_the_adapter_is_learned_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kwargs: dict[str, Any] = {"device": "cpu", "checkpoint": tmp_path / "run", "pairs": pairs()}
    with pytest.raises(Crash):
        fit(rows(), settings(), listeners=crash_at(1), **kwargs)

    def learn_again(*_: Any) -> Any:
        raise AssertionError("the adapter stands in the checkpoint")

    monkeypatch.setattr(run_module, "learn_adapter", learn_again)
    fit(rows(), settings(), **kwargs)


def test_how_often_to_save_may_change(tmp_path: Path, uninterrupted: dict[str, Encoder]) -> None:
    kwargs: dict[str, Any] = {"device": "cpu", "checkpoint": tmp_path / "run"}
    with pytest.raises(Crash):
        fit(rows(), settings(), listeners=crash_at(21), **kwargs)
    resumed = fit(rows(), settings(checkpoint_seconds=30.0), **kwargs)
    assert_equal(resumed, uninterrupted["alone"])


def test_minutes_go_on_where_they_were(tmp_path: Path) -> None:
    path, budget = tmp_path / "run", settings(minutes=0.01)
    with pytest.raises(Crash):
        fit(rows(), budget, device="cpu", checkpoint=path, listeners=crash_at(11))
    before = progress_of(path)
    encoder = fit(rows(), budget, device="cpu", checkpoint=path)
    assert 0.6 <= encoder.info["seconds"] < 3
    assert encoder.info["steps"] > before["step"] > 0


# --- checkpoints that do not fit ----------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint of step 11."""
    path = tmp_path / "run"
    with pytest.raises(Crash):
        fit(rows(), settings(), device="cpu", checkpoint=path, listeners=crash_at(11))
    return path


def other_rows() -> Any:
    x = rows()
    x[-1] += 1
    return np.concatenate([x[:1] * 2, x[1:]])


@pytest.mark.parametrize(
    ("x", "config", "supervision"),
    [
        (rows(), settings(lr=1e-4), {}),
        (rows(), settings(k=(2, 5)), {}),
        (rows(), settings(seed=1), {}),
        (rows(), settings(steps=STEPS + 1), {}),
        (rows()[:-1], settings(), {}),
        (rows().astype(np.float64), settings(), {}),
        (other_rows(), settings(), {}),
        (rows(), settings(), {"labels": labels()}),
        (rows(), settings(), {"pairs": pairs()}),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    x: Any, config: TrainConfig, supervision: dict[str, Any], saved: Path
) -> None:
    before = saved.read_bytes()
    with pytest.raises(CsrError, match="belongs to a run with other settings or data") as caught:
        fit(x, config, device="cpu", checkpoint=saved, **supervision)
    assert str(saved) in str(caught.value)
    assert saved.read_bytes() == before


def test_a_single_other_label_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(Crash):
        fit(rows(), settings(), labels=labels(), checkpoint=path, listeners=crash_at(1))
    other = labels()
    other[333] = 6 - other[333]
    with pytest.raises(CsrError, match="other settings or data"):
        fit(rows(), settings(), labels=other, checkpoint=path)


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]


def test_a_damaged_checkpoint_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    (header,) = struct.unpack("<Q", whole[:8])
    step = whole.index(b'\\"step\\": ') + len(b'\\"step\\": ')
    damaged = {
        "cut": whole[: len(whole) // 2],
        "cut by one": whole[:-1],
        "empty": b"",
        "other": b"PK\x03\x04 something else",
        "one bit of a tensor": flipped(whole, header + 8 + (len(whole) - header) // 3),
        "last bit": flipped(whole, len(whole) - 1),
        "the step": whole[:step] + b"2" + whole[step + 1 :],
    }
    for kind, content in damaged.items():
        saved.write_bytes(content)
        with pytest.raises(CsrError, match=r"cannot be read .*: delete it") as caught:
            fit(rows(), settings(), device="cpu", checkpoint=saved)
        assert str(saved) in str(caught.value), kind
        assert saved.read_bytes() == content, kind


def test_other_safetensors_files_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    fit(rows(), settings(steps=1), device="cpu").save(folder)
    with pytest.raises(CsrError, match="it was not written by this release"):
        fit(rows(), settings(), device="cpu", checkpoint=next(folder.glob("*.safetensors")))


def test_nothing_is_pickled(saved: Path) -> None:
    content = saved.read_bytes()
    (header,) = struct.unpack("<Q", content[:8])
    described = json.loads(content[8 : 8 + header])
    last = max(entry["data_offsets"][1] for n, entry in described.items() if n != "__metadata__")
    assert 8 + header + last == len(content)  # a JSON header, plain numbers, and nothing else


def test_a_place_that_cannot_be_written_is_told_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    seen: list[StepReport] = []
    with pytest.raises(CsrError, match=r"checkpoint .* cannot be "):
        fit(
            rows(),
            settings(),
            device="cpu",
            checkpoint=tmp_path / "file" / "run",
            listeners=Listeners(seen.append),
        )
    with pytest.raises(CsrError, match="cannot be "):
        fit(rows(), settings(), device="cpu", checkpoint=tmp_path)
    assert not seen


def test_no_thread_and_no_file_is_left_behind(saved: Path) -> None:
    assert [path.name for path in saved.parent.iterdir()] == ["run"]
    assert not [t for t in threading.enumerate() if t.name.startswith("batches")]
