"""Files that are made to run code, or claim more than a machine holds."""

import io
import pickle
import struct
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.errors import CsrError
from csr_qdrant.json_files import MAX_BYTES
from csr_qdrant.sources import npz

sys.path.insert(0, str(Path(__file__).parent))
from reader_seeds import VECTORS
from readers import READERS

# Readers of text; what they are given is not UTF-8 anywhere.
TEXTS = [name for name, reader in READERS.items() if reader.file.endswith(
    (".json", ".jsonl", ".txt", ".csv", ".tsv", ".toml", ".gz")
)]  # fmt: skip


# --- pickles ----------------------------------------------------------------------------------


class Runs:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def _zip(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return file.getvalue()


def _npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def _pickles(bad: Runs) -> Iterator[tuple[str, bytes]]:
    objects, good = np.array([bad] * 4, object), _npy(VECTORS)
    for name in ("source .npy", "ids .npy", "labels .npy"):
        yield name, _npy(objects)
    yield "source .npz", _zip(vectors_npy=_npy(objects))
    yield "source .npz", _zip(vectors_npy=good, ids_npy=_npy(objects))
    yield "source .npz", _zip(vectors_npy=good, n_npy=_npy(objects))
    yield "labelled .npz", _zip(data_npy=good, label_npy=_npy(objects))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield "checkpoint .pth", pickle.dumps({"state_dict": bad}, protocol)
    for name, reader in READERS.items():
        yield name, pickle.dumps(bad)
        if reader.member is None and reader.file.endswith(".pth"):
            yield name, reader_zip(pickle.dumps({"state_dict": bad}, 2))


def reader_zip(content: bytes) -> bytes:
    """Return what torch.save writes, with other content."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("c/data.pkl", content)
        archive.writestr("c/version", "3\n")
        archive.writestr("c/byteorder", "little")
    return file.getvalue()


def test_pickles_are_refused_and_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    pickle.loads(pickle.dumps(Runs(mark)))
    assert mark.exists(), "it runs where it is loaded"
    mark.unlink()
    for number, (name, content) in enumerate(_pickles(Runs(mark))):
        folder = tmp_path / str(number)
        folder.mkdir()
        READERS[name].write(folder)
        assert READERS[name].refuses(folder, content) is not None, name
        assert not mark.exists(), name


def test_an_encoder_in_a_pickle_is_refused(tmp_path: Path) -> None:
    reader = READERS["encoder weights"]
    reader.write(tmp_path)
    (tmp_path / reader.file).rename(tmp_path / "encoder" / "pytorch_model.bin")
    with pytest.raises(CsrError, match=r"pytorch_model\.bin, a pickle, which is never loaded"):
        reader.read(tmp_path)


# --- texts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_no_utf8_is_refused(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    seed = reader.seed(tmp_path)
    for content in (b"\xff\xfe" + b"x\0" * 9, b'{"_id": "\xe9"}\n', "ü".encode("utf-16"), b"\xc3"):
        broken = reader.damaged(seed, lambda _, content=content: content)  # type: ignore[misc]
        assert reader.refuses(tmp_path, broken) is not None, content


def test_an_error_is_one_short_line_whatever_stands_in_it() -> None:
    error = CsrError("a column \x1b[31m'x\ny'" + "z" * 10**6 + ": rename it")
    assert str(error).startswith(r"a column \x1b[31m'x y'zz") and len(str(error)) < 1600
    assert str(error).endswith("zz: rename it")


# --- headers and descriptions -----------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n, r in READERS.items() if r.file.endswith(".json")])
def test_endless_and_deep_descriptions_are_refused(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    reader.write(tmp_path)
    for content in (b"[" * 10**6, b'{"a":' * 10**5, b"1" * 10**5, b"1e400", b"-"):
        assert reader.refuses(tmp_path, content) is not None
    if name.startswith(("encoder", "pipeline", "adapter", "collection", "edge")):
        said = reader.refuses(tmp_path, b'"' + b" " * MAX_BYTES + b'"')
        assert said is not None and "larger than 16 MiB" in said


HEADERS: dict[str, list[bytes]] = {
    ".npy": [
        b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1) + b" " * 100,
        b"\x93NUMPY\1\0" + struct.pack("<H", 65535) + b"(" * 65535,
        b"\x93NUMPY\3\0" + struct.pack("<I", 2**31) + b"{" * 1000,
    ],
    ".safetensors": [
        struct.pack("<Q", 2**63 - 1) + b"{",
        struct.pack("<Q", 2**40) + b"{}",
        struct.pack("<Q", 10**6) + b"[" * 10**6,
    ],
    ".parquet": [
        b"PAR1" + b"\x15" * 1000 + struct.pack("<I", 2**31) + b"PAR1",
        b"PAR1" + b"\x19\xfc\xff\xff\xff\x0f" * 200 + struct.pack("<I", 1200) + b"PAR1",
    ],
    ".npz": [b"PK\5\6" + b"\0" * 4 + b"\xff" * 12 + b"\0\0", b"PK\x06\x06" + b"\xff" * 90],
}


@pytest.mark.parametrize(
    "name", [n for n, r in READERS.items() if any(r.file.endswith(end) for end in HEADERS)]
)
def test_headers_that_claim_too_much_are_refused(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    reader.write(tmp_path)
    for content in HEADERS["." + reader.file.rpartition(".")[2]]:
        assert reader.refuses(tmp_path, content) is not None


def test_labels_that_would_fill_the_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz, "MAX_ARRAY_BYTES", 1000)
    reader = READERS["labelled .npz"]
    reader.write(tmp_path)
    content = _zip(data_npy=_npy(VECTORS), label_npy=_npy(np.zeros(10**6)))
    said = reader.refuses(tmp_path, content)
    assert said is not None and "array 'label' takes 8,000,000 bytes, above 1,000" in said


def test_an_archive_whose_names_are_no_utf8_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", naïve=np.ones((2, 3), np.float32))  # flagged as UTF-8
    content = (tmp_path / "x.npz").read_bytes()
    assert content.count("naïve".encode()) == 2
    (tmp_path / "x.npz").write_bytes(content.replace("naïve".encode(), b"na\x90\x90ve"))
    with pytest.raises(CsrError, match=r"cannot be read as \.npz"):
        npz.array_names(tmp_path / "x.npz")
