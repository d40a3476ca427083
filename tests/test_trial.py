"""Which implementation of a step a run trains with."""

import logging
import time
from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from csr_qdrant.trainer import TrainConfig
from csr_qdrant.trainer.dense_ops import DenseOps
from csr_qdrant.trainer.loop import fit
from csr_qdrant.trainer.ops import Ops
from csr_qdrant.trainer.trial import faster

CPU = torch.device("cpu")
TRUTH = torch.arange(1.0, 10)


class Rival(DenseOps):
    """Operations that some test has an opinion of."""


def trial(seconds: float, found: Callable[[], Tensor]) -> tuple[Ops, Ops, Ops]:
    """Return what is chosen, of a trusted one that takes 20 ms and a rival."""
    trusted, rival = cast(Ops, DenseOps()), cast(Ops, Rival())

    def gradient(ops: Ops) -> Tensor:
        time.sleep(seconds if ops is rival else 0.02)
        return found() if ops is rival else TRUTH

    return faster(trusted, rival, gradient, CPU), trusted, rival


def test_the_faster_one_is_taken() -> None:
    chosen, _, rival = trial(0.0, lambda: TRUTH * 1.001)
    assert chosen is rival
    chosen, trusted, _ = trial(0.06, lambda: TRUTH)
    assert chosen is trusted


@pytest.mark.parametrize("found", [TRUTH * 1.1, TRUTH * float("nan"), TRUTH * 0])
def test_a_wrong_gradient_is_not_taken(found: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    chosen, trusted, _ = trial(0.0, lambda: found)
    assert chosen is trusted
    assert "Rival is left out: its gradient is off by" in caplog.text


def test_a_kernel_that_fails_costs_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Tensor:
        raise RuntimeError("no such instruction")

    chosen, trusted, _ = trial(0.0, fail)
    assert chosen is trusted
    assert "it fails here (no such instruction)" in caplog.text


def test_a_run_tries_rivals_on_its_first_rows(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    used: list[int] = []

    class Counting(DenseOps):
        def kth_largest(self, a: Tensor, k: int) -> Tensor:
            raise AssertionError("no latent is dead in a trial")

        def over(self, rows: int, work: Callable[[int, int], object]) -> list[object]:  # type: ignore[override]
            used.append(rows)
            return [work(0, rows)]

    vectors = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    config = TrainConfig(k=(2,), h=32, steps=3, batch_size=64, held_out=20, seed=1)
    alone = fit(vectors, config, device="cpu")
    monkeypatch.setattr("csr_qdrant.trainer.run.rival_ops", lambda device, precision: Counting())
    with caplog.at_level(logging.INFO, "csr_qdrant.trainer.trial"):
        tried = fit(vectors, config, device="cpu")
    assert used and "a step takes" in caplog.text
    # The trial leaves no trace: the same rows, in the same order.
    np.testing.assert_allclose(tried.weight, alone.weight, rtol=1e-3, atol=1e-5)
