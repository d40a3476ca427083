"""Every term of the objective against its equation, written plainly here, in float64."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from csr_qdrant.trainer import TrainConfig
from csr_qdrant.trainer.data import Matches
from csr_qdrant.trainer.losses import (
    auxiliary,
    contrastive,
    distillation,
    gram,
    paired,
    same_label,
    squared_error,
)
from csr_qdrant.trainer.model import Active, Autoencoder, densify
from csr_qdrant.trainer.objective import TorchBatch, annealed_k, objective
from csr_qdrant.trainer.supervision import same_pair

NOBODY = torch.empty(0, dtype=torch.int64)


class Case(NamedTuple):
    """A model with biases, a batch and a k, all in float64."""

    model: Autoencoder
    x: Tensor  # (B, d)
    k: int
    random: torch.Generator


def make_case(B: int, d: int, h: int, k: int, seed: int = 0) -> Case:
    random = torch.Generator().manual_seed(seed)
    model = Autoencoder(d, h, random).double()
    with torch.no_grad():
        for bias in (model.latent_bias, model.pre_bias):
            bias.copy_(0.3 * torch.randn(len(bias), generator=random, dtype=torch.float64))
    x = torch.randn(B, d, generator=random, dtype=torch.float64)
    return Case(model, x, min(k, h), random)


cases = st.builds(
    make_case,
    B=st.integers(2, 9),
    d=st.integers(2, 8),
    h=st.integers(4, 24),
    k=st.integers(1, 6),
    seed=st.integers(0, 2**32),
)
quick = settings(max_examples=25, deadline=None)


# --- the equations, as the papers write them ----------------------------------------------


def plain_pre_activations(model: Autoencoder, x: Tensor) -> Tensor:
    return (x - model.pre_bias) @ model.weight.T + model.latent_bias


def plain_codes(a: Tensor, k: int) -> Tensor:
    threshold = a.sort(dim=1, descending=True).values[:, k - 1 : k]
    return torch.where(a >= threshold, a, 0.0).clamp(min=0)


def plain_reconstruction(model: Autoencoder, x: Tensor, k: int) -> Tensor:
    z = plain_codes(plain_pre_activations(model, x), k)
    error = x - (z @ model.weight + model.pre_bias)
    return torch.stack([(row * row).sum() for row in error]).mean()


def plain_contrastive(z: Tensor, temperature: float) -> Tensor:
    """Over 2B codes, both views being the same codes: −log(pos / (pos + neg))."""
    views = torch.cat([z, z])
    views = views / views.norm(dim=1, keepdim=True).clamp(min=1e-8)
    exponentials = (views @ views.T / temperature).exp()
    terms = []
    for i in range(len(views)):
        positive = exponentials[i, (i + len(z)) % len(views)]
        everything = exponentials[i].sum() - exponentials[i, i]
        terms.append(-torch.log(positive / everything))
    return torch.stack(terms).mean()


def plain_distillation(similarities: Tensor, x: Tensor, temperature: float) -> Tensor:
    dense = x / x.norm(dim=1, keepdim=True)
    terms = []
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j != i]
        p = torch.softmax(dense[i] @ dense[others].T / temperature, 0)
        q = torch.softmax(similarities[i, others] / temperature, 0)
        terms.append((p * (p / q).log()).sum())
    return torch.stack(terms).mean()


def plain_same_label(similarities: Tensor, labels: list[int], temperature: float) -> Tensor:
    exponentials = (similarities / temperature).exp()
    terms = []
    for i, label in enumerate(labels):
        others = [j for j in range(len(labels)) if j != i and labels[j] >= 0]
        positives = [j for j in others if labels[j] == label]
        if label >= 0 and positives:
            terms.append(
                -torch.log(exponentials[i, positives].sum() / exponentials[i, others].sum())
            )
    return torch.stack(terms).mean() if terms else similarities.new_zeros(())


def plain_paired(
    similarities: Tensor, known: list[tuple[int, int]], weights: Tensor, temperature: float
) -> Tensor:
    exponentials = (similarities / temperature).exp()
    p = len(similarities)
    total = similarities.new_zeros(())
    for i in range(p):
        row = [j for j in range(p) if (i, j) not in known]
        column = [j for j in range(p) if (j, i) not in known]
        forth = -torch.log(exponentials[i, i] / exponentials[i, row].sum())
        back = -torch.log(exponentials[i, i] / exponentials[column, i].sum())
        total = total + weights[i] * (forth + back) / 2
    return total / weights.sum()


def plain_auxiliary(model: Autoencoder, x: Tensor, k: int, dead: list[int], k_aux: int) -> Tensor:
    """nMSE(x̂_aux, x − x̂ + b_pre) with x̂_aux from the dead latents' own TopK and ReLU.

    As here, b_pre is a constant of this term.
    """
    x_hat = plain_codes(plain_pre_activations(model, x), k) @ model.weight + model.pre_bias
    target = (x - x_hat + model.pre_bias).detach()
    b_pre = model.pre_bias.detach()
    a = (x - b_pre) @ model.weight.T + model.latent_bias
    mask = torch.zeros_like(a)
    mask[:, dead] = 1
    z = plain_codes(a * mask, min(k_aux, len(dead)))
    x_aux = z @ model.weight + b_pre
    error = ((x_aux - target) ** 2).mean()
    return error / ((target.mean(0) - target) ** 2).mean()


# --- helpers ------------------------------------------------------------------------------


def gradients(loss: Tensor, model: Autoencoder) -> list[Tensor]:
    found = torch.autograd.grad(
        loss, list(model.parameters()), retain_graph=True, allow_unused=True
    )
    return [
        torch.zeros_like(p) if g is None else g
        for g, p in zip(found, model.parameters(), strict=True)
    ]


def assert_same(ours: Tensor, plain: Tensor, model: Autoencoder, rtol: float = 1e-6) -> None:
    """Both losses and their gradients by every parameter are equal."""
    assert ours.item() == pytest.approx(plain.item(), rel=rtol, abs=1e-12)
    for one, other in zip(gradients(ours, model), gradients(plain, model), strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=1e-9)


def similarities_of(case: Case) -> Tensor:
    codes = case.model.active(case.model.pre_activations(case.x), case.k).normalised()
    return gram(densify(codes, len(case.model.latent_bias)))


def plain_similarities(case: Case) -> Tensor:
    z = plain_codes(plain_pre_activations(case.model, case.x), case.k)
    unit: Tensor = z / z.norm(dim=1, keepdim=True).clamp(min=1e-8)
    return torch.mm(unit, unit.T)


def random_similarities(B: int, seed: int) -> Tensor:
    z = torch.randn(B, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    z = F.normalize(z, dim=1)
    return (z @ z.T).requires_grad_()


def gradcheck(f: Callable[[Tensor], Tensor], x: Tensor) -> None:
    assert torch.autograd.gradcheck(f, (x.detach().clone().requires_grad_(),))


# --- the model ----------------------------------------------------------------------------


@quick
@given(cases)
def test_reconstruction(case: Case) -> None:
    model, x, k, _ = case
    ours = squared_error(model.decode(model.active(model.pre_activations(x), k)), x)
    assert_same(ours, plain_reconstruction(model, x, k), model)


@quick
@given(cases)
def test_active_latents_are_the_strongest_ones_in_order(case: Case) -> None:
    model, x, k, _ = case
    a = model.pre_activations(x)
    active = model.active(a, k)
    torch.testing.assert_close(densify(active, a.shape[1]), plain_codes(a, k))
    assert (active.values.diff(dim=1) <= 0).all()
    for fewer in range(1, k + 1):  # nested: the first codes of k latents are those of fewer
        first = densify(active.first(fewer), a.shape[1])
        torch.testing.assert_close(first, plain_codes(a, fewer))


def test_the_decoder_is_the_transpose_of_the_encoder() -> None:
    model, x, k, _ = make_case(4, 6, 12, 3)
    before, active = model.pre_activations(x), model.active(model.pre_activations(x), k)
    reconstruction = model.decode(active)
    latent = int(active.latents[0, 0])
    with torch.no_grad():
        model.weight[latent] += 0.5
    assert not torch.allclose(model.pre_activations(x)[:, latent], before[:, latent])
    moved = model.decode(active)[0] - reconstruction[0]
    torch.testing.assert_close(moved, 0.5 * active.values[0, 0].expand(6))
    assert [name for name, _ in model.named_parameters()] == ["weight", "latent_bias", "pre_bias"]


@quick
@given(cases, st.floats(0.01, 100))
def test_an_encoder_of_unscaled_vectors_gives_the_models_codes_times_the_scale(
    case: Case, scale: float
) -> None:
    model, x, k, _ = case
    encoder = model.to_encoder(scale, k=k)
    codes = encoder.encode((x * scale).float().numpy(), device="cpu").to_dense()
    expected = plain_codes(plain_pre_activations(model, x), k).detach().numpy() * scale
    np.testing.assert_allclose(codes, expected, rtol=1e-3, atol=2e-5 * scale)
    decoded = encoder.decode(encoder.encode((x * scale).float().numpy(), device="cpu"))
    expected = expected @ model.weight.detach().numpy() + model.pre_bias.detach().numpy() * scale
    np.testing.assert_allclose(decoded, expected, rtol=1e-3, atol=1e-4 * scale)


def test_an_untrained_model_starts_as_the_papers_do() -> None:
    model = Autoencoder(100, 400, torch.Generator().manual_seed(0))
    assert not model.latent_bias.any() and not model.pre_bias.any()
    # nn.Linear's default: uniform in ±1/√d.
    assert model.weight.abs().max().item() == pytest.approx(0.1, rel=1e-3)
    assert model.weight.std().item() == pytest.approx(0.1 / math.sqrt(3), rel=0.02)


# --- similarity terms ---------------------------------------------------------------------


@quick
@given(cases)
def test_gram(case: Case) -> None:
    z = case.x.clone().requires_grad_()
    torch.testing.assert_close(gram(z), z @ z.T)
    assert torch.autograd.gradcheck(gram, (z,))


@quick
@given(cases, st.sampled_from([0.05, 0.2, 1.0]))
def test_contrastive_is_the_papers_with_two_equal_views(case: Case, temperature: float) -> None:
    model, x, k, _ = case
    z = plain_codes(plain_pre_activations(model, x), k)
    if not (z.norm(dim=1) > 0).all():  # the equation has no answer for a code of zeros
        return
    ours = contrastive(similarities_of(case), temperature)
    assert_same(ours, plain_contrastive(z, temperature), model)


@quick
@given(cases, st.sampled_from([0.05, 0.1, 1.0]))
def test_distillation(case: Case, temperature: float) -> None:
    ours = distillation(similarities_of(case), case.x, temperature)
    plain = plain_distillation(plain_similarities(case), case.x, temperature)
    assert_same(ours, plain, case.model)


def test_distillation_vanishes_where_codes_are_as_similar_as_vectors() -> None:
    x = make_case(7, 5, 8, 2).x
    dense = F.normalize(x, dim=1)
    assert distillation(dense @ dense.T, x, 0.1).item() == pytest.approx(0, abs=1e-12)


@quick
@given(
    st.lists(st.integers(-1, 3), min_size=2, max_size=10),
    st.integers(0, 1000),
    st.sampled_from([0.05, 0.2]),
)
def test_same_label(labels: list[int], seed: int, temperature: float) -> None:
    similarities = random_similarities(len(labels), seed)
    ours = same_label(similarities, torch.tensor(labels), temperature)
    plain = plain_same_label(similarities, labels, temperature)
    assert ours.item() == pytest.approx(plain.item(), rel=1e-9, abs=1e-12)
    (ours_by,) = torch.autograd.grad(ours, similarities, retain_graph=True)
    assert ours_by.isfinite().all()
    if plain.requires_grad:
        (plain_by,) = torch.autograd.grad(plain, similarities)
        torch.testing.assert_close(ours_by, plain_by, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [-1, -1, -1], [-1, 0, -1]])
def test_rows_without_a_partner_have_no_loss_and_no_gradient(labels: list[int]) -> None:
    similarities = random_similarities(len(labels), 0)
    loss = same_label(similarities, torch.tensor(labels), 0.1)
    assert loss.item() == 0
    (by,) = torch.autograd.grad(loss, similarities)
    assert not by.any()


@quick
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=8),
    st.integers(0, 1000),
)
def test_paired(pairs: list[tuple[int, int]], seed: int) -> None:
    p, random = len(pairs), torch.Generator().manual_seed(seed)
    similarities = torch.rand(p, p, generator=random, dtype=torch.float64).requires_grad_()
    weights = 0.1 + torch.rand(p, generator=random, dtype=torch.float64)
    queries, documents = (np.array(rows) for rows in zip(*pairs, strict=True))
    known = [
        (i, j)
        for i in range(p)
        for j in range(p)
        if i != j and (pairs[i][0] == pairs[j][0] or pairs[i][1] == pairs[j][1])
    ]
    mask = torch.from_numpy(same_pair(queries, documents))
    assert [(int(i), int(j)) for i, j in mask.nonzero()] == known
    ours = paired(similarities, mask, weights, 0.2)
    plain = plain_paired(similarities, known, weights, 0.2)
    assert ours.item() == pytest.approx(plain.item(), rel=1e-9, abs=1e-12)
    (ours_by,) = torch.autograd.grad(ours, similarities, retain_graph=True)
    (plain_by,) = torch.autograd.grad(plain, similarities)
    torch.testing.assert_close(ours_by, plain_by, rtol=1e-8, atol=1e-12)


def test_gradients_by_finite_differences() -> None:
    x, similarities = make_case(6, 4, 8, 2).x, random_similarities(6, 1)
    labels = torch.tensor([0, 0, 1, 2, 1, -1])
    known = torch.zeros(6, 6, dtype=torch.bool)
    known[0, 3] = known[4, 5] = True
    weights = torch.arange(1, 7).double()
    gradcheck(lambda s: contrastive(s, 0.2), similarities)
    gradcheck(lambda s: distillation(s, x, 0.3), similarities)
    gradcheck(lambda s: same_label(s, labels, 0.2), similarities)
    gradcheck(lambda s: paired(s, known, weights, 0.2), similarities)


@pytest.mark.parametrize("temperature", [0.01, 0.05])
def test_small_temperatures_do_not_overflow(temperature: float) -> None:
    s = random_similarities(8, 2).float().detach().requires_grad_()
    x, labels = torch.randn(8, 5), torch.arange(8) % 3
    for loss in (
        contrastive(s, temperature),
        distillation(s, x, temperature),
        same_label(s, labels, temperature),
        paired(s, torch.zeros(8, 8, dtype=torch.bool), torch.ones(8), temperature),
    ):
        (by,) = torch.autograd.grad(loss, s)
        assert loss.isfinite() and by.isfinite().all()


# --- dead latents -------------------------------------------------------------------------


@quick
@given(cases, st.integers(1, 12), st.data())
def test_auxiliary_is_the_papers_where_dead_pre_activations_are_positive(
    case: Case, k_aux: int, data: st.DataObject
) -> None:
    model, x, k, _ = case
    h = len(model.latent_bias)
    dead = sorted(data.draw(st.sets(st.integers(0, h - 1), min_size=1, max_size=h)))
    with torch.no_grad():
        model.latent_bias[dead] += 100.0
    a = model.pre_activations(x)
    residual = (x - model.decode(model.active(a, k))).detach()
    ours = auxiliary(model, a, residual, torch.tensor(dead), k_aux)
    plain = plain_auxiliary(model, x, k, dead, k_aux)
    assert_same(ours, plain, model, rtol=1e-4)  # ours divides by a little more


def test_dead_latents_below_zero_are_raised_and_never_pushed_further_down() -> None:
    model, x, k, _ = make_case(40, 6, 12, 3)
    dead = torch.tensor([1, 4, 7])
    with torch.no_grad():
        model.latent_bias[dead] = -10.0
    a = model.pre_activations(x)
    assert (a[:, dead] < 0).all()
    residual = (x - model.decode(model.active(a, k))).detach()
    loss = auxiliary(model, a, residual, dead, 8)
    (by,) = torch.autograd.grad(loss, a, retain_graph=True)
    assert (by[:, dead] <= 0).all()  # descending raises a
    assert (by[:, dead] < 0).any(0).all()
    live = [j for j in range(12) if j not in dead.tolist()]
    assert not by[:, live].any()
    weight, latent_bias, pre_bias = gradients(loss, model)
    assert not weight[live].any() and not latent_bias[live].any()
    assert pre_bias.abs().max() < 1e-12


@pytest.mark.parametrize("rows", [1, 2])
def test_auxiliary_of_rows_that_are_their_own_mean_is_measured_by_their_power(rows: int) -> None:
    model, x, _, _ = make_case(1, 5, 10, 2)
    x = x.repeat(rows, 1)
    dead = torch.arange(10)
    with torch.no_grad():
        model.latent_bias.fill_(-100.0)  # nothing is reconstructed: error = power
    loss = auxiliary(model, model.pre_activations(x), x, dead, 4)
    assert loss.item() == pytest.approx(1, rel=1e-6)


# --- the whole ----------------------------------------------------------------------------


def config_of(k: int, **settings: object) -> TrainConfig:
    values: dict[str, object] = {"k": (k,), "k_aux": 3, "aux": 0.7, "contrastive": 0.4}
    values |= {"distillation": 2.0, "multi_k": 0.3, "supervised": 0.6, "reconstruction": 1.5}
    return TrainConfig(**(values | settings))  # type: ignore[arg-type]


def plain_total(case: Case, config: TrainConfig, dead: list[int]) -> Tensor:
    model, x, k, _ = case
    h = len(model.latent_bias)
    z = plain_codes(plain_pre_activations(model, x), k)
    total = config.reconstruction * plain_reconstruction(model, x, k)
    total = total + config.multi_k * plain_reconstruction(model, x, min(4 * k, h))
    total = total + config.contrastive * plain_contrastive(z, config.contrastive_temperature)
    total = total + config.distillation * plain_distillation(
        plain_similarities(case), x, config.distillation_temperature
    )
    if dead:
        total = total + config.aux * plain_auxiliary(model, x, k, dead, config.k_aux)
    return total


@quick
@given(cases)
def test_the_objective_is_the_weighted_sum_of_its_terms(case: Case) -> None:
    model, x, k, _ = case
    with torch.no_grad():
        model.latent_bias.add_(5.0)  # no empty codes, no dead latents below zero
    dead = [0, 2, 3]
    config = config_of(k)
    outcome = objective(model, TorchBatch(x), torch.tensor(dead), config, step=0, progress=0.5)
    assert_same(outcome.loss, plain_total(case, config, dead), model, rtol=1e-4)
    alive = objective(model, TorchBatch(x), NOBODY, config, step=0, progress=0.5)
    assert_same(alive.loss, plain_total(case, config, []), model)
    assert "aux" not in alive.terms


def test_labels_and_pairs_add_their_term() -> None:
    case = make_case(8, 5, 16, 3)
    model, x, _, _ = case
    similarities = plain_similarities(case)
    config = config_of(3)
    base = objective(model, TorchBatch(x), NOBODY, config, step=0, progress=0.0).loss
    labels = torch.tensor([0, 1, 0, 2, 1, 1, 2, 0])
    batch = TorchBatch(x, labels=labels)
    labelled = objective(model, batch, NOBODY, config, step=0, progress=0.0).loss
    plain = plain_same_label(similarities, labels.tolist(), config.supervised_temperature)
    assert_same(labelled, base + 0.6 * plain, model)
    at, documents = torch.tensor([7, 5, 5]), torch.tensor([0, 2, 3])
    known = torch.from_numpy(same_pair(at.numpy(), documents.numpy()))
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    batch = TorchBatch(x, matches=Matches(at, documents, known, weights))
    matched = objective(model, batch, NOBODY, config, step=0, progress=0.0).loss
    plain = plain_paired(
        similarities[at][:, documents], [(1, 2), (2, 1)], weights, config.supervised_temperature
    )
    assert_same(matched, base + 0.6 * plain, model)


def test_each_step_trains_one_k_of_the_list_in_turn() -> None:
    model, x, _, _ = make_case(6, 5, 40, 1)
    config = TrainConfig(k=(2, 8, 4))
    for step, k in enumerate((8, 4, 2, 8)):
        outcome = objective(model, TorchBatch(x), NOBODY, config, step=step, progress=0.0)
        plain = plain_reconstruction(model, x, k).item()
        assert outcome.terms["reconstruction"].item() == pytest.approx(plain)
        plain = plain_reconstruction(model, x, 32).item()
        assert outcome.terms["multi_k"].item() == pytest.approx(plain)
        assert outcome.active.latents.shape == (6, 8)


def test_the_objective_changes_nothing_that_it_is_given() -> None:
    model, x, k, _ = make_case(6, 5, 16, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x_before, dead = x.clone(), torch.tensor([1, 2])
    objective(model, TorchBatch(x), dead, config_of(k), step=0, progress=0.0).loss.backward()  # type: ignore[no-untyped-call]
    assert torch.equal(x, x_before) and dead.tolist() == [1, 2]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_empty_codes_leave_the_loss_finite() -> None:
    model, x, _, _ = make_case(6, 5, 16, 3)
    with torch.no_grad():
        model.latent_bias.fill_(-100.0)
    batch = TorchBatch(x, labels=torch.tensor([0, 0, 1, 1, 2, 3]))
    outcome = objective(model, batch, torch.arange(16), config_of(3), step=0, progress=0.0)
    assert outcome.loss.isfinite()
    assert all(by.isfinite().all() for by in gradients(outcome.loss, model))
    assert not (outcome.active.values > 0).any()


def test_a_row_alone_has_no_similarity_terms() -> None:
    model, x, _, _ = make_case(1, 5, 16, 3)
    outcome = objective(model, TorchBatch(x), NOBODY, config_of(3), step=0, progress=0.0)
    assert set(outcome.terms) == {"reconstruction", "multi_k"}
    assert all(by.isfinite().all() for by in gradients(outcome.loss, model))


def test_terms_of_weight_zero_are_left_out() -> None:
    model, x, _, _ = make_case(4, 5, 16, 3)
    config = TrainConfig(k=(3,), multi_k=0, aux=0, contrastive=0, distillation=0)
    outcome = objective(model, TorchBatch(x), torch.tensor([1]), config, step=0, progress=0.0)
    assert set(outcome.terms) == {"reconstruction"}
    assert_same(outcome.loss, plain_reconstruction(model, x, 3), model)


def test_k_anneals_linearly_over_the_first_seven_tenths() -> None:
    config = TrainConfig(k=(4, 32), k_anneal=64)
    assert [annealed_k(config, 32, 1024, p) for p in (0, 0.35, 0.7, 1)] == [64, 48, 32, 32]
    assert [annealed_k(config, 4, 1024, p) for p in (0, 0.35, 0.7, 1)] == [64, 34, 4, 4]
    assert annealed_k(config, 32, 160, 0) == 40  # so that 4k latents exist
    assert annealed_k(config, 32, 100, 0) == 32
    assert annealed_k(TrainConfig(k=(4,)), 4, 1024, 0) == 4


def test_codes_of_norm_one() -> None:
    active = Active(torch.tensor([[0, 2], [1, 3]]), torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    assert active.normalised().values.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]
