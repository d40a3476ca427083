"""Vectors that cannot be encoded, and encoders that cannot be made: one sentence each."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError, RowError

F32 = npt.NDArray[np.float32]
DEVICES = ["numpy", "cpu"]
device = pytest.mark.parametrize("device", DEVICES)


def encoder_of(d: int, h: int, k: int, seed: int = 0, **fields: Any) -> Encoder:
    rng = np.random.default_rng(seed)
    return Encoder(
        weight=rng.standard_normal((h, d)).astype(np.float32) / np.float32(np.sqrt(d)),
        latent_bias=(rng.standard_normal(h) / 4).astype(np.float32),
        pre_bias=(rng.standard_normal(d) / 4).astype(np.float32),
        k=k,
        **fields,
    )


def rows_of(n: int, d: int, seed: int = 1) -> F32:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


# --- what cannot be encoded -----------------------------------------------------------------------


@device
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_the_first_bad_row_is_named(bad: float, layer_norm: bool, device: str) -> None:
    encoder, dense = encoder_of(16, 80, 5, layer_norm=layer_norm), rows_of(300, 16).astype(float)
    dense[[211, 250], 3] = bad
    for batch_size in (None, 100, 20):
        with pytest.raises(RowError, match=r"^row 1211 of my\.npy holds NaN, infinity or") as got:
            encoder.encode(
                dense, device=device, batch_size=batch_size, first_row=1000, name="my.npy"
            )
        assert got.value.row == 1211


@device
def test_an_infinite_row_without_positive_latents_is_named_too(device: str) -> None:
    one = np.ones((1, 1), np.float32)
    encoder = Encoder(weight=one, latent_bias=one[0], pre_bias=one[0], k=1)
    with pytest.raises(RowError, match="row 1 of the dense vectors"):
        encoder.encode(np.array([[1.0], [-np.inf]]), device=device)


@device
@pytest.mark.filterwarnings("error")
def test_finite_vectors_whose_products_overflow(device: str) -> None:
    encoder, dense = encoder_of(16, 80, 5), rows_of(3, 16)
    dense[1] = np.sign(encoder.weight[7]) * 3e38
    with pytest.raises(CsrError, match=r"overflow float32|must be finite"):
        encoder.encode(dense, device=device)


@pytest.mark.parametrize(
    ("dense", "message"),
    [
        (np.zeros((2, 15)), r"takes vectors of shape \(n, 16\), got \(2, 15\): use the embedding"),
        (np.zeros(16), r"takes vectors of shape \(n, 16\), got \(16,\)"),
        (np.full((2, 16), "a"), "must be numbers, got <U1"),
        (np.zeros((2, 16), complex), "must be numbers, got complex128"),
        ([[1.0], [1.0, 2.0]], "must be an array of numbers"),
    ],
)
def test_what_is_no_matrix_of_vectors(dense: Any, message: str) -> None:
    with pytest.raises(CsrError, match=message):
        encoder_of(16, 80, 5).encode(dense)


@pytest.mark.parametrize("k", [0, -1, 81])
def test_k_beyond_the_latents(k: int) -> None:
    encoder = encoder_of(16, 80, 5)
    message = rf"^k must be in 1\.\.80 \(the number of latents\), got {k}$"
    calls: list[Callable[[], Any]] = [
        lambda: encoder.encode(rows_of(2, 16), k),
        lambda: encoder.with_k(k),
        lambda: encoder_of(16, 80, k),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match=message):
            call()


def test_unusable_batch_sizes_and_devices() -> None:
    encoder, dense = encoder_of(16, 80, 5), rows_of(2, 16)
    with pytest.raises(ConfigError, match="batch_size must be at least 1, got 0"):
        encoder.encode(dense, batch_size=0)
    with pytest.raises(ConfigError, match=r"^device 'gpu9' cannot be used \(.+\): choose numpy"):
        encoder.encode(dense, device="gpu9")


# --- the encoder itself ---------------------------------------------------------------------------


def test_unusable_weights() -> None:
    encoder = encoder_of(16, 80, 5)
    with pytest.raises(CsrError, match=r"got shapes \(80, 16\), \(79,\), \(16,\)"):
        replace(encoder, latent_bias=encoder.latent_bias[:79])
    with pytest.raises(CsrError, match=r"got shapes \(80,\), \(80,\), \(16,\)"):
        replace(encoder, weight=encoder.latent_bias)
    with pytest.raises(CsrError, match=r"steps_since_active must have shape \(80,\), got \(3,\)"):
        replace(encoder, steps_since_active=np.zeros(3, np.int64))
    with pytest.raises(CsrError, match="weight must be float32, got float64"):
        replace(encoder, weight=encoder.weight.astype(float))
    with pytest.raises(CsrError, match="pre_bias holds NaN or infinity"):
        replace(encoder, pre_bias=np.full(16, np.inf, np.float32))


def test_the_fingerprint_names_the_function_and_not_k() -> None:
    encoder = encoder_of(16, 80, 5)
    assert encoder.fingerprint == encoder_of(16, 80, 5).fingerprint == encoder.with_k(7).fingerprint
    nudged = encoder.weight.copy()
    nudged[79, 15] = np.nextafter(nudged[79, 15], np.float32(9))
    others = [
        replace(encoder, weight=nudged),
        replace(encoder, latent_bias=-encoder.latent_bias),
        replace(encoder, pre_bias=-encoder.pre_bias),
        replace(encoder, layer_norm=True),
    ]
    names = {each.fingerprint for each in [encoder, *others]}
    assert len(names) == 5 and all(len(name) == 16 for name in names)


def test_dimensions_and_k() -> None:
    encoder = encoder_of(16, 80, 5, info={"embedder": "wordllama"})
    assert (encoder.d, encoder.h, encoder.k) == (16, 80, 5)
    assert encoder.embedder == "wordllama" and encoder_of(16, 80, 5).embedder is None
    assert encoder.with_k(9).encode(rows_of(4, 16)).equals(encoder.encode(rows_of(4, 16), 9))
