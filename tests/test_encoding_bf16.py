"""Codes by way of bfloat16 are those of float32; this holds on any CPU, fast or not."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csr_qdrant.codes import SparseCodes
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import CsrError, RowError

torch = pytest.importorskip("torch")

from csr_qdrant import encoding_bf16, encoding_torch  # noqa: E402
from csr_qdrant.encoding_bf16 import _Weights, bf16_encode, worth_bf16  # noqa: E402

F32 = npt.NDArray[np.float32]
D, H, K = 64, 512, 8


def random_encoder(seed: int, offsets: float = 0.0, scale: float = 1.0) -> Encoder:
    random = np.random.default_rng(seed)
    weight = random.normal(size=(H, D))
    weight *= scale / np.linalg.norm(weight, axis=1, keepdims=True)
    return Encoder(
        weight=weight.astype(np.float32),
        latent_bias=random.normal(scale=offsets + 1e-9, size=H).astype(np.float32),
        pre_bias=random.normal(scale=offsets + 1e-9, size=D).astype(np.float32),
        k=K,
    )


def random_rows(seed: int, n: int = 200, scale: float = 1.0) -> F32:
    rows = np.random.default_rng(seed).normal(size=(n, D))
    made: F32 = (scale * rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return made


def never(rows: F32) -> SparseCodes:
    raise AssertionError(f"{len(rows)} rows could not be told in bfloat16")


def check(encoder: Encoder, rows: F32, codes: SparseCodes) -> None:
    """Compare codes with the k largest activations in float64, up to rounding of float32."""
    weight = encoder.weight.astype(np.float64)
    exact = rows.astype(np.float64) @ weight.T + encoder.offset
    lengths = np.linalg.norm(rows, axis=1).astype(np.float64)
    longest = np.linalg.norm(weight, axis=1).max()
    slack = 1e-6 * (lengths * longest + np.abs(encoder.offset).max())
    assert len(codes) == len(rows)
    for row, code in enumerate(codes.rows()):
        values, tolerance = exact[row], slack[row]
        assert len(set(code.indices.tolist())) == len(code.indices) <= K
        np.testing.assert_allclose(code.values, values[code.indices], atol=tolerance, rtol=1e-5)
        left = np.delete(values, code.indices)
        if len(code.indices) == K:
            assert left.max() <= values[code.indices].min() + 2 * tolerance
        else:
            assert left.max() <= tolerance


@given(
    seed=st.integers(0, 2**32 - 1),
    offsets=st.sampled_from([0.0, 0.01, 0.3]),
    weights=st.sampled_from([0.01, 1.0, 300.0]),
    rows=st.sampled_from([1e-6, 1.0, 1e5]),
)
@settings(max_examples=25, deadline=None)
def test_codes_are_those_of_float32(seed: int, offsets: float, weights: float, rows: float) -> None:
    encoder = random_encoder(seed, offsets, weights)
    x = random_rows(seed + 1, scale=rows)
    kernel = encoding_torch._cpu_kernel(encoder, K)
    check(encoder, x, bf16_encode(encoder, K, kernel.encode)(x))


def test_latents_that_only_float32_tells_apart() -> None:
    random = np.random.default_rng(0)
    one = random.normal(size=D).astype(np.float32)
    one /= np.linalg.norm(one)
    # All nearer to each other than bfloat16's steps, of which each weight is half a one away.
    weight = one * (1 + 2.0**-9) + random.normal(scale=1e-4, size=(H, D))
    encoder = replace(random_encoder(0), weight=weight.astype(np.float32))
    rows = (one + random.normal(scale=1e-4, size=(100, D))).astype(np.float32)
    codes = bf16_encode(encoder, K, never)(rows)
    check(encoder, rows, codes)
    product = rows @ encoder.weight.T + encoder.offset
    chosen = np.sort(np.argpartition(product, -K, axis=1)[:, -K:], axis=1)
    assert (codes.indices.reshape(-1, K) == chosen).mean() > 0.99


def test_the_error_is_within_its_bound() -> None:
    encoder, rows = random_encoder(1, 0.2), random_rows(2)
    weights = _Weights.of(encoder)
    rounded, errors = weights.rounded(torch.from_numpy(rows))
    sums = rounded.double() @ weights.transposed.double()
    exact = rows.astype(np.float64) @ encoder.weight.astype(np.float64).T + encoder.offset
    off = np.abs(sums.numpy() - exact).max(axis=1)
    assert (off <= errors).all() and off.max() > 0.02 * errors.max()


def test_unusual_rows_are_encoded_as_ever() -> None:
    # Few latents are above zero, so that bfloat16 cannot tell which are the strongest.
    encoder = replace(random_encoder(3), latent_bias=np.full(H, -0.25, np.float32))
    rows = random_rows(4)
    rows[[0, 7]] = 0
    rows[11] *= 1e-20
    rows[12] *= 1e20
    asked: list[int] = []
    kernel = encoding_torch._cpu_kernel(encoder, K)

    def exact(some: F32) -> SparseCodes:
        asked.append(len(some))
        return kernel.encode(some)

    codes = bf16_encode(encoder, K, exact)(rows)
    assert len(asked) == 1 and 4 <= asked[0] < 200
    assert codes.equals(kernel.encode(rows), tolerance=1e14)  # of one row's values: 1e20
    usual = np.delete(np.arange(200), 12)
    assert codes[usual].equals(kernel.encode(rows[usual]), tolerance=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e25])
def test_unusual_weights_are_encoded_as_ever(scale: float) -> None:
    encoder = random_encoder(9, scale=scale)
    kernel = encoding_torch._cpu_kernel(encoder, K)
    rows = random_rows(10)
    assert bf16_encode(encoder, K, kernel.encode)(rows).equals(kernel.encode(rows), 1e18)


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the way by bfloat16 on this CPU, whatever it is, and for small encoders."""
    monkeypatch.setattr(encoding_bf16, "has_amx", lambda: True)
    monkeypatch.setattr(encoding_bf16, "LEAST_WORK", 1)


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize(
    ("value", "error"), [(np.nan, RowError), (np.inf, RowError), (3e38, CsrError)]
)
def test_bad_rows_are_reported(value: float, error: type[Exception]) -> None:
    rows = random_rows(5)
    rows[123] = value
    with pytest.raises(error):
        random_encoder(5, scale=100.0).encode(rows, device="cpu")


@pytest.mark.usefixtures("everywhere")
def test_an_encoder_takes_this_way(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, rows = random_encoder(6), random_rows(7, n=3000)
    made: list[Encoder] = []

    def noting(*arguments: object) -> Callable[[F32], SparseCodes]:
        made.append(encoder)
        return bf16_encode(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(encoding_torch, "bf16_encode", noting)
    codes = encoder.encode(rows, device="cpu")
    assert made and codes.equals(encoder.encode(rows, device="numpy"), tolerance=1e-6)
    standardising = replace(encoder, layer_norm=True)
    codes = standardising.encode(rows, device="cpu")
    assert codes.equals(standardising.encode(rows, device="numpy"), tolerance=1e-5)


def test_where_it_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, bias = np.ones((8192, 768), np.float32), np.zeros(8192, np.float32)
    large = Encoder(weight=weight, latent_bias=bias, pre_bias=bias[:768], k=32)
    monkeypatch.setattr(encoding_bf16, "has_amx", lambda: True)
    assert worth_bf16(large, 32)
    assert not worth_bf16(large, 512)  # too many come near
    assert not worth_bf16(random_encoder(8), 4)  # too little work
    monkeypatch.setattr(encoding_bf16, "has_amx", lambda: False)
    assert not worth_bf16(large, 32)
