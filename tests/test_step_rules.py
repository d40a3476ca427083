"""What a step looks at, what it leaves alone, and what it does where an equation has no answer."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from csr_qdrant.errors import ConfigError
from csr_qdrant.trainer import TrainConfig
from csr_qdrant.trainer.batch import TorchBatch
from csr_qdrant.trainer.data import Matches
from csr_qdrant.trainer.dense_ops import DenseOps
from csr_qdrant.trainer.model import Autoencoder
from csr_qdrant.trainer.ops import Ops, ops_for
from csr_qdrant.trainer.sparse_ops import SparseOps
from csr_qdrant.trainer.step import Outcome, Plan, Step, annealed_k

NOBODY = torch.empty(0, dtype=torch.int64)
NO_TERMS: dict[str, Any] = {
    "reconstruction": 0,
    "multi_k": 0,
    "aux": 0,
    "contrastive": 0,
    "distillation": 0,
    "supervised": 0,
}
both = pytest.mark.parametrize("ops", [DenseOps(), SparseOps(2)], ids=["dense", "sparse"])


def model_of(h: int = 16, bias: float = 0.0) -> Autoencoder:
    """Return a model of 5 dimensions with biases."""
    random = torch.Generator().manual_seed(1)
    model = Autoencoder(5, h, random)
    with torch.no_grad():
        model.latent_bias.copy_(bias + 0.3 * torch.randn(h, generator=random))
        model.pre_bias.copy_(0.3 * torch.randn(5, generator=random))
    return model


def rows_of(rows: int) -> Tensor:
    return torch.randn(rows, 5, generator=torch.Generator().manual_seed(2))


def config_of(*k: int, **dials: Any) -> TrainConfig:
    values: dict[str, Any] = {"k": k, "k_aux": 3, "aux": 0.7, "contrastive": 0.4}
    return TrainConfig(**(values | dials))


def matches() -> Matches:
    """Return three pairs among six rows, two of one query, and a negative."""
    known = torch.zeros(3, 4, dtype=torch.bool)
    known[1, 2] = known[2, 1] = True
    at, documents = torch.tensor([5, 4, 4]), torch.tensor([0, 2, 3])
    return Matches(at, documents, known, torch.tensor([1.0, 2.0, 0.5]), torch.tensor([1]))


def compute(
    ops: Ops,
    model: Autoencoder,
    config: TrainConfig,
    batch: TorchBatch,
    dead: Tensor = NOBODY,
    step: int = 0,
    progress: float = 0.0,
) -> Outcome:
    return Step(model, config, ops)(batch, dead, step=step, progress=progress)


def gradients(model: Autoencoder) -> list[Tensor]:
    return [each.grad for each in model.parameters() if each.grad is not None]


def codes(model: Autoencoder, x: Tensor, k: int) -> Tensor:
    a = x @ model.weight.T + model.offset
    strongest = a.topk(k, dim=1)
    return torch.zeros_like(a).scatter(1, strongest.indices, strongest.values.relu()).detach()


def squared_error(model: Autoencoder, x: Tensor, k: int) -> float:
    error = codes(model, x, k) @ model.weight.detach() + model.pre_bias.detach() - x
    return float(error.square().sum(1).mean())


# --- k ------------------------------------------------------------------------------------


@both
def test_each_step_reconstructs_from_one_k_of_the_list(ops: Ops) -> None:
    model, x, config = model_of(40), rows_of(6), config_of(2, 8, 4)
    for step, k in ((0, 8), (1, 4), (2, 8), (8, 2)):
        outcome = compute(ops, model, config, TorchBatch(x), step=step)
        assert float(outcome.terms["reconstruction"]) == pytest.approx(squared_error(model, x, k))
        assert float(outcome.terms["multi_k"]) == pytest.approx(squared_error(model, x, 32))
        assert torch.equal(outcome.used, codes(model, x, 8).any(0))


def test_each_k_is_taken_as_often_as_it_is_large() -> None:
    config = TrainConfig(k=(2, 8, 4))
    chosen = Counter(Plan.of(config, 64, step, 0.0).k for step in range(1400))
    assert {k: round(count / 100) for k, count in chosen.items()} == {8: 8, 4: 4, 2: 2}
    assert {Plan.of(TrainConfig(k=(16,)), 64, step, 0.0).k for step in range(50)} == {16}


@both
def test_similarities_are_those_of_the_largest_k(ops: Ops) -> None:
    model, x = model_of(40), rows_of(6)
    names = {"contrastive": 1.0, "distillation": 1.0, "balance": 1.0}
    nested = compute(ops, model, config_of(8, 2, **names), TorchBatch(x), step=3)
    alone = compute(ops, model, config_of(8, **names), TorchBatch(x))
    assert float(nested.terms["reconstruction"]) > float(alone.terms["reconstruction"])
    for name in names:
        assert float(nested.terms[name]) == pytest.approx(float(alone.terms[name]), rel=1e-5)


@both
def test_without_the_4k_term_the_codes_end_at_the_largest_k(ops: Ops) -> None:
    model, x = model_of(40), rows_of(6)
    outcome = compute(ops, model, config_of(2, 8, multi_k=0), TorchBatch(x), step=3)
    assert float(outcome.terms["reconstruction"]) == pytest.approx(squared_error(model, x, 2))
    assert "multi_k" not in outcome.terms
    assert torch.equal(outcome.used, codes(model, x, 8).any(0))


@both
def test_what_only_queries_use_is_not_used(ops: Ops) -> None:
    model, x, config = model_of(40), rows_of(6), config_of(4)
    outcome = compute(ops, model, config, TorchBatch(x, None, matches(), documents=4))
    assert torch.equal(outcome.used, codes(model, x[:4], 4).any(0))
    assert not torch.equal(outcome.used, codes(model, x, 4).any(0))


def test_k_anneals_linearly_over_the_first_seven_tenths() -> None:
    config = TrainConfig(k=(4, 32), k_anneal=64)
    assert [annealed_k(config, 32, 1024, p) for p in (0, 0.35, 0.7, 1)] == [64, 48, 32, 32]
    assert [annealed_k(config, 4, 1024, p) for p in (0, 0.35, 0.7, 1)] == [64, 34, 4, 4]
    assert annealed_k(config, 32, 160, 0) == 40  # so that 4k latents exist
    assert annealed_k(config, 32, 100, 0) == 32
    assert annealed_k(TrainConfig(k=(4,)), 4, 1024, 0) == 4


@both
@pytest.mark.parametrize(
    ("progress", "first", "second"), [(0.0, 8, 8), (0.35, 6, 5), (0.7, 4, 2), (1.0, 4, 2)]
)
def test_a_step_goes_by_the_k_of_its_moment(
    ops: Ops, progress: float, first: int, second: int
) -> None:
    model, x, config = model_of(40), rows_of(6), config_of(2, 4, k_anneal=8)
    for step, k in ((0, first), (3, second)):
        outcome = compute(ops, model, config, TorchBatch(x), step=step, progress=progress)
        assert float(outcome.terms["reconstruction"]) == pytest.approx(squared_error(model, x, k))
        many = squared_error(model, x, 4 * first)
        assert float(outcome.terms["multi_k"]) == pytest.approx(many)
        assert torch.equal(outcome.used, codes(model, x, first).any(0))


# --- terms --------------------------------------------------------------------------------


@both
def test_the_loss_is_the_weighted_sum_of_the_terms(ops: Ops) -> None:
    config = config_of(3, balance=0.3, supervised=0.6, reconstructed_pairs=0.2).resolved()
    batch = TorchBatch(rows_of(6), matches=matches())
    outcome = compute(ops, model_of(), config, batch, torch.tensor([1, 4]))
    assert set(outcome.terms) == {*NO_TERMS, "balance", "reconstructed_pairs"}
    total = sum(getattr(config, name) * float(term) for name, term in outcome.terms.items())
    assert float(outcome.loss) == pytest.approx(total)


@both
@pytest.mark.parametrize("name", sorted(NO_TERMS))
def test_terms_of_weight_zero_are_left_out(ops: Ops, name: str) -> None:
    model, batch = model_of(), TorchBatch(rows_of(6), torch.tensor([0, 0, 1, 1, 2, -1]))
    config = config_of(3, **NO_TERMS | {name: 0.5})
    outcome = compute(ops, model, config, batch, torch.tensor([1]))
    assert set(outcome.terms) == {"reconstruction", name}
    assert float(outcome.loss) == pytest.approx(0.5 * float(outcome.terms[name]))
    assert gradients(model)[0].any()
    compute(ops, model, config_of(3, **NO_TERMS), batch, torch.tensor([1]))
    assert not any(each.any() for each in gradients(model))


@both
def test_a_row_alone_has_no_similarity_terms(ops: Ops) -> None:
    model, x = model_of(), rows_of(1)
    outcome = compute(ops, model, config_of(3, balance=1), TorchBatch(x, torch.tensor([0])))
    assert set(outcome.terms) == {"reconstruction", "multi_k"}
    found = [each.clone() for each in gradients(model)]
    compute(ops, model, config_of(3, contrastive=0, distillation=0), TorchBatch(x))
    for one, other in zip(found, gradients(model), strict=True):
        assert one.any() and torch.equal(one, other)


# --- dead latents -------------------------------------------------------------------------


@both
def test_dead_latents_below_zero_are_raised_and_never_pushed_further_down(ops: Ops) -> None:
    model, dead = model_of(12), torch.tensor([1, 4, 7])
    live = [j for j in range(12) if j not in dead.tolist()]
    with torch.no_grad():
        model.latent_bias[dead] = -10.0
    config = config_of(3, **NO_TERMS | {"aux": 1.0})
    compute(ops, model, config, TorchBatch(rows_of(40)), dead)
    by_weight, by_bias, by_pre = gradients(model)
    assert (by_bias[dead] < 0).all()  # descending raises them
    assert by_weight[dead].any(1).all()
    assert not by_weight[live].any() and not by_bias[live].any() and not by_pre.any()
    for row in rows_of(40):  # whatever a row looks like
        compute(ops, model, config, TorchBatch(row[None]), dead)
        assert (gradients(model)[1] <= 0).all()


@both
def test_used_are_latents_that_are_active_in_some_row(ops: Ops) -> None:
    model, x = model_of(30), rows_of(4)
    with torch.no_grad():
        model.latent_bias.sub_(1.0)  # so that places stay empty
    used = compute(ops, model, config_of(8), TorchBatch(x)).used
    assert used.dtype == torch.bool and used.shape == (30,)
    assert torch.equal(used, codes(model, x, 8).any(0))
    assert 0 < used.sum() < 30


# --- ends ---------------------------------------------------------------------------------


@both
def test_empty_codes_leave_everything_finite(ops: Ops) -> None:
    x, labels = rows_of(6), torch.tensor([0, 0, 1, 1, 2, 3])
    config = config_of(3, balance=1, reconstructed_pairs=1)
    for batch in (TorchBatch(x), TorchBatch(x, labels), TorchBatch(x, matches=matches())):
        for dead in (NOBODY, torch.arange(16)):
            model = model_of(bias=-100.0)
            outcome = compute(ops, model, config, batch, dead)
            assert outcome.loss.isfinite() and not outcome.used.any()
            assert all(each.isfinite().all() for each in gradients(model))
            assert gradients(model)[0].any() == (len(dead) > 0)


@both
@pytest.mark.parametrize("rows", [2, 6])
def test_equal_rows_and_rows_of_zeros_leave_everything_finite(ops: Ops, rows: int) -> None:
    labels = torch.zeros(rows, dtype=torch.int64)
    for x in (torch.zeros(rows, 5), rows_of(1).repeat(rows, 1)):
        model = model_of()
        outcome = compute(ops, model, config_of(3), TorchBatch(x, labels), torch.arange(4))
        assert outcome.loss.isfinite()
        assert all(each.isfinite().all() for each in gradients(model))


@both
@pytest.mark.parametrize("temperature", [0.001, 0.01])
def test_small_temperatures_do_not_overflow(ops: Ops, temperature: float) -> None:
    names = ("contrastive", "distillation", "supervised")
    dials = {f"{name}_temperature": temperature for name in names}
    x, labels = rows_of(6), torch.tensor([0, 0, 1, 1, 2, -1])
    config = config_of(3, reconstructed_pairs=1, **dials)
    for batch in (TorchBatch(x, labels), TorchBatch(x, matches=matches())):
        model = model_of()
        assert compute(ops, model, config, batch).loss.isfinite()
        assert all(each.isfinite().all() for each in gradients(model))


@both
def test_a_step_changes_nothing_that_it_is_given(ops: Ops) -> None:
    x, labels, dead = rows_of(6), torch.tensor([0, 0, 1, 1, 2, -1]), torch.tensor([1, 2])
    for batch in (TorchBatch(x, labels), TorchBatch(x, matches=matches())):
        model, config = model_of(), config_of(3, reconstructed_pairs=1)
        given = [*model.state_dict().values(), x, labels, *(batch.matches or ()), dead]
        before = [each.clone() for each in given]
        compute(ops, model, config, batch, dead)
        first = [each.clone() for each in gradients(model)]
        compute(ops, model, config, batch, dead)
        assert all(torch.equal(one, other) for one, other in zip(given, before, strict=True))
        for one, other in zip(first, gradients(model), strict=True):
            assert torch.equal(one, other)  # they take the place of the last step's


def test_products_in_bf16_are_nearly_those_in_float32() -> None:
    model, x, config = model_of(40), rows_of(64), config_of(8, distillation=1.0)
    found = []
    for ops in (DenseOps(), DenseOps(torch.bfloat16)):
        outcome = compute(ops, model, config, TorchBatch(x), dead=torch.arange(3))
        gradient = model.weight.grad
        assert gradient is not None and gradient.dtype == outcome.loss.dtype == torch.float32
        found.append((float(outcome.loss), gradient.clone()))
    (loss, exact), (near, rounded) = found
    assert near == pytest.approx(loss, rel=0.02) and near != loss
    assert float((rounded - exact).norm()) < 0.1 * float(exact.norm())


def test_bf16_on_a_cpu_is_refused() -> None:
    with pytest.raises(ConfigError, match="precision bf16 is for GPUs"):
        ops_for(torch.device("cpu"), "bf16")
