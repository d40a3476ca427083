"""The operations of a step: the selection against a sort, and both implementations of the rest."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from csr_qdrant.trainer import kernels
from csr_qdrant.trainer.dense_ops import DenseOps
from csr_qdrant.trainer.ops import Active, Lists, Ops, densify, ops_for
from csr_qdrant.trainer.sparse_ops import SparseOps

Floats = npt.NDArray[np.float32]
NOTHING = torch.empty(0, dtype=torch.int64)
SHARES = (0, 0.3, 1)
MARK = -7  # around the places that a kernel may write
quick = settings(max_examples=100, deadline=None)


@pytest.fixture(scope="module", autouse=True)
def small_blocks() -> Iterator[None]:
    """Give several threads, and several blocks each, even to a few rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("csr_qdrant.trainer.sparse_ops.FEW_ROWS", 3)
        patch.setattr("csr_qdrant.trainer.sparse_ops.BLOCK_BYTES", 1)
        patch.setattr("csr_qdrant.trainer.dense_ops.CHUNK_BYTES", 1000)
        yield


# --- selection ----------------------------------------------------------------------------


def selected(a: Floats, offset: Floats, cuts: tuple[int, ...]) -> tuple[Any, Floats]:
    """Select, and hold that nothing beside the (n, K) places is written."""
    n, most = len(a), cuts[0]
    latents = np.full((n + 2, most), MARK, np.int64)
    values = np.full((n + 2, most), MARK, np.float32)
    kernels.select(a, offset, np.array(cuts), latents[1:-1], values[1:-1])
    for array in (latents, values):
        assert (array[[0, -1]] == MARK).all()
    assert ((latents[1:-1] >= 0) & (latents[1:-1] < a.shape[1])).all()
    return latents[1:-1], values[1:-1]


def assert_strongest(a: Floats, offset: Floats, cuts: tuple[int, ...]) -> None:
    """The first c places of each row hold its c largest entries, whatever stands for NaN."""
    latents, values = selected(a, offset, cuts)
    sums = np.nan_to_num(a + offset, nan=0.0, neginf=0.0).clip(min=0)
    for i in range(len(a)):
        live = values[i] > 0
        np.testing.assert_array_equal(sums[i, latents[i][live]], values[i][live])
        assert len(set(latents[i][live].tolist())) == live.sum()
        assert not live[live.sum() :].any() and not latents[i][~live].any()
        for cut in cuts:
            expected = np.sort(sums[i])[::-1][:cut]
            np.testing.assert_array_equal(np.sort(values[i, :cut])[::-1], expected)


@st.composite
def selections(draw: st.DrawFn) -> tuple[Floats, Floats, tuple[int, ...]]:
    n, h = draw(st.integers(0, 4)), draw(st.integers(1, 70))
    cuts = draw(st.sets(st.integers(1, h), min_size=1, max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    wide: Any = rng.standard_normal((n, h)) * 10.0 ** draw(st.integers(-30, 30))
    if levels := draw(st.sampled_from([0, 1, 2, 5])):  # equal values, most of them at a cut
        wide = rng.integers(-1, levels + 1, (n, h))
    a, offset = wide.astype(np.float32), rng.integers(-1, 2, h).astype(np.float32)
    for row in a:  # leave some rows alone; others hold nothing else
        value, share = draw(st.sampled_from([np.nan, -np.inf, -3])), draw(st.sampled_from(SHARES))
        row[rng.random(h) < share] = value
    return a, offset * np.float32(draw(st.booleans())), tuple(sorted(cuts, reverse=True))


@pytest.mark.timeout(60, method="thread")  # a loop without an end does not listen to signals
@quick
@given(selections())
def test_selection_is_a_sort(case: tuple[Floats, Floats, tuple[int, ...]]) -> None:
    a, offset, cuts = case
    before = a.copy()
    assert_strongest(a, offset, cuts)
    np.testing.assert_array_equal(a, before)


@pytest.mark.parametrize("h", [1, 7, 64, 1000])
def test_all_latents_at_once(h: int) -> None:
    a = np.random.default_rng(h).standard_normal((5, h)).astype(np.float32)
    assert_strongest(a, np.zeros(h, np.float32), (h,))
    assert_strongest(a, np.full(h, 9, np.float32), tuple(sorted({h, (h + 1) // 2, 1})[::-1]))


@pytest.mark.timeout(60, method="thread")
@pytest.mark.parametrize("value", [1.0, 3e-45, 1.1754944e-38, 1e30])
def test_rows_of_one_value(value: float) -> None:
    assert_strongest(np.full((2, 300), value, np.float32), np.zeros(300, np.float32), (40, 10, 3))


@pytest.mark.timeout(60, method="thread")
def test_infinities_end_and_stay_within_bounds() -> None:
    rng = np.random.default_rng(0)
    for share in (0.01, 0.3, 1):
        a = rng.standard_normal((20, 90)).astype(np.float32)
        a[rng.random(a.shape) < share] = np.inf
        a[rng.random(a.shape) < share / 2] = np.nan
        latents, values = selected(a, np.zeros(90, np.float32), (30, 8, 3))
        np.testing.assert_array_equal(
            np.take_along_axis(a, latents, 1)[values > 0], values[values > 0]
        )


# --- both implementations -----------------------------------------------------------------


def random_codes(n: int, h: int, most: int, random: torch.Generator) -> Active:
    """Return distinct latents a row, with positive values, then zeros; some rows empty."""
    order = torch.rand(n, h, generator=random).argsort(1)[:, :most]
    values = torch.rand(n, most, generator=random) + 0.1
    counts = torch.randint(0, most + 1, (n, 1), generator=random)
    live = torch.arange(most) < counts
    return Active(torch.where(live, order, 0), torch.where(live, values, 0.0))


class Case:
    """Arrays of every kind that the operations take."""

    def __init__(self, n: int, d: int, h: int, most: int, k: int, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.n, self.h, self.most, self.k = n, h, min(most, h), min(k, most, h)
        self.x, self.first, self.rest = (self.normal(n, d) for _ in range(3))
        self.weight, self.pre_bias, self.offset = self.normal(h, d), self.normal(d), self.normal(h)
        self.active = random_codes(n, h, self.most, self.random)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.random)


cases = st.builds(
    Case,
    n=st.integers(1, 40),
    d=st.integers(1, 9),
    h=st.integers(1, 50),
    most=st.integers(1, 12),
    k=st.integers(1, 12),
    seed=st.integers(0, 2**32),
)
implementations = st.sampled_from([SparseOps(1), SparseOps(2), SparseOps(3), DenseOps()])


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5)


@quick
@given(cases, implementations, st.integers(0, 5))
def test_encode(case: Case, ops: Ops, columns: int) -> None:
    wanted = torch.randint(0, case.h, (columns,), generator=case.random)
    cuts = tuple(sorted({case.most, case.k}, reverse=True))
    with torch.no_grad():
        active, a = ops.encode(case.x, case.weight, case.offset, cuts, wanted)
    plain = case.x @ case.weight.T + case.offset
    if columns:
        assert a is not None
        close(a, plain[:, wanted])
    for cut in cuts:
        first = active.first(cut)
        close(first.values.sort(1, descending=True).values, plain.topk(cut, dim=1).values.relu())
        named = plain.gather(1, first.latents)
        close(torch.where(first.values > 0, named, 0.0), first.values)


@quick
@given(cases, implementations)
def test_decode(case: Case, ops: Ops) -> None:
    few, many = ops.decode(case.active, case.k, case.weight, case.pre_bias, case.x)
    for error, active in ((few, case.active.first(case.k)), (many, case.active)):
        close(error, densify(active, case.h) @ case.weight + case.pre_bias - case.x)


@quick
@given(cases, implementations)
def test_value_gradients(case: Case, ops: Ops) -> None:
    found = ops.value_gradients(case.active, case.k, case.weight, case.first, case.rest)
    for i in range(case.n):
        for j in range(case.most):
            g = case.first[i] if j < case.k else case.rest[i]
            live = float(case.active.values[i, j] > 0)
            expected = live * (case.weight[case.active.latents[i, j]] @ g)
            assert found[i, j].item() == pytest.approx(expected.item(), rel=1e-4, abs=2e-5)


@quick
@given(cases, implementations)
def test_weight_gradients(case: Case, ops: Ops) -> None:
    by_values = case.normal(case.n, case.most) * (case.active.values > 0)
    by_weight, by_bias = ops.weight_gradients(
        case.active, by_values, case.k, case.x, case.pre_bias, case.first, case.rest, case.h
    )
    by_a = densify(Active(case.active.latents, by_values), case.h)
    few = densify(case.active.first(case.k), case.h)
    more = densify(case.active, case.h) - few
    close(by_bias, by_a.sum(0))
    close(by_weight, by_a.T @ (case.x - case.pre_bias) + few.T @ case.first + more.T @ case.rest)


@quick
@given(cases, implementations, st.integers(0, 40), st.integers(1, 40))
def test_lists(case: Case, ops: Ops, start: int, count: int) -> None:
    rows, live = slice(min(start, case.n), start + count), case.active.values > 0
    lists, some = ops.lists(case.active, case.h), case.active.rows(rows)
    z, by_cosines = densify(case.active, case.h), case.normal(len(some.values), case.n)
    assert lists.block_rows > 0
    close(lists.cosines(some), z[rows] @ z.T)
    own, listed = torch.ones_like(some.values), lists.no_gradient()
    for _ in range(2):  # what is there already stays
        lists.add_gradient(some, by_cosines, own, listed)
    expected = 1 + 2 * (by_cosines @ z).gather(1, some.latents)
    close(own * live[rows], expected * live[rows])
    expected = 2 * (by_cosines.T @ z[rows]).gather(1, case.active.latents)
    close(lists.by_values(listed) * live, expected * live)


def test_lists_keep_no_block_of_the_similarities() -> None:
    active = random_codes(3, 8, 2, torch.Generator().manual_seed(0))
    for ops in (DenseOps(), SparseOps(1)):
        lists: Lists = ops.lists(active, 8)
        assert not lists.by_values(lists.no_gradient()).any()
        assert lists.by_values(lists.no_gradient()).shape == (3, 2)


@quick
@given(st.integers(0, 50), implementations)
def test_work_is_shared_without_a_gap(rows: int, ops: Ops) -> None:
    parts = ops.over(rows, lambda start, stop: (start, stop))
    assert [row for part in parts for row in range(*part)] == list(range(rows))
    if isinstance(ops, DenseOps):
        assert len(parts) == 1


def test_errors_within_a_thread_are_raised() -> None:
    def work(start: int, stop: int) -> None:
        raise ValueError(f"{start}..{stop}")

    with pytest.raises(ValueError, match=r"0\.\."):
        SparseOps(2).over(40, work)


def test_torchs_own_threads_rest_while_ours_work() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), SparseOps(2).leading():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before
    with DenseOps().leading():
        assert torch.get_num_threads() == before


def test_operations_of_a_device() -> None:
    assert isinstance(ops_for(torch.device("cpu")), SparseOps)
    assert isinstance(ops_for(torch.device("meta")), DenseOps)


def test_codes_of_norm_one() -> None:
    active = Active(torch.tensor([[0, 2], [1, 3]]), torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    assert active.normalised().values.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]


def test_dense_codes_count_no_place_without_a_latent() -> None:
    active = Active(torch.tensor([[0, 2, 0], [1, 0, 0]]), torch.tensor([[3.0, 4, 0], [5, 0, 0]]))
    assert densify(active, 4).tolist() == [[3, 0, 4, 0], [0, 5, 0, 0]]
