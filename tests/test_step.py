"""A step's loss and gradients against the plain objective with automatic differentiation."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from csr_qdrant.benchmarks.plain import PlainAutoencoder, plain_loss, plain_pairs
from csr_qdrant.trainer import TrainConfig
from csr_qdrant.trainer.batch import TorchBatch
from csr_qdrant.trainer.data import Matches
from csr_qdrant.trainer.dense_ops import DenseOps
from csr_qdrant.trainer.model import Autoencoder
from csr_qdrant.trainer.ops import Ops
from csr_qdrant.trainer.sparse_ops import SparseOps
from csr_qdrant.trainer.step import Outcome, Plan, Step
from csr_qdrant.trainer.supervision import same_pair

ROW_TERMS = ("reconstruction", "multi_k", "aux", "contrastive", "balance", "distillation")
PAIR_TERMS = ("supervised", "reconstructed_pairs")
THREADS = {threads: SparseOps(threads) for threads in (1, 2, 3)}
both = pytest.mark.parametrize("ops", [DenseOps(), THREADS[2]], ids=["dense", "sparse"])


@pytest.fixture(scope="module", autouse=True)
def small_blocks() -> Iterator[None]:
    """Give several threads and blocks even to a few rows, and divide by the equation's terms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("csr_qdrant.trainer.sparse_ops.FEW_ROWS", 3)
        patch.setattr("csr_qdrant.trainer.sparse_ops.BLOCK_BYTES", 1)
        patch.setattr("csr_qdrant.trainer.dense_ops.CHUNK_BYTES", 2000)
        patch.setattr("csr_qdrant.trainer.auxiliary.ROWS", 7)
        patch.setattr("csr_qdrant.trainer.auxiliary.TINY", 0.0)
        yield


class Case(NamedTuple):
    """All that a step is given, in float64."""

    model: Autoencoder
    config: TrainConfig
    batch: TorchBatch
    dead: Tensor
    step: int = 0

    @property
    def ks(self) -> list[int]:
        return sorted(set(self.config.k), reverse=True)

    @property
    def k(self) -> int:
        return Plan.of(self.config, len(self.model.latent_bias), self.step, 0.0).k

    @property
    def a(self) -> Tensor:
        """Pre-activations (B, h), from float64 parameters."""
        weight, latent_bias, pre_bias = parameters(self.model)
        return (self.batch.x - pre_bias) @ weight.T + latent_bias


def parameters(model: Autoencoder) -> tuple[Tensor, Tensor, Tensor]:
    return model.weight.detach(), model.latent_bias.detach(), model.pre_bias.detach()


def make_model(d: int, h: int, seed: int, bias: float = 0.0) -> Autoencoder:
    """Return a model with biases, in float64."""
    random = torch.Generator().manual_seed(seed)
    model = Autoencoder(d, h, random).double()
    with torch.no_grad():
        for each, middle in ((model.latent_bias, bias), (model.pre_bias, 0.0)):
            noise = torch.randn(len(each), generator=random, dtype=torch.float64)
            each.copy_(middle + 0.3 * noise)
    return model


def rows_of(B: int, d: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed + 1)
    return torch.randn(B, d, generator=random, dtype=torch.float64)


def matches_of(B: int, p: int, m: int, seed: int) -> Matches:
    """Return p pairs of rows, some of which share a query or a document, and m negatives."""
    rng = np.random.default_rng(seed)
    queries, documents, negatives = (rng.integers(0, B, count) for count in (p, p, m))
    known = np.concatenate([same_pair(queries, documents), rng.random((p, m)) < 0.2], axis=1)
    arrays = (queries, documents, known, 0.5 + rng.random(p), negatives)
    return Matches(*map(torch.from_numpy, arrays))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    B, d, h = draw(st.integers(2, 40)), draw(st.integers(2, 9)), draw(st.integers(4, 40))
    ks = draw(st.lists(st.integers(1, min(h, 12)), min_size=1, max_size=3))
    seed, weight = draw(st.integers(0, 2**32)), st.sampled_from([0, 0.4, 1, 3])
    weights: dict[str, Any] = {name: draw(weight) for name in (*ROW_TERMS, *PAIR_TERMS)}
    config = TrainConfig(
        k=tuple(ks),
        h=h,
        k_aux=draw(st.integers(1, h)),
        contrastive_temperature=draw(st.sampled_from([0.05, 0.2, 1])),
        dense_temperature=draw(st.sampled_from([None, 0.2])),
        **weights,
    )
    labels, matches = None, None
    kind = draw(st.sampled_from(["alone", "labels", "pairs"]))
    if kind == "labels":
        labels = torch.from_numpy(np.random.default_rng(seed).integers(-1, 5, B))
    elif kind == "pairs":
        matches = matches_of(B, draw(st.integers(1, 9)), draw(st.integers(0, 3)), seed)
    dead = torch.tensor(sorted(draw(st.sets(st.integers(0, h - 1)))), dtype=torch.int64)
    model = make_model(d, h, seed, bias=draw(st.sampled_from([-0.3, 0, 1])))
    batch = TorchBatch(rows_of(B, d, seed), labels, matches)
    return Case(model, config, batch, dead, draw(st.integers(0, 5)))


# --- both ways ----------------------------------------------------------------------------


class Found(NamedTuple):
    """A loss and its gradients by W, b_lat and b_pre."""

    loss: Tensor
    gradients: list[Tensor]


def run(case: Case, ops: Ops, dtype: torch.dtype = torch.float64) -> tuple[Outcome, Found]:
    """Compute a step on a copy of the model in `dtype`."""
    (h, d), x = case.model.weight.shape, case.batch.x.to(dtype)
    model = Autoencoder(d, h).to(dtype)
    model.load_state_dict(case.model.state_dict())
    batch = case.batch._replace(x=x)
    if batch.matches is not None:
        weights = batch.matches.weights.to(dtype)
        batch = batch._replace(matches=batch.matches._replace(weights=weights))
    outcome = Step(model, case.config, ops)(batch, case.dead, step=case.step, progress=0.0)
    gradients = [each.grad for each in (model.weight, model.latent_bias, model.pre_bias)]
    assert all(each is not None and each.dtype == dtype for each in gradients)
    return outcome, Found(outcome.loss, [each.double() for each in gradients if each is not None])


def plain(case: Case) -> Found:
    """Reconstruction goes by this step's k, similarities and the 4k term by the largest."""
    model, x = PlainAutoencoder(*parameters(case.model)), case.batch.x
    config, matches, largest = case.config.resolved(), case.batch.matches, case.ks[0]
    z = F.normalize(model.codes(x, largest), dim=1)
    loss = plain_loss(
        model, x, config, case.k, dead=case.dead, largest=largest, labels=case.batch.labels
    )
    others = ~torch.eye(len(x), dtype=torch.bool)
    loss = loss + config.balance * (z @ z.T)[others].mean()
    if matches is not None:
        temperature = config.supervised_temperature
        assert temperature is not None and config.supervised is not None
        loss = loss + config.supervised * plain_matches(z, matches, temperature)
        made = F.normalize(model(x, case.k), dim=1)
        found = plain_matches(made, matches, temperature)
        loss = loss + config.reconstructed_pairs * found
    given = [model.weight, model.latent_bias, model.pre_bias]
    return Found(loss.detach(), list(torch.autograd.grad(loss, given)))


def plain_matches(unit: Tensor, matches: Matches, temperature: float) -> Tensor:
    """Cross-entropy over the pairs' documents and the negatives; back, over queries alone."""
    queries, documents, known, weights, negatives = matches
    if not len(negatives):
        return plain_pairs(unit, queries, documents, known, weights, temperature)
    losses: list[Tensor] = []
    shares = (unit[queries] @ unit[torch.cat([documents, negatives])].T / temperature).exp()
    for i in range(len(queries)):
        forth = shares[i, i] / shares[i][~known[i]].sum()
        back = shares[i, i] / shares[:, i][~known[:, i]].sum()
        losses.append(-(forth * back).log() / 2 * weights[i])
    mean: Tensor = torch.stack(losses).sum() / weights.sum()
    return mean


def assert_same(found: Found, expected: Found, tolerance: float) -> None:
    """Norms of differences, over norms; some gradients are nothing but rounding."""
    scale = sum(float(each.norm()) for each in expected.gradients)
    close = pytest.approx(float(expected.loss), rel=tolerance, abs=tolerance / 1000)
    assert float(found.loss) == close
    assert len(expected.gradients) == 3
    for one, other in zip(found.gradients, expected.gradients, strict=True):
        assert one.isfinite().all()
        allowed = tolerance * (float(other.norm()) + 0.01 * scale) + tolerance / 1000
        assert float((one - other).norm()) <= allowed


def assume_no_empty_codes(case: Case) -> None:
    """The papers' contrastive term has no answer for a code of zeros."""
    assume(not case.config.contrastive or bool((case.a > 0).any(1).all()))


def assume_clear(case: Case) -> None:
    """Rounding to float32 must not change which latents are chosen, nor blow up short codes."""
    a, ranked = case.a, case.a.sort(dim=1, descending=True).values
    dead = a[:, case.dead].sort(dim=1, descending=True).values
    assume(float(a.abs().min()) > 1e-5)
    for values, cuts in ((ranked, [*case.ks, 4 * case.ks[0]]), (dead, [case.config.k_aux])):
        for cut in cuts:
            if cut < values.shape[1]:
                assume(float((values[:, cut - 1] - values[:, cut]).min()) > 1e-5)
    norms = ranked[:, : case.ks[0]].relu().norm(dim=1)
    assume(bool(((norms == 0) | (norms > 0.02)).all()))


@settings(max_examples=150, deadline=None)
@given(cases())
def test_dense_operations_find_what_automatic_differentiation_finds(case: Case) -> None:
    assume_no_empty_codes(case)
    assert_same(run(case, DenseOps())[1], plain(case), 1e-9)


@settings(max_examples=150, deadline=None)
@given(cases())
def test_sparse_operations_find_it_in_float32(case: Case) -> None:
    assume_no_empty_codes(case)
    assume_clear(case)
    assert_same(run(case, THREADS[2], torch.float32)[1], plain(case), 1e-4)


@settings(max_examples=30, deadline=None)
@given(cases())
def test_any_number_of_threads_finds_the_same(case: Case) -> None:
    assume_clear(case)
    one, two, three = (run(case, THREADS[n], torch.float32) for n in (1, 2, 3))
    for outcome, found in (two, three):
        assert_same(found, one[1], 1e-5)
        assert torch.equal(outcome.used, one[0].used)


@both
def test_blocks_of_their_usual_sizes(ops: Ops, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FEW_ROWS", 64), ("BLOCK_BYTES", 2 << 20)):
        monkeypatch.setattr(f"csr_qdrant.trainer.sparse_ops.{name}", value)
    monkeypatch.setattr("csr_qdrant.trainer.dense_ops.CHUNK_BYTES", 1 << 28)
    labels = torch.arange(300) % 40 - 1
    batch = TorchBatch(rows_of(300, 24, 5), labels)
    config = TrainConfig(k=(8, 16), h=200, contrastive=0.5)
    case = Case(make_model(24, 200, 5), config, batch, torch.arange(30), step=1)
    dtype = torch.float64 if isinstance(ops, DenseOps) else torch.float32
    assert_same(run(case, ops, dtype)[1], plain(case), 1e-4)
