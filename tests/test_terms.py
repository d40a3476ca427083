"""Terms over similarities against their equations, written as loops here, in float64."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from csr_qdrant.trainer.supervision import same_pair
from csr_qdrant.trainer.terms import (
    Term,
    balance,
    contrastive,
    distillation,
    paired,
    same_label,
)

Compute = Callable[[Tensor, int], Term]  # of a block and the number of its first row
quick = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32)
temperatures = st.sampled_from([0.05, 0.2, 1.0])
label_lists = st.lists(st.integers(-1, 3), min_size=2, max_size=10)


# --- the equations, as the papers write them ----------------------------------------------


def plain_contrastive(similarities: Tensor, temperature: float) -> Tensor:
    """Over 2B codes, both views being the same codes: −log(pos / (pos + neg))."""
    exponentials = (similarities.repeat(2, 2) / temperature).exp()
    count, terms = len(similarities), []
    for i in range(2 * count):
        others = [j for j in range(2 * count) if j != i]
        positive = exponentials[i, (i + count) % (2 * count)]
        terms.append(-torch.log(positive / exponentials[i, others].sum()))
    return torch.stack(terms).mean() * count


def plain_distillation(
    similarities: Tensor, unit: Tensor, temperature: float, dense_temperature: float
) -> Tensor:
    terms = []
    for i in range(len(unit)):
        others = [j for j in range(len(unit)) if j != i]
        p = torch.softmax(unit[i] @ unit[others].T / dense_temperature, 0)
        q = torch.softmax(similarities[i, others] / temperature, 0)
        terms.append((p * (p / q).log()).sum())
    return torch.stack(terms).sum()


def plain_same_label(similarities: Tensor, labels: list[int], temperature: float) -> Tensor:
    exponentials = (similarities / temperature).exp()
    total = 0 * similarities.sum()
    for i, label in enumerate(labels):
        others = [j for j in range(len(labels)) if j != i and labels[j] >= 0]
        positives = [j for j in others if labels[j] == label]
        if label >= 0 and positives:
            pulled = exponentials[i, positives].sum() / exponentials[i, others].sum()
            total = total - torch.log(pulled)
    return total


def plain_paired(
    similarities: Tensor, known: list[tuple[int, int]], weights: Tensor, temperature: float
) -> Tensor:
    """Of (p, p + m) similarities; the last m documents are negatives only."""
    exponentials, (p, documents) = (similarities / temperature).exp(), similarities.shape
    total = similarities.new_zeros(())
    for i in range(p):
        row = [j for j in range(documents) if (i, j) not in known]
        column = [j for j in range(p) if (j, i) not in known]
        forth = -torch.log(exponentials[i, i] / exponentials[i, row].sum())
        back = -torch.log(exponentials[i, i] / exponentials[column, i].sum())
        total = total + weights[i] * (forth + back) / 2
    return total / weights.sum()


# --- helpers ------------------------------------------------------------------------------


def random_unit(rows: int, seed: int) -> Tensor:
    z = torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(z, dim=1)


def random_similarities(rows: int, seed: int) -> Tensor:
    """Return cosines, with exactly 1 on the diagonal."""
    z = random_unit(rows, seed)
    return (z @ z.T).fill_diagonal_(1)


def assert_is(found: Term, plain: Callable[[Tensor], Tensor], similarities: Tensor) -> None:
    """The loss is the plain one, and the gradient that which autograd finds for it."""
    given = similarities.clone().requires_grad_()
    expected = plain(given)
    (by_similarity,) = torch.autograd.grad(expected, given)
    torch.testing.assert_close(found.loss, expected.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.by_similarity, by_similarity, rtol=1e-8, atol=1e-12)


def assert_blocks_sum_to(term: Compute, similarities: Tensor, size: int) -> None:
    """Any blocks of rows give the whole, and leave what they are given."""
    whole, before = term(similarities, 0), similarities.clone()
    parts = [term(block, i * size) for i, block in enumerate(torch.split(similarities, size))]
    assert torch.equal(similarities, before)
    losses, gradients = zip(*parts, strict=True)
    torch.testing.assert_close(torch.stack(losses).sum(), whole.loss)
    torch.testing.assert_close(torch.cat(gradients), whole.by_similarity)


# --- each term ----------------------------------------------------------------------------


@quick
@given(st.integers(2, 9), seeds, temperatures, st.integers(1, 9))
def test_contrastive_is_the_papers_with_two_equal_views(
    rows: int, seed: int, temperature: float, size: int
) -> None:
    similarities = random_similarities(rows, seed)
    found = contrastive(similarities.clone(), 0, temperature)

    def plain(given: Tensor) -> Tensor:  # the similarity of a row with itself is 1, and stays so
        itself = torch.eye(rows, dtype=torch.bool)
        return plain_contrastive(torch.where(itself, 1.0, given), temperature)

    assert_is(found, plain, similarities)
    assert_blocks_sum_to(lambda s, first: contrastive(s, first, temperature), similarities, size)


@quick
@given(st.integers(2, 9), seeds, temperatures, st.integers(1, 9))
def test_distillation(rows: int, seed: int, temperature: float, size: int) -> None:
    similarities, unit = random_similarities(rows, seed), random_unit(rows, seed + 1)
    both = temperature, 0.6 * temperature
    found = distillation(similarities.clone(), unit, unit, 0, *both)
    assert_is(found, lambda s: plain_distillation(s, unit, *both), similarities)
    assert_blocks_sum_to(
        lambda s, first: distillation(s, unit[first : first + len(s)], unit, first, *both),
        similarities,
        size,
    )


def test_distillation_vanishes_where_codes_are_as_similar_as_vectors() -> None:
    unit = random_unit(7, 0)
    found = distillation(unit @ unit.T, unit, unit, 0, 0.1, 0.1)
    assert found.loss.item() == pytest.approx(0, abs=1e-12)
    assert found.by_similarity.abs().max() < 1e-12


@quick
@given(label_lists, seeds, temperatures, st.integers(1, 9))
def test_same_label(labels: list[int], seed: int, temperature: float, size: int) -> None:
    similarities, given_labels = random_similarities(len(labels), seed), torch.tensor(labels)
    found = same_label(similarities.clone(), given_labels, 0, temperature)
    assert_is(found, lambda s: plain_same_label(s, labels, temperature), similarities)
    assert_blocks_sum_to(
        lambda s, first: same_label(s, given_labels, first, temperature), similarities, size
    )


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [-1, -1, -1], [-1, 0, -1]])
def test_rows_without_a_partner_have_no_loss_and_no_gradient(labels: list[int]) -> None:
    found = same_label(random_similarities(len(labels), 0), torch.tensor(labels), 0, 0.1)
    assert found.loss.item() == 0
    assert not found.by_similarity.any()


@quick
@given(st.integers(2, 9), seeds, st.integers(1, 9))
def test_balance_is_the_mean_cosine_with_the_others(rows: int, seed: int, size: int) -> None:
    similarities = random_similarities(rows, seed)

    def plain(given: Tensor) -> Tensor:
        others = [[j for j in range(rows) if j != i] for i in range(rows)]
        return torch.stack([given[i, others[i]].mean() for i in range(rows)]).sum()

    assert_is(balance(similarities.clone(), 0), plain, similarities)
    assert_blocks_sum_to(balance, similarities, size)


@quick
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=8),
    st.integers(0, 3),
    seeds,
    temperatures,
)
def test_paired(
    pairs: list[tuple[int, int]], negatives: int, seed: int, temperature: float
) -> None:
    p, random = len(pairs), torch.Generator().manual_seed(seed)
    similarities = torch.rand(p, p + negatives, generator=random, dtype=torch.float64)
    weights = 0.1 + torch.rand(p, generator=random, dtype=torch.float64)
    queries, documents = (np.array(rows) for rows in zip(*pairs, strict=True))
    mask = torch.from_numpy(same_pair(queries, documents))
    known = [
        (i, j)
        for i in range(p)
        for j in range(p)
        if i != j and (pairs[i][0] == pairs[j][0] or pairs[i][1] == pairs[j][1])
    ]
    assert [(int(i), int(j)) for i, j in mask.nonzero()] == known
    answers = torch.rand(p, negatives, generator=random) < 0.3
    known += [(int(i), p + int(j)) for i, j in answers.nonzero()]
    mask, before = torch.cat([mask, answers], 1), similarities.clone()
    found = paired(similarities, mask, weights, temperature)
    assert torch.equal(similarities, before)
    assert_is(found, lambda s: plain_paired(s, known, weights, temperature), similarities)


# --- gradients without the equations ------------------------------------------------------


TERMS = ("balance", "contrastive", "distillation", "same_label", "paired")


def terms_of_six() -> dict[str, Callable[[Tensor], Term]]:
    """Each term of (6, 6) similarities."""
    unit, labels = random_unit(6, 3), torch.tensor([0, 0, 1, 2, 1, -1])
    known = torch.zeros(4, 6, dtype=torch.bool)
    known[0, 3] = known[2, 5] = True
    weights = torch.arange(1, 5).double()
    return {
        "balance": lambda s: balance(s, 0),
        "contrastive": lambda s: contrastive(s, 0, 0.2),
        "distillation": lambda s: distillation(s, unit, unit, 0, 0.3, 0.2),
        "same_label": lambda s: same_label(s, labels, 0, 0.2),
        "paired": lambda s: paired(s[:4], known, weights, 0.2),
    }


@pytest.mark.parametrize("name", sorted(TERMS))
def test_gradients_by_finite_differences(name: str) -> None:
    term, similarities, step = terms_of_six()[name], random_similarities(6, 1), 1e-6
    gradient = term(similarities.clone()).by_similarity
    for i in range(len(gradient)):
        for j in range(6):
            up, down = similarities.clone(), similarities.clone()
            up[i, j] += step
            down[i, j] -= step
            slope = (term(up).loss - term(down).loss).item() / (2 * step)
            assert gradient[i, j].item() == pytest.approx(slope, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("temperature", [0.001, 0.01, 0.05])
def test_small_temperatures_do_not_overflow(temperature: float) -> None:
    s, unit = random_similarities(8, 2).float(), random_unit(8, 1).float()
    labels = torch.arange(8) % 3
    for found in (
        contrastive(s.clone(), 0, temperature),
        distillation(s.clone(), unit, unit, 0, temperature, temperature),
        same_label(s.clone(), labels, 0, temperature),
        paired(s.clone(), torch.zeros(8, 8, dtype=torch.bool), torch.ones(8), temperature),
    ):
        assert found.loss.isfinite() and found.by_similarity.isfinite().all()


def test_equal_codes_at_a_small_temperature() -> None:
    found = contrastive(torch.ones(4, 4), 0, 0.001)
    assert found.loss.item() == pytest.approx(4 * np.log(1 + 2 * 3))
    expected = 1000 * 2 / 7 * (1 - torch.eye(4))
    torch.testing.assert_close(found.by_similarity, expected)
