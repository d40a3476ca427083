"""The systems that `speed_train` compares make the same step, and their figures are recorded."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from csr_qdrant.benchmarks import speed_train
from csr_qdrant.benchmarks.render import rendered
from csr_qdrant.benchmarks.speed_train_peers import (
    STEPS,
    Case,
    TrainingStep,
    floor,
    make_case,
    paper_config,
)
from csr_qdrant.errors import CsrError

LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
SIZES = speed_train.Sizes(rows=64, d=12, h=96, k=3)
OPTIONS: dict[str, Any] = {
    **SIZES._asdict(),
    "dead": 0.2,
    "threads": 1,
    "rounds": 2,
    "repeats": 2,
    "default_rows": 48,
    "default_d": 8,
    "default_h": 128,
}


def _case(dead: float) -> Case:
    return make_case(paper_config(SIZES.k), SIZES.rows, SIZES.d, SIZES.h, dead, seed=1)


def _active(case: Case) -> Tensor:
    """Latents among the strongest 4k, (B, 4k)."""
    a = (case.x - case.pre_bias) @ case.weight.T + case.latent_bias
    return a.topk(4 * SIZES.k, dim=1).indices


def test_dead_latents_are_dead_but_not_silent() -> None:
    case = _case(0.2)
    assert len(case.dead) == 19
    assert not torch.isin(_active(case), case.dead).any()
    a = (case.x - case.pre_bias) @ case.weight[case.dead].T + case.latent_bias[case.dead]
    assert 0 < (a > 0).float().mean() < 0.2


def test_codes_share_more_postings_than_even_ones() -> None:
    case = make_case(paper_config(32), 2048, 256, 1024, 0.0)
    a = (case.x - case.pre_bias) @ case.weight.T + case.latent_bias
    share = torch.bincount(a.topk(32, dim=1).indices.flatten(), minlength=1024) / 2048
    assert 1.5 < float(share.square().sum()) / (32 * 32 / 1024) < 2.2


def _gradients(make: Callable[[Case], TrainingStep], case: Case) -> tuple[float, list[Tensor]]:
    step = make(case)
    loss = float(step.gradients())
    assert all(parameter.grad is not None for parameter in step.parameters)
    return loss, [p.grad.clone() for p in step.parameters if p.grad is not None]


@pytest.mark.parametrize("dead", [0.0, 0.2])
@pytest.mark.parametrize("name", STEPS)
def test_systems_compute_the_same_loss(name: str, dead: float) -> None:
    case = _case(dead)
    loss, _ = _gradients(STEPS[name], case)
    expected, _ = _gradients(STEPS["plain"], case)
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dead", [0.0, 0.2])
@pytest.mark.parametrize("name", [name for name in STEPS if name != "plain"])
def test_systems_compute_the_same_gradients(name: str, dead: float) -> None:
    """sentence-transformers' are those of the loss over d; its auxiliary term has its own way.

    There ReLU stops what would raise a dead latent, and the term moves b_pre.
    """
    case = _case(dead)
    _, (weight, latent_bias, pre_bias) = _gradients(STEPS[name], case)
    _, expected = _gradients(STEPS["plain"], case)
    foreign = name.startswith("sentence")
    scale = SIZES.d if foreign else 1
    alive = torch.ones(SIZES.h, dtype=torch.bool)
    if foreign:
        alive[case.dead] = False
    assert not expected[0][alive].allclose(torch.zeros(()), atol=1e-3)
    torch.testing.assert_close(weight[alive] * scale, expected[0][alive], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(latent_bias[alive] * scale, expected[1][alive], rtol=1e-4, atol=1e-5)
    if not foreign:
        torch.testing.assert_close(pre_bias, expected[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_learns(name: str) -> None:
    case = _case(0.2)
    step = STEPS[name](case)
    before = [parameter.detach().clone() for parameter in step.parameters]
    losses = [float(step()) for _ in range(20)]
    assert losses[-1] < losses[0] - 1e-5
    norm = torch.stack([p.grad.norm() for p in step.parameters if p.grad is not None]).norm()
    assert float(norm) <= step.config.clip * (1 + 1e-5)
    moved = [
        float((p.detach() - old).abs().max())
        for p, old in zip(step.parameters, before, strict=True)
    ]
    assert min(moved) > 1e-5, moved  # AdamW moves each parameter by about its rate a step
    assert case.weight.equal(before[0]), "cases are used again"


def test_the_floor_is_two_products(monkeypatch: pytest.MonkeyPatch) -> None:
    case, found = _case(0.0), []
    product = torch.mm

    def noted(*factors: Tensor, out: Tensor) -> Tensor:
        found.append(product(*factors, out=out).clone())
        return out

    monkeypatch.setattr(torch, "mm", noted)
    floor(case)()
    a = case.x @ case.weight.T
    torch.testing.assert_close(found, [a, a.T @ case.x])


def test_medians_of_interleaved_calls() -> None:
    made: list[str] = []

    def call(name: str, seconds: float) -> Callable[[], None]:
        def made_call() -> None:
            made.append(name)
            time.sleep(seconds)

        return made_call

    calls = {"quick": call("quick", 0.001), "slow": call("slow", 0.02)}
    found = speed_train.interleaved(calls, 3, {"quick": 4})
    assert 0.001 <= found["quick"] < 0.02 <= found["slow"]
    assert [made[at : at + 5].count("quick") for at in (0, 5, 10)] == [4, 4, 4]
    assert len(made) == 15


def test_different_losses_are_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(case: Case) -> TrainingStep:
        return STEPS["plain"](case._replace(x=case.x * 1.01))

    monkeypatch.setattr(speed_train, "STEPS", {"plain": STEPS["plain"], "ours": other})
    with pytest.raises(CsrError, match="losses differ"):
        speed_train.measure_steps(SIZES, 0.0, 1, 1)


def test_the_command_records_times_ratios_and_goals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    speed_train.main(**OPTIONS, memory=False, output=tmp_path, run=None)
    assert torch.get_num_threads() == threads
    record = json.loads((tmp_path / "speed_train.json").read_text("utf-8"))
    assert record["params"]["threads"] == 1
    alive, dead = (record["results"]["states"][name] for name in ("all alive", "some dead"))
    for found, goal in ((alive, 4.0), (dead, 2.0)):
        times = found["step_s"]
        assert set(times) == {*STEPS, "floor"} and min(times.values()) > 0
        against = found["ratios"]["sentence-transformers / ours"]
        expected = times["sentence-transformers"] / times["ours"]
        assert against == {"ratio": pytest.approx(expected), "goal_at_least": goal}
    floor_ratio = alive["ratios"]["ours / floor"]
    assert floor_ratio["ratio"] == pytest.approx(alive["step_s"]["ours"] / alive["step_s"]["floor"])
    assert floor_ratio["goal_at_most"] == 2.5
    assert alive["ratios"]["plain / ours"]["goal_at_least"] == 8
    assert "memory, ours / plain" not in alive["ratios"]
    assert record["results"]["default"]["k"] == [8, 16, 32]
    printed = capsys.readouterr().out
    assert "speed_train: all alive: plain / ours" in printed and "(goal: at least 8.00)" in printed
    table = rendered("<!-- results: speed_train -->\n<!-- end of results -->", tmp_path)
    assert (
        f"| plain | {alive['step_s']['plain']:.2f} | {dead['step_s']['plain']:.2f} | – | – |"
        in table
    )
    assert f"| plain / ours | {alive['ratios']['plain / ours']['ratio']:.2f} | ≥ 8.00 |" in table


@LINUX
@pytest.mark.slow
def test_peaks_are_those_of_a_step() -> None:
    sizes = speed_train.Sizes(rows=1024, d=16, h=512, k=4)
    ours, plain = (speed_train.peak_bytes(name, sizes, 0.2, 1) for name in ("ours", "plain"))
    # Scores of 2B × 2B and their softmax; in ours nothing is of that size.
    assert plain > 2 * (2 * 1024) ** 2 * 4
    assert 0 < ours < plain / 3


@LINUX
def test_a_failed_process_is_no_measurement() -> None:
    with pytest.raises(CsrError, match="nobody ended with status 1"):
        speed_train.peak_bytes("nobody", SIZES, 0.0, 1)


@LINUX
@pytest.mark.slow
def test_the_command_records_memory(tmp_path: Path) -> None:
    speed_train.main(**OPTIONS, memory=True, output=tmp_path, run=None)
    record = json.loads((tmp_path / "speed_train.json").read_text("utf-8"))
    for found in record["results"]["states"].values():
        peaks = found["peak_mb"]
        assert set(peaks) == set(STEPS) and min(peaks.values()) > 0
        against = found["ratios"]["memory, ours / plain"]
        assert against["ratio"] == pytest.approx(peaks["ours"] / peaks["plain"])
        assert against["goal_at_most"] == pytest.approx(1 / 3)
