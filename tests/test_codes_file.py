"""Codes on disk: what is saved comes back, and damaged or foreign files are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from safetensors.numpy import save_file

from csr_qdrant import CsrError, SparseCodes
from csr_qdrant.codes_file import CodesFile

MATRICES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 7), st.integers(1, 7)),
    elements=st.sampled_from([0.0, 0.0, 1.0, -2.5, 1e-30]),
)


def codes(*rows: list[float]) -> SparseCodes:
    return SparseCodes.from_dense(np.array(rows, np.float32))


BATCH = codes([0, 0.5, 0, 2], [0, 0, 0, 0], [1, 0, 3, 0], [0, 0, 0, 9])


@given(MATRICES)
@settings(max_examples=25, deadline=None)
def test_what_is_saved_comes_back(
    tmp_path_factory: pytest.TempPathFactory, dense: npt.NDArray[np.float32]
) -> None:
    path = tmp_path_factory.mktemp("codes") / "c.safetensors"
    SparseCodes.from_dense(dense).save(path)
    np.testing.assert_array_equal(SparseCodes.load(path).to_dense(), dense)


def test_saving_twice_writes_the_same_bytes_and_nothing_beside(tmp_path: Path) -> None:
    BATCH.save(tmp_path / "a")
    SparseCodes.load(tmp_path / "a").save(str(tmp_path / "b"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_the_file_is_plain_safetensors_with_its_format_named(tmp_path: Path) -> None:
    BATCH.save(tmp_path / "a")
    opened: Any = safe_open(tmp_path / "a", framework="numpy")
    with opened as file:
        assert file.metadata() == {"csr_qdrant.codes": '{"version": 1, "h": 4}'}
        assert file.get_tensor("indptr").tolist() == [0, 2, 2, 4, 5]
        assert file.get_tensor("indices").tolist() == [1, 3, 0, 2, 3]
        assert file.get_tensor("values").tolist() == [0.5, 2.0, 1.0, 3.0, 9.0]


@pytest.mark.parametrize(("start", "stop"), [(0, 4), (1, 3), (2, 2), (3, 99), (0, 0), (3, 1)])
def test_ranges_of_rows_are_read_alone(tmp_path: Path, start: int, stop: int) -> None:
    BATCH.save(tmp_path / "a")
    with CodesFile(tmp_path / "a") as file:
        assert (len(file), file.h) == (4, 4)
        assert file.read(start, stop).equals(BATCH[start:stop])


def test_rows_without_latents_are_read_alone_at_the_end(tmp_path: Path) -> None:
    codes([1, 2], [0, 0], [0, 0]).save(tmp_path / "a")
    with CodesFile(tmp_path / "a") as file:
        assert file.read(1, 3).equals(codes([0, 0], [0, 0]))


def test_a_saved_slice_holds_its_rows_only(tmp_path: Path) -> None:
    BATCH[2:].save(tmp_path / "a")
    assert SparseCodes.load(tmp_path / "a").equals(codes([1, 0, 3, 0], [0, 0, 0, 9]))


def _valid() -> dict[str, npt.NDArray[Any]]:
    return {"indptr": BATCH.indptr, "indices": BATCH.indices, "values": BATCH.values}


def header(text: str) -> dict[str, str]:
    return {"csr_qdrant.codes": text}


FORMAT = header('{"version": 1, "h": 4}')


@pytest.mark.parametrize(
    ("arrays", "metadata", "words"),
    [
        ({}, {}, "holds no codes"),
        ({"weight": np.zeros(3, np.float32)}, {}, "holds no codes"),
        ({"more": np.zeros(3)}, FORMAT, "holds no codes"),
        ({}, header('{"version": 2, "h": 4}'), "format 2, this release reads 1"),
        ({}, header("{}"), "is damaged (its header is '{}')"),
        ({}, header("4"), "is damaged (its header is '4')"),
        ({}, header("h=4"), "is damaged (its header is 'h=4')"),
        ({}, header('{"version": 1, "h": 3}'), "damaged (latents must be below h=3, got 3)"),
        ({}, header('{"version": 1, "h": 0}'), "hidden size must be in"),
        ({"indptr": np.zeros(0, np.int64)}, FORMAT, "row pointers"),
        ({"indptr": np.array([0, 2, 2, 4, 99])}, FORMAT, "row pointers"),
        ({"indptr": np.array([0, 4, 2, 4, 5])}, FORMAT, "row pointers"),
        ({"indptr": np.array([-1, 2, 2, 4, 5])}, FORMAT, "row pointers"),
        ({"indptr": np.array([0, 2, 2, 4])}, FORMAT, "row pointers"),
        ({"indptr": np.array([0.0, 2, 2, 4, 5])}, FORMAT, "indptr is F64 of shape 5"),
        ({"indptr": np.array([[0, 2, 2, 4, 5]])}, FORMAT, "indptr is I64 of shape 1×5"),
        ({"values": np.ones(4, np.float32)}, FORMAT, "not as many values as indices"),
        ({"values": np.ones(5, np.float64)}, FORMAT, "values is F64 of shape 5"),
        ({"values": np.array([1, 0, 1, 1, 1], np.float32)}, FORMAT, "damaged (codes must not"),
        ({"values": np.array([1, np.nan, 1, 1, 1], np.float32)}, FORMAT, "must be finite"),
    ],
)
def test_foreign_and_damaged_files_are_refused(
    tmp_path: Path, arrays: dict[str, npt.NDArray[Any]], metadata: dict[str, str], words: str
) -> None:
    path = tmp_path / "c.safetensors"
    save_file(_valid() | arrays, path, metadata=metadata)
    with pytest.raises(CsrError) as caught:
        SparseCodes.load(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_truncated_files_are_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "c.safetensors"
    BATCH.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    with pytest.raises(CsrError, match="cannot be read as codes"):
        SparseCodes.load(path)


def test_a_missing_file_a_folder_and_a_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no codes here, only words of a length that looks like one")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "text"):
        with pytest.raises(CsrError, match="cannot be read as codes"):
            SparseCodes.load(path)
