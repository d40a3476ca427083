"""Bad and hostile input: always one CsrError that says what and where, never anything else."""

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.sources import ArraySource, SourceOptions, open_source

VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)


class Bomb:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def _read_all(path: Path, **options: Any) -> None:
    for _ in open_source(path, **options).blocks(2):
        pass


def _npy_bytes(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _header(text: bytes, version: int = 1, length: int | None = None) -> bytes:
    size = len(text) if length is None else length
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + struct.pack("<H" if version == 1 else "<I", size)
        + text
    )


WHOLE = _npy_bytes(VECTORS)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty: write it anew"),
        (WHOLE[:-1], r"truncated: \(4, 3\) of float32 need 176 bytes, got 175"),
        (WHOLE[:130], "truncated"),
        (WHOLE[:40], "is no numpy array"),
        (WHOLE[:3], "is no numpy array"),
        (b"PK\x03\x04" + WHOLE, "is no numpy array"),
        (_npy_bytes(VECTORS[0]), r"shape \(n, d\), got shape \(3,\)"),
        (_npy_bytes(np.float32(1)), r"shape \(n, d\), got shape \(\)"),
        (_npy_bytes(VECTORS.astype(int)), "must be float16, float32 or float64, got int64"),
        (_npy_bytes(VECTORS.astype(complex)), "must be float16, float32 or float64, got complex"),
        (_npy_bytes(VECTORS.astype(str)), "must be float16, float32 or float64, got <U"),
        (_npy_bytes(VECTORS[:0]), r"holds no vectors, its shape is \(0, 3\)"),
        (_npy_bytes(VECTORS[:, :0]), r"holds no vectors, its shape is \(4, 0\)"),
        (_npy_bytes(np.zeros(2, [("a", "f4")])), r"shape \(n, d\), got shape \(2,\)"),
        (_header("{'descr': [('名', '<f4')], 'shape': (2,)}".encode(), version=3), "is no numpy"),
        (_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3)}"), "is no numpy"),
        (_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (4,"), "is no numpy array"),
        (_header(b"{'descr': '<f4', 'fortran_order': 0, 'shape': 'x'}"), "is no numpy array"),
        (_header(b"(" * 9000), "is no numpy array"),
        (_header(b"__import__('os').abort()"), "is no numpy array"),
        (_header(b"{}", version=2, length=2**32 - 1), "is no numpy array"),
        (_header(b"{" + b" " * 20_000, version=2), "is no numpy array"),
        (
            _header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999, 768)}\n"),
            "truncated",
        ),
    ],
)
def test_damaged_npy(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with pytest.raises(CsrError, match=sentence) as caught:
        _read_all(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    bombs = np.array([Bomb(tmp_path / "exploded")] * 4)
    np.save(tmp_path / "bombs.npy", bombs)
    (tmp_path / "raw.npy").write_bytes(pickle.dumps(bombs))
    (tmp_path / "raw.npz").write_bytes(pickle.dumps(bombs))
    np.save(tmp_path / "x.npy", VECTORS)
    np.savez(tmp_path / "vectors.npz", vectors=bombs)
    np.savez(tmp_path / "ids.npz", vectors=VECTORS, ids=bombs)
    np.savez(tmp_path / "label.npz", vectors=VECTORS, label=bombs)
    refused = "pickled Python objects, which are never loaded"
    for name in ("bombs.npy", "vectors.npz", "ids.npz", "label.npz"):
        with pytest.raises(CsrError, match=refused):
            _read_all(tmp_path / name)
    with pytest.raises(CsrError, match=refused):
        _read_all(tmp_path / "x.npy", ids=tmp_path / "bombs.npy")
    with pytest.raises(CsrError, match="is no numpy array"):
        _read_all(tmp_path / "raw.npy")
    with pytest.raises(CsrError, match=r"cannot be read as \.npz"):
        _read_all(tmp_path / "raw.npz")
    _read_all(tmp_path / "label.npz", payload_fields=())  # not looked at
    assert not (tmp_path / "exploded").exists()


def _npz(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ({}, r"no array 'vectors' or 'embeddings' or 'data' \(found: none\)"),
        ({"x": WHOLE}, r"no array 'vectors' .*\(found: x\): name the vector field"),
        ({"vectors": WHOLE[:-4]}, "array 'vectors' is truncated"),
        ({"vectors": b"junk"}, "array 'vectors' is no numpy array"),
        ({"vectors": _npy_bytes(VECTORS[0])}, r"shape \(n, d\), got shape \(3,\)"),
        ({"vectors": _npy_bytes(np.asfortranarray(VECTORS))}, "Fortran order, .*streamed"),
        ({"vectors": WHOLE, "ids": _npy_bytes(np.arange(3))}, "has 3 rows but .* has 4"),
        ({"vectors": WHOLE, "ids": _npy_bytes(np.ones(4))}, "integers or texts, .* float64"),
        ({"vectors": WHOLE, "ids": _npy_bytes(np.eye(4, dtype=int))}, r"got shape \(4, 4\)"),
        (
            {"vectors": WHOLE, "ids": _npy_bytes(np.array([1, 2, 3, 2]))},
            "id 2 twice, in rows 1 and 3",
        ),
        (
            {"vectors": WHOLE, "ids": _npy_bytes(np.array(["a", "", "b", "c"]))},
            "row 1: ids must not",
        ),
        ({"vectors": WHOLE, "when": _npy_bytes(np.zeros(4, "M8[s]"))}, "cannot be payload"),
        ({"vectors": WHOLE, "name": _npy_bytes(np.array([b"\xff"] * 4))}, "holds what is no text"),
        (
            {
                "vectors": WHOLE,
                "ids": _header(b"{'descr':'<U200000000','fortran_order':False,'shape':(4,)}\n"),
            },
            "is truncated",
        ),
    ],
)
def test_damaged_npz(tmp_path: Path, members: dict[str, bytes], sentence: str) -> None:
    with pytest.raises(CsrError, match=sentence) as caught:
        _read_all(_npz(tmp_path / "x.npz", **members))
    assert "x.npz" in str(caught.value)


def test_npz_cut_or_changed_within(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "x.npz"
    np.savez(path, vectors=rng.normal(size=(2000, 8)).astype(np.float32))
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    with pytest.raises(CsrError, match=r"cannot be read as \.npz"):
        _read_all(path)
    path.write_bytes(whole[:3000] + b"\xff" * 100 + whole[3100:])
    with pytest.raises(CsrError, match=r"cannot be read as \.npz .*CRC"):
        _read_all(path)


def test_npz_fields_that_are_missing(tmp_path: Path) -> None:
    path = _npz(tmp_path / "x.npz", vectors=WHOLE, label=_npy_bytes(np.arange(4)))
    with pytest.raises(CsrError, match=r"no array 'w' \(found: vectors, label\)"):
        open_source(path, vector_field="w")
    with pytest.raises(CsrError, match=r"no array 'key' \(found: vectors, label\)"):
        open_source(path, id_field="key")
    with pytest.raises(CsrError, match=r"'x' is no column of 4 values \(arrays found: vectors"):
        open_source(path, payload_fields=["x"])


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("i.txt", "a\nb\nc\n", r"i\.txt has 3 rows but .*x\.npy has 4: they must match"),
        ("i.txt", "a\nb\nc\nd\ne\n", "has 5 rows but"),
        ("i.txt", "a\nb\na\nd\n", "id 'a' twice, in rows 0 and 2"),
        ("i.txt", "a\n\nb\nc\n", "line 2: ids must not be empty"),
        ("i.txt", "", "is empty"),
        ("i.jsonl", "1\n2\n3\n", "has 3 rows but"),
        ("i.jsonl", '1\n2\n{"name": 3}\n4\n', r"line 3 has no id \(fields found: name\)"),
        ("i.jsonl", "1\n2\n[3]\n4\n", "line 3: ids must be integers"),
    ],
)
def test_bad_ids_files(tmp_path: Path, name: str, content: str, sentence: str) -> None:
    np.save(tmp_path / "x.npy", VECTORS)
    (tmp_path / name).write_text(content)
    with pytest.raises(CsrError, match=sentence):
        open_source(tmp_path / "x.npy", ids=tmp_path / name)


def test_bad_payload_files(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", VECTORS)
    path = tmp_path / "p.jsonl"
    for content, sentence in [
        ("{}\n" * 3, r"p\.jsonl has 3 rows but .* has 4"),
        ("{}\n{}\n[]\n{}\n", "line 3 must hold a JSON object, got list"),
        ('{"_id": 5}\n' * 4, "line 1 has the payload key '_id', which is reserved"),
    ]:
        path.write_text(content)
        with pytest.raises(CsrError, match=sentence):
            open_source(tmp_path / "x.npy", payload=path)


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", VECTORS)
    (tmp_path / "x.jsonl").write_text('{"id": 1, "text": "a"}\n')
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("x.npy", {"text_field": "t"}, "text_field means nothing for .npy"),
        ("x.npy", {"vector_field": "t"}, "vector_field means nothing for .npy"),
        ("x.jsonl", {"ids": "x.npy"}, "ids means nothing for .jsonl"),
        ("x.jsonl", {"text_field": "a", "vector_field": "b"}, "choose a text or a vector field"),
        ("x.jsonl", {"payload_fields": "abc"}, "must be a list of names"),
        ("x.jsonl", {"payload_fields": ["_id"]}, "reserved for ids"),
        ("x.npy", {"ids": tmp_path / "x.jsonl.zip"}, "does not exist"),
        ("x.npy", {"ids": tmp_path}, "is a folder, a file is needed"),
    ]
    for path, options, sentence in cases:
        with pytest.raises(CsrError, match=sentence):
            open_source(tmp_path / path, **options)
    with pytest.raises(ConfigError, match=r"cannot be read as payloads: give a \.jsonl file"):
        open_source(tmp_path / "x.npy", payload=tmp_path / "x.npy")
    (tmp_path / "x.md").write_text("x")
    with pytest.raises(ConfigError, match=r"cannot be read as ids: give a \.npy, \.txt or \.jsonl"):
        open_source(tmp_path / "x.npy", ids=tmp_path / "x.md")
    with pytest.raises(CsrError, match=r"of no known kind: give one of \.npy, .*BEIR folder"):
        open_source(tmp_path / "x.md")
    with pytest.raises(CsrError, match=r"nothing\.npy does not exist: check the path"):
        open_source(tmp_path / "nothing.npy")


def test_damaged_codes(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    SparseCodes.from_dense(VECTORS).save(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CsrError, match="cannot be read as codes"):
        open_source(path)
    SparseCodes.from_dense(VECTORS[:0]).save(path)
    with pytest.raises(CsrError, match="holds no rows"):
        open_source(path)


def test_array_sources_check_what_they_are_given() -> None:
    with pytest.raises(CsrError, match=r"ids of vectors has 2 rows but vectors has 4"):
        ArraySource(VECTORS, [1, 2])
    with pytest.raises(CsrError, match="id 'a' twice, in rows 1 and 3"):
        ArraySource(VECTORS, [1, "a", "b", "a"])
    with pytest.raises(CsrError, match="payloads of vectors has 1 rows"):
        ArraySource(VECTORS, payloads=[{}])
    with pytest.raises(CsrError, match="payloads of vectors row 2 has the payload key '_id'"):
        ArraySource(VECTORS, payloads=[{}, {}, {"_id": 1}, {}])
    with pytest.raises(CsrError, match="must be float16"):
        ArraySource(VECTORS.astype(int))


def test_options_are_compared_as_text() -> None:
    first = SourceOptions(payload_fields=["a"], ids=Path("x"))
    assert first.as_text() == SourceOptions(payload_fields=("a",), ids=Path("./y")).as_text()
    assert first.as_text() != SourceOptions(payload_fields=("a",)).as_text()
    assert SourceOptions().as_text() != SourceOptions(payload_fields=()).as_text()
