"""The kernels for GPUs against plain torch; without a GPU they are interpreted."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from csr_qdrant.trainer import TrainConfig
from csr_qdrant.trainer.batch import TorchBatch
from csr_qdrant.trainer.dense_ops import DenseOps
from csr_qdrant.trainer.model import Autoencoder
from csr_qdrant.trainer.ops import Active, densify, rival_ops
from csr_qdrant.trainer.step import Step

pytest.importorskip("triton", reason="Triton has wheels for Linux only")

# conftest.py has Triton interpret its kernels where there is no GPU; the interpreter is slow.
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
few = settings(max_examples=12, deadline=None)


@pytest.fixture(scope="module", autouse=True)
def small_blocks() -> Iterator[None]:
    """Give several blocks of each kind even to a few rows and columns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("csr_qdrant.trainer.triton_ops.CHUNK_BYTES", 1000)
        patch.setattr("csr_qdrant.trainer.triton_ops.COLUMNS", 8)
        patch.setattr("csr_qdrant.trainer.triton_ops.PLACES", 4)
        yield


class Case:
    """Arrays of every kind that the operations take, and codes with empty places."""

    def __init__(self, n: int, d: int, h: int, most: int, k: int, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.n, self.h = n, h
        self.most, self.k = min(most, h), min(k, most, h)
        self.x, self.first, self.rest = (self.normal(n, d) for _ in range(3))
        self.weight, self.pre_bias, self.offset = self.normal(h, d), self.normal(d), self.normal(h)
        latents = torch.rand(n, h, generator=self.random).argsort(1)[:, : self.most]
        values = torch.rand(n, self.most, generator=self.random) + 0.1
        counts = torch.randint(0, self.most + 1, (n, 1), generator=self.random)
        self.live = (torch.arange(self.most) < counts).to(DEVICE)
        self.active = Active(
            torch.where(self.live, latents.to(DEVICE), 0),
            torch.where(self.live, values.to(DEVICE), 0.0),
        )

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.random).to(DEVICE)


cases = st.builds(
    Case,
    n=st.integers(1, 9),
    d=st.integers(1, 20),
    h=st.integers(1, 40),
    most=st.integers(1, 12),
    k=st.integers(1, 12),
    seed=st.integers(0, 2**32),
)


def kernels() -> DenseOps:
    from csr_qdrant.trainer.triton_ops import TritonOps

    return TritonOps()


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5)


@few
@given(cases, st.sampled_from([0, 1, 3]))
def test_encode(case: Case, levels: int) -> None:
    if levels:  # equal values, most of them at a cut
        case.weight, case.offset = case.weight * 0, case.offset.mul(levels).round()
    cuts = tuple(sorted({case.most, case.k, 1}, reverse=True))
    wanted = torch.tensor([0, case.h - 1], device=DEVICE)
    found, kept = kernels().encode(case.x, case.weight, case.offset, cuts, wanted)
    plain = case.x @ case.weight.T + case.offset
    close(kept, plain[:, wanted])
    for cut in cuts:
        first = found.first(cut)
        close(first.values.sort(1, descending=True).values, plain.topk(cut, dim=1).values.relu())
        close(torch.where(first.values > 0, plain.gather(1, first.latents), 0.0), first.values)
    for latents, values in zip(found.latents, found.values, strict=True):
        live = latents[values > 0].tolist()
        assert len(set(live)) == len(live)
        assert not latents[values == 0].any()


def test_a_row_too_wide_for_a_program_is_selected_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(4, 5, 30, 6, 2, seed=0)
    given = (case.x, case.weight, case.offset, (6, 2), torch.tensor([3], device=DEVICE))
    expected = kernels().encode(*given)
    monkeypatch.setattr("csr_qdrant.trainer.triton_ops.WIDEST_ROW", 29)
    found = kernels().encode(*given)
    close(densify(found.active, 30), densify(expected.active, 30))
    close(found.columns, expected.columns)


def test_numbers_that_are_none_are_no_latents() -> None:
    a = torch.tensor([[float("nan"), -0.0, 0.0, 2.0, -1.0, 3.0]], device=DEVICE)
    one, none = torch.ones(1, 1, device=DEVICE), torch.zeros(6, device=DEVICE)
    found = kernels().encode(one, a.T.contiguous(), none, (4, 1), none[:0].long()).active
    assert found.latents.tolist() == [[5, 3, 0, 0]]
    assert found.values.tolist() == [[3, 2, 0, 0]]


@few
@given(cases)
def test_all_else_is_as_in_plain_torch(case: Case) -> None:
    ours, plain = kernels(), DenseOps()
    args = (case.active, case.k, case.weight, case.pre_bias, case.x)
    for one, other in zip(ours.decode(*args), plain.decode(*args), strict=True):
        close(one, other)
    gradients = (case.active, case.k, case.weight, case.first, case.rest)
    close(ours.value_gradients(*gradients), plain.value_gradients(*gradients))
    by_values = case.normal(case.n, case.most) * case.live
    moved = (case.active, by_values, case.k, case.x, case.pre_bias, case.first, case.rest, case.h)
    for one, other in zip(
        ours.weight_gradients(*moved), plain.weight_gradients(*moved), strict=True
    ):
        close(one, other)


@few
@given(cases, st.integers(0, 5), st.integers(1, 9))
def test_lists(case: Case, start: int, count: int) -> None:
    rows = slice(min(start, case.n), start + count)
    some, by_cosines = case.active.rows(rows), case.normal(len(case.x[rows]), case.n)
    results = []
    for ops in (kernels(), DenseOps()):
        lists = ops.lists(case.active, case.h)
        own, listed = torch.ones_like(some.values), lists.no_gradient()
        for _ in range(2):  # what is there already stays
            lists.add_gradient(some, by_cosines, own, listed)
        results.append(
            (
                lists.cosines(some),
                own * case.live[rows],
                lists.by_values(listed) * case.live,
            )
        )
    for one, other in zip(*results, strict=True):
        close(one, other)


@pytest.mark.parametrize("precision", [None, torch.bfloat16], ids=["float32", "bf16"])
def test_a_whole_step(precision: torch.dtype | None) -> None:
    from csr_qdrant.trainer.triton_ops import TritonOps

    model = Autoencoder(10, 40, torch.Generator().manual_seed(0)).to(DEVICE)
    config = TrainConfig(k=(2, 4), h=40, balance=0.5)
    x = torch.randn(24, 10, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    dead = torch.tensor([3, 7], device=DEVICE)
    gradients, losses = [], []
    for ops in (TritonOps(precision), DenseOps()):
        outcome = Step(model, config, ops)(TorchBatch(x), dead, step=0, progress=0.0)
        losses.append(float(outcome.loss))
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    near = 1e-4 if precision is None else 0.2  # rounded, a value may pass another at the cut
    assert losses[0] == pytest.approx(losses[1], rel=near)
    assert len(gradients[0]) == 3
    for one, other in zip(*gradients, strict=True):
        assert float((one - other).norm()) <= near * float(other.norm())


def test_only_cuda_has_rivals() -> None:
    assert rival_ops(torch.device("cpu")) is None
    rival = rival_ops(torch.device("cuda"), "bf16")
    assert type(rival).__name__ == "TritonOps"
    assert rival_ops(torch.device("mps")) is None


COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from csr_qdrant.trainer import triton_kernels
f, i, l, c = "*fp32", "i32", "*i64", "constexpr"
signatures = {
    "select": dict(a=f, offset=f, latents=l, values=f, h=i, inner=i, outer=i, K=c, H=c),
    "add_rows": dict(latents=l, values=f, matrix=f, few=f, many=f, d=i, k=i, K=i, D=c),
    "row_products": dict(
        latents=l, values=f, matrix=f, first=f, rest=f, products=f, d=i, k=i, K=i, P=c, D=c
    ),
    "add_by_latent": dict(
        starts=l, entries=l, values=f, gradients=f, x=f, pre_bias=f, first=f, rest=f,
        by_weight=f, by_bias=f, d=i, k=i, K=i, D=c,
    ),
}
for name, signature in signatures.items():
    constants = {"K": 128, "H": 8192, "P": 16, "D": 256}
    constants = {key: constants[key] for key, kind in signature.items() if kind == c}
    source = ASTSource(getattr(triton_kernels, name), signature, constexprs=constants)
    warps = {"num_warps": 16 if name == "select" else 4}
    made = triton.compile(source, target=GPUTarget("cuda", int(sys.argv[1]), 32), options=warps)
    print(name, len(made.asm["cubin"]) > 1000)
"""


@pytest.mark.parametrize("capability", ["80", "90"])
def test_kernels_compile_for_gpus(capability: str) -> None:
    """Triton carries NVIDIA's assembler, so that no GPU is needed to compile for one."""
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    run = subprocess.run(
        [sys.executable, "-c", COMPILE, capability], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("True") == 4
