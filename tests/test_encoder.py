"""Encoding: every path gives the codes that the formula gives, and names the row that it cannot."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import csr_qdrant.encoding_numpy
from csr_qdrant.codes import SparseCodes
from csr_qdrant.encoder import Encoder
from csr_qdrant.encoding_numpy import strongest_codes
from csr_qdrant.errors import CsrError, RowError

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


def by_formula(encoder: Encoder, dense: npt.NDArray[Any], k: int) -> npt.NDArray[np.float64]:
    """ReLU(TopK(W (x − b_pre) + b_lat)), row by row in float64, as (n, h)."""
    codes = np.zeros((len(dense), encoder.h))
    for code, row in zip(codes, dense.astype(np.float64), strict=True):
        if encoder.layer_norm:
            row = row - row.mean()
            row = row / (np.sqrt((row**2).sum() / (len(row) - 1)) + 1e-5)
        activations = encoder.weight.astype(np.float64) @ (row - encoder.pre_bias)
        activations += encoder.latent_bias
        for latent in sorted(range(encoder.h), key=lambda i: -activations[i])[:k]:
            code[latent] = max(activations[latent], 0.0)
    return codes


def check(codes: SparseCodes, expected: npt.NDArray[np.float64], tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(codes.to_dense(), expected, atol=tolerance)
    rows, latents = np.nonzero(expected > tolerance)
    kept = codes.to_dense()[rows, latents]
    assert (kept > 0).all()  # no latent of weight is missing


# --- the formula ----------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 9), st.integers(1, 12), st.integers(1, 700), st.integers(1, 700), st.booleans()
)
def test_codes_are_what_the_formula_says(n: int, d: int, h: int, k: int, in_torch: bool) -> None:
    encoder, dense, k = encoder_of(d, h, 1), rows_of(n, d), min(k, h)
    codes = encoder.encode(dense, k, device="cpu" if in_torch else "numpy")
    assert (len(codes), codes.h) == (n, h)
    check(codes, by_formula(encoder, dense, k))


@device
@pytest.mark.parametrize("k", [1, 7, 64, 200])
def test_codes_with_layer_norm(k: int, device: str) -> None:
    encoder = encoder_of(24, 200, 8, layer_norm=True)
    dense = rows_of(5, 24) * np.array([[1], [1e-3], [300], [1e15], [1e25]], np.float32)
    check(encoder.encode(dense, k, device=device), by_formula(encoder, dense, k))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_strongest_of_many_with_ties_and_clusters(data: st.DataObject) -> None:
    """Few distinct values, zeros and runs of large ones: what folding could get wrong."""
    n, h = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 600))
    k = data.draw(st.integers(1, h))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    levels = data.draw(st.integers(1, 6))
    activations = rng.integers(-levels, levels + 1, (n, h)).astype(np.float32)
    if data.draw(st.booleans()):  # large ones at equal distances, so in few columns
        activations[:, :: data.draw(st.integers(1, h))] += 10
    zeros = np.zeros(h, np.float32)
    codes = strongest_codes(activations.copy(), zeros, k, threads=1)
    for (latents, values), row in zip(codes.rows(), activations, strict=True):
        best = np.sort(row)[::-1][:k]
        assert sorted(values.tolist(), reverse=True) == best[best > 0].tolist()
        np.testing.assert_array_equal(row[latents], values)


def test_ties_go_to_the_lower_latent() -> None:
    activations = np.full((1, 300), 2.0, np.float32)
    activations[0, 290] = 3.0
    codes = strongest_codes(activations, np.zeros(300, np.float32), 4, threads=1)
    assert codes.indices.tolist() == [0, 1, 2, 290]


def test_many_rows_are_shared_among_threads_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csr_qdrant.encoding_numpy, "CHUNK_BYTES", 4 * 96 * 5)
    offset, activations = rows_of(1, 96, seed=2)[0], rows_of(1000, 96)
    codes = strongest_codes(activations.copy(), offset, 6, threads=3)
    activations += offset
    expected = np.where(activations >= np.sort(activations, axis=1)[:, [-6]], activations, 0)
    np.testing.assert_array_equal(codes.to_dense(), np.maximum(expected, 0))


# --- paths, sizes and types --------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 4, 32, 96])
def test_torch_and_numpy_agree(k: int) -> None:
    encoder, dense = encoder_of(48, 96, 4), rows_of(3000, 48)
    in_numpy = encoder.encode(dense, k, device="numpy")
    in_torch = encoder.encode(dense, k, device="cpu")
    np.testing.assert_allclose(in_torch.to_dense(), in_numpy.to_dense(), atol=1e-5)


@pytest.mark.gpu
def test_cuda_and_numpy_agree() -> None:
    if not pytest.importorskip("torch").cuda.is_available():
        pytest.skip("there is no CUDA device")
    encoder, dense = encoder_of(48, 960, 4), rows_of(3000, 48)
    for k in (1, 4, 32, 960):
        on_gpu = encoder.encode(dense, k, device="cuda", batch_size=700)
        in_numpy = encoder.encode(dense, k, device="numpy")
        np.testing.assert_allclose(on_gpu.to_dense(), in_numpy.to_dense(), atol=1e-5)
    dense[2001, 3] = np.nan
    with pytest.raises(RowError, match="row 2001"):
        encoder.encode(dense, device="cuda", batch_size=700)


@device
@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_block_size_changes_nothing(batch_size: int, device: str) -> None:
    encoder, dense = encoder_of(16, 80, 5), rows_of(150, 16)
    whole = encoder.encode(dense, device=device)
    parts = encoder.encode(dense, device=device, batch_size=batch_size)
    np.testing.assert_array_equal(parts.indptr, whole.indptr)
    np.testing.assert_array_equal(parts.indices, whole.indices)
    np.testing.assert_allclose(parts.values, whole.values, atol=1e-6)


def test_blocks_beside_each_other_leave_torch_as_it_was() -> None:
    import torch

    def threads_elsewhere() -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(torch.get_num_threads).result()

    before = torch.get_num_threads()
    encoder, dense = encoder_of(16, 80, 5), rows_of(500, 16)
    expected = encoder.encode(dense, device="numpy")
    try:
        torch.set_num_threads(3)
        beside = encoder.encode(dense, device="cpu", batch_size=9)
        assert beside.equals(expected, tolerance=1e-5)
        assert (torch.get_num_threads(), threads_elsewhere()) == (3, 3)
        dense[[250, 470]] = np.nan
        with pytest.raises(RowError, match="row 250 of"):
            encoder.encode(dense, device="cpu", batch_size=9)
        assert (torch.get_num_threads(), threads_elsewhere()) == (3, 3)
    finally:
        torch.set_num_threads(before)


@device
@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4", "int8"])
def test_other_types_are_read_as_float32(dtype: str, device: str) -> None:
    encoder, dense = encoder_of(16, 80, 5), (rows_of(20, 16) * 3).astype(dtype)
    assert encoder.encode(dense, device=device).equals(
        encoder.encode(dense.astype(np.float32), device=device)
    )


@device
@pytest.mark.filterwarnings("error")
def test_a_memory_map_and_strided_rows(device: str, tmp_path: Path) -> None:
    encoder, dense = encoder_of(16, 80, 5), rows_of(300, 16)
    np.save(tmp_path / "dense.npy", dense)
    mapped = np.load(tmp_path / "dense.npy", mmap_mode="r")
    expected = encoder.encode(dense, device=device)
    assert encoder.encode(mapped, device=device).equals(expected)
    assert encoder.encode(np.asfortranarray(dense), device=device).equals(expected)
    assert encoder.encode(dense[::-1], device=device)[::-1].equals(expected)
    assert encoder.encode(dense.tolist(), device=device).equals(expected)


@device
def test_encoding_leaves_its_arguments_alone(device: str) -> None:
    encoder, dense = encoder_of(16, 80, 5, layer_norm=True), rows_of(300, 16)
    copies = [each.copy() for each in (dense, encoder.weight, encoder.offset)]
    first = encoder.encode(dense, device=device)
    for array, copy in zip((dense, encoder.weight, encoder.offset), copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    second = encoder.encode(dense[:150], device=device)
    encoder.encode(dense[150:] * 2, device=device)
    assert first[:150].equals(second)  # earlier codes share no memory with later ones


@device
def test_no_rows_and_rows_without_active_latents(device: str) -> None:
    encoder = encoder_of(16, 80, 5)
    empty = encoder.encode(np.zeros((0, 16)), device=device)
    assert (len(empty), empty.h, len(empty.values)) == (0, 80, 0)
    silent = replace(encoder, latent_bias=np.full(80, -100, np.float32))
    codes = silent.encode(rows_of(3, 16), device=device)
    assert codes.lengths.tolist() == [0, 0, 0]
    one = replace(silent, latent_bias=np.where(np.arange(80) == 9, 50, -100).astype(np.float32))
    codes = one.encode(rows_of(3, 16), device=device)
    assert codes.indices.tolist() == [9, 9, 9]


def test_numpy_answers_small_batches_without_torch() -> None:
    script = (
        "import sys, numpy as np\n"
        "from csr_qdrant import Encoder\n"
        "one = np.ones(4, np.float32)\n"
        "weight = np.eye(4, dtype=np.float32)\n"
        "encoder = Encoder(weight=weight, latent_bias=one, pre_bias=one, k=2)\n"
        "encoder.encode(np.ones((50, 4), np.float32))\n"
        "assert 'torch' not in sys.modules\n"
        "encoder.encode(np.ones((5000, 4), np.float32))\n"
        "assert 'torch' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# --- decoding -----------------------------------------------------------------------------------


def test_decoding_uses_the_encoders_own_weights_transposed() -> None:
    encoder, dense = encoder_of(12, 60, 6), rows_of(9, 12)
    codes = encoder.encode(dense)
    expected = codes.to_dense().astype(np.float64) @ encoder.weight + encoder.pre_bias
    np.testing.assert_allclose(encoder.decode(codes), expected, atol=1e-5)


def test_an_orthonormal_encoder_gives_back_what_it_got() -> None:
    rng = np.random.default_rng(3)
    rotation = np.linalg.qr(rng.standard_normal((16, 16)))[0].astype(np.float32)
    encoder = Encoder(
        weight=np.concatenate([rotation, -rotation]),  # so that every direction is positive once
        latent_bias=np.zeros(32, np.float32),
        pre_bias=rng.standard_normal(16).astype(np.float32),
        k=16,
    )
    dense = rows_of(40, 16)
    np.testing.assert_allclose(encoder.decode(encoder.encode(dense)), dense, atol=1e-5)


def test_decoding_refuses_codes_of_another_size() -> None:
    codes = encoder_of(12, 61, 6).encode(rows_of(2, 12))
    with pytest.raises(CsrError, match="has 60 latents, got codes over 61"):
        encoder_of(12, 60, 6).decode(codes)
