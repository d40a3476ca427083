"""Linear adapters: what is applied, and what lies on disk."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from csr_qdrant import linear as runtime
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError, RowError
from csr_qdrant.linear import LinearAdapter

sys.path.insert(0, str(Path(__file__).parent))
from linear_rows import F32, random, unit


def some_adapter(d: int = 6, **changes: Any) -> LinearAdapter:
    made = LinearAdapter(
        matrix=random(d, d), mean=random(d, seed=1), dims=(2, 4), info={"steps": 3, "é": [1]}
    )
    return replace(made, **changes)


# --- applying ---------------------------------------------------------------------------------


def test_apply_is_the_centred_product_at_norm_one() -> None:
    adapter, x = some_adapter(), random(50, 6, seed=2)
    assert adapter.mean is not None
    for size in (1, 2, 4, 6):
        expected = unit((x - adapter.mean) @ adapter.matrix[:size].T)
        got = adapter.apply(x, size)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(adapter.apply(x), adapter.apply(x, 4))  # the largest trained
    plain = replace(adapter, mean=None).apply(x, 6)
    np.testing.assert_allclose(plain, unit(x @ adapter.matrix.T), rtol=1e-5, atol=1e-6)


def test_blocks_and_memory_maps_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, x = some_adapter(), random(300, 6, seed=2)
    whole = adapter.apply(x)
    np.save(tmp_path / "x.npy", x.astype(np.float64))
    monkeypatch.setattr(runtime, "BLOCK_BYTES", 1)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_allclose(adapter.apply(mapped), whole, rtol=1e-6, atol=1e-7)
    assert adapter.apply(x[:0]).shape == (0, 4)


def test_extreme_lengths_and_rows_without_a_direction() -> None:
    adapter = LinearAdapter(matrix=np.eye(3, dtype=np.float32), dims=(3,))
    rows = np.array([[3e-30, 4e-30, 0], [3e25, 0, 4e25], [0, 0, 0]])
    expected = np.array([[0.6, 0.8, 0], [0.6, 0, 0.8], [0, 0, 0]])
    np.testing.assert_allclose(adapter.apply(rows), expected, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39, 1e300])
def test_a_row_that_is_not_finite_is_named(bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "BLOCK_BYTES", 1)
    x = random(200, 6).astype(np.float64)
    x[130, 5] = x[190, 0] = bad
    with pytest.raises(RowError, match=r"row 1130 of x\.npy holds NaN, infinity") as raised:
        some_adapter().apply(x, 2, first_row=1000, name="x.npy")
    assert raised.value.row == 1130


@pytest.mark.parametrize(
    ("vectors", "dims", "sentence"),
    [
        (np.ones((3, 5)), None, r"takes vectors of shape \(n, 6\), got \(3, 5\)"),
        (np.ones(6), None, r"got \(6,\)"),
        ([[1.0] * 6, [1.0]], None, "must be an array of numbers"),
        ([["a"] * 6], None, "must be numbers, got <U1"),
        (np.ones((3, 6)), 0, r"rising numbers in 1\.\.6 \(the vectors' size\), got 0"),
        (np.ones((3, 6)), 7, "got 7"),
    ],
)
def test_what_cannot_be_applied_is_refused(vectors: Any, dims: int | None, sentence: str) -> None:
    with pytest.raises(CsrError, match=sentence):
        some_adapter().apply(vectors, dims)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"matrix": random(6, 5)}, r"matrix of shape \(d, d\), got \(6, 5\)"),
        ({"matrix": np.empty((0, 0), np.float32)}, r"got \(0, 0\)"),
        ({"mean": random(5)}, r"mean must have shape \(6,\), got \(5,\)"),
        ({"matrix": np.eye(6)}, "matrix must be float32, got float64"),
        ({"mean": np.full(6, np.nan, np.float32)}, "mean holds NaN"),
        ({"dims": ()}, "got none"),
        ({"dims": (4, 2)}, "rising"),
        ({"dims": (2, 7)}, "got 2, 7"),
        ({"dims": (2.5,)}, "got 2.5"),
    ],
)
def test_adapters_that_cannot_be_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CsrError, match=sentence):
        some_adapter(**changes)


# --- on disk ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [random(6, seed=1), None])
def test_a_saved_adapter_comes_back(tmp_path: Path, mean: F32 | None) -> None:
    adapter, x = some_adapter(mean=mean), random(9, 6, seed=2)
    adapter.save(tmp_path / "a")
    back = LinearAdapter.load(tmp_path / "a")
    np.testing.assert_array_equal(back.apply(x), adapter.apply(x))
    assert (back.dims, back.info, back.d) == ((2, 4), {"steps": 3, "é": [1]}, 6)
    assert back.fingerprint == adapter.fingerprint
    assert back.fingerprint != some_adapter(matrix=random(6, 6, seed=8), mean=mean).fingerprint
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "linear.json", "linear.safetensors"]


def test_an_existing_folder_is_kept_and_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    some_adapter().save(tmp_path / "a")
    with pytest.raises(ConfigError, match="already exists"):
        some_adapter(dims=(3,)).save(tmp_path / "a")
    with pytest.raises(TypeError):
        some_adapter(info={"x": object()}).save(tmp_path / "a", overwrite=True)
    assert LinearAdapter.load(tmp_path / "a").dims == (2, 4)
    some_adapter(dims=(3,)).save(tmp_path / "a", overwrite=True)
    assert LinearAdapter.load(tmp_path / "a").dims == (3,)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def described(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "linear.json"
        value = json.loads(path.read_text("utf-8")) | changes
        path.write_text(json.dumps({k: v for k, v in value.items() if v is not None}))

    return change


def stored(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        save_file(load_file(folder / "linear.safetensors") | changes, folder / "linear.safetensors")

    return change


def truncated(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:-9])

    return change


def removed(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (removed("linear.json"), r"is not a linear adapter, it lacks linear\.json"),
        (removed("linear.safetensors"), r"it lacks linear\.safetensors"),
        (truncated("linear.json"), r"linear\.json is damaged"),
        (truncated("linear.safetensors"), "is damaged"),
        (described(kind="encoder"), "describes no linear adapter"),
        (lambda f: (f / "linear.json").write_text("[1]"), "describes no linear adapter"),
        (described(format_version=2), "has format version 2, this release reads 1"),
        (described(dims=None), r"is damaged \('dims'\)"),
        (described(dims=[2, 9]), "rising numbers in 1..6"),
        (described(dims=["2"]), "rising numbers"),
        (described(dims=4), "is damaged"),
        (described(info=[1]), "is damaged"),
        (described(d=7), r"linear\.json says d 7, the weights say 6"),
        (stored(matrix=random(6, 6, seed=9)), "says fingerprint"),
        (stored(matrix=np.full((6, 6), np.nan, np.float32)), "holds NaN"),
        (stored(matrix=np.eye(6)), "must be float32"),
        (stored(matrix=random(5, 6)), r"got \(5, 6\)"),
        (stored(bias=random(6)), r"must hold matrix and perhaps mean, got \['bias'"),
    ],
)
def test_foreign_and_damaged_folders_are_refused(
    tmp_path: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    some_adapter().save(tmp_path / "a")
    damage(tmp_path / "a")
    with pytest.raises(CsrError, match=sentence):
        LinearAdapter.load(tmp_path / "a")


def test_an_encoder_and_nothing_are_no_adapters(tmp_path: Path, tiny_encoder: Encoder) -> None:
    tiny_encoder.save(tmp_path / "enc")
    with pytest.raises(CsrError, match=r"enc is not a linear adapter, it lacks linear\.json"):
        LinearAdapter.load(tmp_path / "enc")
    with pytest.raises(CsrError, match="there is no folder"):
        LinearAdapter.load(tmp_path / "nothing")
