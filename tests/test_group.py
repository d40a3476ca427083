"""Processes that share a batch find what one process finds: by gloo, and by threads in one."""

import runpy
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from csr_qdrant.trainer.group import Alone, Group, current_group, in_turn
from csr_qdrant.trainer.supervision import same_pair

WORKER = Path(__file__).with_name("group_worker.py")
T = TypeVar("T")
Compute = Callable[..., Any]
TOLERANCES = {"dense": 1e-9, "sparse": 1e-4}
ways = pytest.mark.parametrize("way", sorted(TOLERANCES))


class Step:
    """A step to compute, all in float64; `fields` are what the worker is sent."""

    def __init__(self, name: str, rows: int, seed: int = 0, kind: str = "alone") -> None:
        random, numpy_random = torch.Generator().manual_seed(seed), np.random.default_rng(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=random, dtype=torch.float64)

        self.name, self.x = name, normal(rows, 6)
        bias = 0.3 * normal(24) + (-50.0 if kind == "empty" else 0.5)
        self.state = {"weight": normal(24, 6) / 2, "latent_bias": bias, "pre_bias": normal(6) / 3}
        self.settings = {"k": (4, 2), "k_aux": 3, "aux": 0.8, "balance": 0.3, "supervised": 0.6}
        self.dead = torch.tensor([1, 5, 6, 20] if kind == "dead" else [], dtype=torch.int64)
        self.labels, self.matches = None, None
        if kind == "labels":
            self.labels = torch.from_numpy(numpy_random.integers(-1, 5, rows))
        if kind == "pairs":
            self.settings |= {"reconstructed_pairs": 0.4}
            queries, documents, negatives = (numpy_random.integers(0, rows, n) for n in (7, 7, 2))
            known = np.pad(same_pair(queries, documents), ((0, 0), (0, 2)))
            weights = 0.5 + numpy_random.random(7).astype(np.float32)
            arrays = (queries, documents, known, weights, negatives)
            self.matches = tuple(torch.from_numpy(each) for each in arrays)

    @property
    def fields(self) -> tuple[Any, ...]:
        return (self.name, self.settings, self.state, self.x, self.labels, self.matches, self.dead)


@pytest.fixture(scope="module")
def compute() -> Compute:
    """Give a function (step, way, group) -> what one process of the group finds."""
    worker = runpy.run_path(str(WORKER))

    def found(step: Step, way: str, group: Group | None = None) -> Any:
        return worker["compute"](worker["Given"](*step.fields), way, group)

    return found


def assert_same(found: dict[str, Any], alone: dict[str, Any], tolerance: float) -> None:
    """Two of `compute`'s answers are equal."""
    assert found["loss"].item() == pytest.approx(alone["loss"].item(), rel=tolerance)
    terms, expected = (
        {name: term.item() for name, term in each["terms"].items()} for each in (found, alone)
    )
    assert terms == pytest.approx(expected, rel=tolerance, abs=tolerance)
    assert list(terms) == list(expected)
    assert torch.equal(found["used"], alone["used"])
    for one, other in zip(found["gradients"], alone["gradients"], strict=True):
        assert one.dtype == other.dtype
        assert float((one - other).norm()) <= tolerance * float(other.norm()) + tolerance / 1000


# --- two processes ------------------------------------------------------------------------

STEPS = {
    step.name: step
    for step in (
        Step("dead", 33, 1, "dead"),
        Step("labels", 33, 2, "labels"),
        Step("pairs", 33, 3, "pairs"),
        Step("even", 150, 4, "dead"),
        Step("empty", 12, 5, "empty"),
        Step("single", 1, 6, "dead"),
    )
}


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Give what each of two processes found."""
    folder = tmp_path_factory.mktemp("group")
    torch.save([step.fields for step in STEPS.values()], folder / "given.pt")
    commands = [[sys.executable, str(WORKER), str(rank), "2", str(folder)] for rank in range(2)]
    running = [subprocess.Popen(each, stderr=subprocess.PIPE, text=True) for each in commands]
    try:
        for process in running:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in running:
            process.kill()
    return [torch.load(folder / f"found-{rank}.pt") for rank in range(2)]


@ways
@pytest.mark.parametrize("name", sorted(STEPS))
def test_two_processes_find_what_one_finds(
    processes: list[Any], compute: Compute, name: str, way: str
) -> None:
    alone = compute(STEPS[name], way)
    for found in processes:
        assert_same(found[f"{name}-{way}"], alone, TOLERANCES[way])


@ways
@pytest.mark.parametrize("name", sorted(STEPS))
def test_both_processes_find_the_same_bit_for_bit(
    processes: list[Any], name: str, way: str
) -> None:
    one, other = (found[f"{name}-{way}"] for found in processes)
    assert torch.equal(one["loss"], other["loss"]) and torch.equal(one["used"], other["used"])
    for mine, theirs in zip(one["gradients"], other["gradients"], strict=True):
        assert torch.equal(mine, theirs)


def test_exchanges(processes: list[Any]) -> None:
    rows = torch.arange(10).view(5, 2)
    for rank, found in enumerate(each["exchanges"] for each in processes):
        assert found["place"] == (rank, 2, rank)
        assert found["first"] == {"rank": 0, "x": torch.tensor([0])}
        plain, table, double = found["sums"]
        assert plain.item() == 3 and table.tolist() == [[1] * 3] * 2 and double.tolist() == [1]
        assert (plain.dtype, double.dtype) == (torch.float32, torch.float64)
        whole, uneven, nothing = found["gathered"]
        assert torch.equal(whole, torch.cat([rows[:2], rows]))
        assert torch.equal(uneven, rows[:3].float())  # all of them the second's
        assert nothing.shape == (0, 2) and nothing.dtype == torch.int64
        shares = [[(0, 0), (0, 0), (0, 3), (0, 16)], [(0, 0), (0, 1), (3, 7), (16, 33)]]
        assert found["shares"] == shares[rank]


def test_a_process_alone() -> None:
    group, x = current_group(), torch.arange(3)
    group.sum(x)
    with in_turn(group):
        assert (group.rank, group.size, group.share(7)) == (0, 1, slice(0, 7))
    assert x.tolist() == [0, 1, 2] and group.gather(x) is x and group.first(x) is x


# --- threads in the place of processes ----------------------------------------------------


class Shared:
    """A group of threads of this process, for shapes that are many and small."""

    def __init__(self, rank: int, places: list[Any], barrier: Barrier) -> None:
        """Meet the others of `barrier`; each leaves its tensors in its own place."""
        self.rank, self.size, self._places, self._barrier = rank, len(places), places, barrier

    def _all(self, given: Any) -> list[Any]:
        self._places[self.rank] = given
        self._barrier.wait(60)
        found = list(self._places)
        self._barrier.wait(60)
        return found

    def sum(self, *tensors: Tensor) -> None:
        everyone = self._all([tensor.clone() for tensor in tensors])
        for tensor, parts in zip(tensors, zip(*everyone, strict=True), strict=True):
            tensor.copy_(torch.stack(parts).sum(0))

    def gather(self, rows: Tensor) -> Tensor:
        return torch.cat(self._all(rows.clone()))

    def first(self, value: T) -> T:
        found: T = self._all(value)[0]
        return found

    def share(self, rows: int) -> slice:
        return slice(rows * self.rank // self.size, rows * (self.rank + 1) // self.size)


def shared(step: Step, way: str, size: int, compute: Compute) -> list[Any]:
    """Return what each of `size` threads finds."""
    places: list[Any] = [None] * size
    barrier = Barrier(size)

    def work(rank: int) -> Any:
        try:
            return compute(step, way, Shared(rank, places, barrier))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(work, range(size)))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 20),
    size=st.integers(2, 4),
    seed=st.integers(0, 1000),
    kind=st.sampled_from(["alone", "dead", "labels", "pairs", "empty"]),
)
def test_any_number_of_processes_finds_what_one_finds(
    compute: Compute, rows: int, size: int, seed: int, kind: str
) -> None:
    step = Step("any", rows, seed, kind)
    alone = compute(step, "dense", Alone())
    for found in shared(step, "dense", size, compute):
        assert_same(found, alone, 1e-9)
