"""The term that revives dead latents against its equation, in float64."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from csr_qdrant.trainer import auxiliary as module
from csr_qdrant.trainer.auxiliary import Auxiliary, auxiliary
from csr_qdrant.trainer.dense_ops import DenseOps
from csr_qdrant.trainer.group import Alone
from csr_qdrant.trainer.ops import T

quick = settings(max_examples=50, deadline=None)


@pytest.fixture(scope="module", autouse=True)
def exact() -> Iterator[None]:
    """Compute a few rows at once, and divide by nothing but what the equation names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROWS", 4)
        patch.setattr(module, "TINY", 0.0)
        yield


class Case(NamedTuple):
    """What a step gives to the term: x is without b_pre, the weights are the dead latents' own."""

    x: Tensor  # (n, d)
    residual: Tensor  # (n, d)
    weight: Tensor  # (m, d)
    bias: Tensor  # (m,)

    @property
    def a(self) -> Tensor:
        return self.x @ self.weight.T + self.bias


def make_case(n: int, d: int, m: int, seed: int, bias: float = 0.0) -> Case:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    return Case(normal(n, d), normal(n, d), normal(m, d), 0.3 * normal(m) + bias)


cases = st.builds(
    make_case,
    n=st.integers(2, 12),
    d=st.integers(2, 8),
    m=st.integers(1, 14),
    seed=st.integers(0, 2**32),
    bias=st.sampled_from([-3.0, 0.0, 50.0]),
)


def compute(
    case: Case,
    k_aux: int,
    ops: DenseOps | None = None,
) -> Auxiliary:
    x, residual, weight, _ = case
    return auxiliary(case.a, residual, x, weight, k_aux, Alone(), ops or DenseOps())


class Halves(DenseOps):
    """Operations that part the rows in two."""

    def over(self, rows: int, work: Callable[[int, int], T]) -> list[T]:
        return [work(0, rows // 2), work(rows // 2, rows)]


def plain_auxiliary(case: Case, weight: Tensor, bias: Tensor, k_aux: int) -> Tensor:
    """nMSE of the residual, reconstructed row by row by the k_aux strongest dead latents."""
    x, residual, _, _ = case
    mean, error, around = residual.mean(0), bias.new_zeros(()), 0.0
    for i in range(len(x)):
        a = weight @ x[i] + bias
        chosen = a.argsort(descending=True)[:k_aux]
        made = (a[chosen].relu()[:, None] * weight[chosen]).sum(0)
        error = error + ((made - residual[i]) ** 2).sum()
        around += float(((residual[i] - mean) ** 2).sum())
    return error / around


@quick
@given(cases, st.integers(1, 16))
def test_the_loss_is_the_papers(case: Case, k_aux: int) -> None:
    for ops in (DenseOps(), Halves()):
        found = compute(case, k_aux, ops)
        plain = plain_auxiliary(case, case.weight, case.bias, k_aux)
        torch.testing.assert_close(found.loss, plain, rtol=1e-9, atol=0)


@quick
@given(cases, st.integers(1, 16))
def test_gradients_are_the_equations_but_for_what_relu_stops(case: Case, k_aux: int) -> None:
    """A latent below zero gets the gradient that it would have just above, if that raises it."""
    weight, bias = (each.clone().requires_grad_() for each in (case.weight, case.bias))
    case = case._replace(weight=weight, bias=bias)
    loss = plain_auxiliary(case, weight, bias, k_aux)
    by_weight, by_bias = torch.autograd.grad(loss, (weight, bias))
    with torch.no_grad():
        found, a = compute(case, k_aux, Halves()), case.a
        around = (case.residual - case.residual.mean(0)).square().sum()
        for i in range(len(a)):
            chosen = a[i].argsort(descending=True)[:k_aux]
            error = a[i, chosen].relu() @ weight[chosen] - case.residual[i]
            for latent in chosen[a[i, chosen] < 0].tolist():
                by_a = 2 * (weight[latent] @ error) / around
                by_weight[latent] += by_a.clamp(max=0) * case.x[i]
                by_bias[latent] += by_a.clamp(max=0)
        torch.testing.assert_close(found.by_weight, by_weight, rtol=1e-8, atol=1e-11)
        torch.testing.assert_close(found.by_bias, by_bias, rtol=1e-8, atol=1e-11)


def test_latents_below_zero_are_raised_and_never_pushed_further_down() -> None:
    case = make_case(40, 6, 3, 0, bias=-100.0)
    assert (case.a < 0).all()
    found = compute(case, 8)
    assert (found.by_bias < 0).all()  # descending raises a
    for i in range(40):
        alone = case._replace(x=case.x[i : i + 1], residual=case.residual[i : i + 1])
        assert (compute(alone, 8).by_bias <= 0).all()
    around = (case.residual - case.residual.mean(0)).square().sum()
    torch.testing.assert_close(found.loss, case.residual.square().sum() / around)


@pytest.mark.parametrize("rows", [1, 2, 7, 49])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_that_are_their_own_mean_are_measured_by_their_power(
    rows: int, dtype: torch.dtype
) -> None:
    """But for rounding, by which 7 equal rows differ from their mean."""
    case = make_case(1, 5, 10, 0, bias=-100.0)  # nothing is reconstructed: error = power
    case = Case(*(each.to(dtype) for each in case))
    x, residual = case.x.repeat(rows, 1), case.residual.repeat(rows, 1)
    found = compute(case._replace(x=x, residual=residual), 4)
    assert found.loss.item() == pytest.approx(1, rel=1e-6)
    assert all(each.isfinite().all() for each in found)


def test_nothing_left_to_reconstruct_is_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TINY", 1e-8)  # as it is
    case = make_case(6, 5, 4, 0, bias=-100.0)
    found = compute(case._replace(residual=torch.zeros_like(case.residual)), 4)
    assert found.loss.item() == 0
    assert not found.by_weight.any() and not found.by_bias.any()


def test_what_is_given_stays() -> None:
    case = make_case(9, 5, 6, 0)
    before, a = [each.clone() for each in case], case.a
    given = a.clone()
    auxiliary(given, case.residual, case.x, case.weight, 3, Alone(), Halves())
    assert torch.equal(given, a)
    assert all(torch.equal(one, other) for one, other in zip(case, before, strict=True))
