"""Fields of a source: ids, payloads and number types, in every format."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from pyarrow import parquet

from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import CsrError
from csr_qdrant.sources import ArraySource, open_source

VECTORS = np.random.default_rng(0).normal(size=(23, 4)).astype(np.float32)
CODES = SparseCodes.from_dense(np.maximum(VECTORS, 0))


def _lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("dtype", ["<f2", "<f8", ">f4"])
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_other_float_types_become_float32(tmp_path: Path, dtype: str, suffix: str) -> None:
    values = np.array([[0.5, -2.0], [1.25, 3.0]])
    path = tmp_path / f"x.{suffix}"
    if suffix == "npy":
        np.save(path, values.astype(dtype))
    else:
        np.savez(path, data=values.astype(dtype))
    (block,) = open_source(path).blocks(8)
    assert block.vectors is not None
    assert block.vectors.dtype == np.float32
    assert block.vectors.dtype.isnative
    assert block.vectors.tolist() == values.tolist()


@pytest.mark.parametrize("suffix", ["npy", "npz", "safetensors"])
def test_without_ids_the_row_numbers_are_the_ids(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    if suffix == "npy":
        np.save(path, VECTORS)
    elif suffix == "npz":
        np.savez(path, embeddings=VECTORS)
    else:
        CODES.save(path)
    first, second = open_source(path).blocks(12, 3)
    assert list(first.ids) == list(range(3, 15))
    assert list(second.ids) == list(range(15, 23))
    assert first.payloads is None


def test_row_numbers_can_be_asked_for(tmp_path: Path) -> None:
    path = _lines(tmp_path / "x.jsonl", [{"text": "a"}, {"text": "b"}])
    with pytest.raises(CsrError, match=r"no id field 'id' \(found: text\): name the id field"):
        open_source(path)
    (block,) = open_source(path, id_field="#").blocks(1, 1)
    assert (block.ids, block.texts) == ([1], ["b"])
    parquet.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "x.parquet")
    (block,) = open_source(tmp_path / "x.parquet", id_field="#").blocks(1, 1)
    assert (list(block.ids), block.texts) == ([1], ["b"])


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("i.txt", b"7\r\nb\r\n", ["7", "b"]),
        ("i.jsonl", b'7\n"b"\n', [7, "b"]),
        ("i.jsonl", b'{"_id": 7, "id": 1}\n\n{"id": "b"}\n', [7, "b"]),
        ("i.txt.gz", gzip.compress(b"x\ny", mtime=0), ["x", "y"]),
    ],
)
def test_ids_files_keep_the_types_that_they_have(
    tmp_path: Path, name: str, content: bytes, expected: list[Any]
) -> None:
    np.save(tmp_path / "x.npy", VECTORS[:2])
    (tmp_path / name).write_bytes(content)
    (block,) = open_source(tmp_path / "x.npy", ids=tmp_path / name).blocks(9)
    assert block.ids == expected


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (np.array([5, 2], np.uint64), [5, 2]),
        (np.array([2**64 - 1, 0], np.uint64), [2**64 - 1, 0]),
        (np.array([-5, 2], np.int16), [-5, 2]),
        (np.array(["ä", "longer"]), ["ä", "longer"]),
        (np.array(["ä".encode(), b"b"]), ["ä", "b"]),
    ],
)
def test_ids_arrays_of_every_type(
    tmp_path: Path, ids: npt.NDArray[Any], expected: list[Any]
) -> None:
    np.save(tmp_path / "x.npy", VECTORS[:2])
    np.save(tmp_path / "ids.npy", ids)
    np.savez(tmp_path / "x.npz", vectors=VECTORS[:2], ids=ids)
    for source in (
        open_source(tmp_path / "x.npy", ids=tmp_path / "ids.npy"),
        open_source(tmp_path / "x.npz"),
        ArraySource(VECTORS[:2], ids),
    ):
        (block,) = source.blocks(9)
        assert block.ids == expected
        assert {type(external) for external in block.ids} == {type(expected[0])}


def test_one_file_can_give_ids_and_payload(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", VECTORS[:2])
    both = _lines(tmp_path / "b.jsonl", [{"_id": "a", "n": 1}, {"_id": "b", "n": 2}])
    (block,) = open_source(tmp_path / "x.npy", ids=both, payload=both).blocks(9)
    assert (block.ids, block.payloads) == (["a", "b"], [{"n": 1}, {"n": 2}])


def test_payload_fields_choose_and_vectors_stay_out(tmp_path: Path) -> None:
    rows = [{"id": 1, "vector": [1, 2.5], "embedding": [9], "text": "t", "a": None, "b": [1]}]
    path = _lines(tmp_path / "x.jsonl", rows)
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    for source in (path, tmp_path / "x.parquet"):
        (block,) = open_source(source).blocks(1)
        assert block.payloads == [{"text": "t", "a": None, "b": [1]}]
        (block,) = open_source(source, payload_fields=["b", "id"]).blocks(1)
        assert block.payloads == [{"id": 1, "b": [1]}]
        (block,) = open_source(source, payload_fields=()).blocks(1)
        assert block.payloads in (None, [{}])
        (block,) = open_source(source, text_field="text").blocks(1)
        assert (block.texts, block.vectors) == (["t"], None)
        with pytest.raises(CsrError, match=r"no (field|column) 'c' \(found: id, "):
            open_source(source, payload_fields=["c"])


def test_titles_precede_only_the_field_text(tmp_path: Path) -> None:
    rows = [{"id": 1, "title": "T", "text": ""}, {"id": 2, "title": None, "text": "b"}]
    path = _lines(tmp_path / "x.jsonl", rows)
    (block,) = open_source(path).blocks(2)
    assert block.texts == ["T", "b"]
    path = _lines(tmp_path / "y.jsonl", [{"id": 1, "title": "T", "body": "b"}])
    (block,) = open_source(path, text_field="body").blocks(2)
    assert block.texts == ["b"]


def test_npz_payload_has_plain_values(tmp_path: Path) -> None:
    columns = {
        "flag": np.array([True, False]),
        "half": np.array([0.5, np.nan], np.float16),
        "name": np.array(["a", "bc"]),
        "raw": np.array([b"x", b"yz"]),
    }
    np.savez(tmp_path / "x.npz", allow_pickle=False, vectors=VECTORS[:2], **columns)
    (block,) = open_source(tmp_path / "x.npz").blocks(9)
    assert block.payloads == [
        {"flag": True, "half": 0.5, "name": "a", "raw": "x"},
        {"flag": False, "half": None, "name": "bc", "raw": "yz"},
    ]
    (block,) = open_source(tmp_path / "x.npz", payload_fields=["name"]).blocks(9)
    assert block.payloads == [{"name": "a"}, {"name": "bc"}]
