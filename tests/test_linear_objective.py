"""Linear adapters: loss and step, and what they never see."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from csr_qdrant.trainer import Pairs
from csr_qdrant.trainer.batch import TorchBatch
from csr_qdrant.trainer.data import Batch
from csr_qdrant.trainer.linear import Run
from csr_qdrant.trainer.linear_config import LinearConfig
from csr_qdrant.trainer.linear_objective import Objective
from csr_qdrant.trainer.linear_sampling import MatchSampler, plan_batches

sys.path.insert(0, str(Path(__file__).parent))
from linear_rows import random


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the runs here are too small for more
    yield
    torch.set_num_threads(threads)


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
