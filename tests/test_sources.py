"""Sources: every format gives the same rows, from any row on, in blocks of any size."""

import csv
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.sources import ArraySource, Source, open_source

ROWS, DIMENSION = 23, 4
VECTORS = np.random.default_rng(0).normal(size=(ROWS, DIMENSION)).astype(np.float32)
IDS = [f"doc-{row}" for row in range(ROWS)]
TEXTS = [f"text of row {row}, with “signs”\nand a line" for row in range(ROWS)]
LABELS = [row % 3 for row in range(ROWS)]
CODES = SparseCodes.from_dense(np.maximum(VECTORS, 0))


def _lines(path: Path, rows: list[Any]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def _side_files(folder: Path) -> dict[str, Any]:
    ids = folder / "ids.txt"
    ids.write_text("\n".join(IDS))
    return {"ids": ids, "payload": _lines(folder / "p.jsonl", [{"label": i} for i in LABELS])}


def _npy(folder: Path) -> Source:
    np.save(folder / "x.npy", VECTORS)
    return open_source(folder / "x.npy", **_side_files(folder))


def _fortran(folder: Path) -> Source:
    np.save(folder / "x.npy", np.asfortranarray(VECTORS))
    return open_source(folder / "x.npy", **_side_files(folder))


def _array(folder: Path) -> Source:
    return ArraySource(VECTORS, IDS, [{"label": label} for label in LABELS])


def _npz(folder: Path) -> Source:
    path = folder / "x.npz"
    np.savez(path, vectors=VECTORS, ids=np.array(IDS), label=np.array(LABELS), other=np.eye(2))
    return open_source(path)


def _compressed(folder: Path) -> Source:
    path = folder / "x.npz"
    arrays = {"mine": VECTORS, "key": np.array(IDS), "label": np.array(LABELS)}
    np.savez_compressed(path, allow_pickle=False, **arrays)
    return open_source(path, vector_field="mine", id_field="key")


def _parquet(kind: Callable[[Any], Any]) -> Callable[[Path], Source]:
    def make(folder: Path) -> Source:
        vectors = pa.array(VECTORS.tolist(), kind(pa.float32()))
        columns = {"id": pa.array(IDS).dictionary_encode(), "embedding": vectors, "label": LABELS}
        parquet.write_table(pa.table(columns), folder / "x.parquet", row_group_size=5)
        return open_source(folder / "x.parquet")

    return make


def _records() -> list[dict[str, Any]]:
    columns = zip(IDS, VECTORS.tolist(), LABELS, strict=True)
    return [{"id": i, "vector": vector, "label": label} for i, vector, label in columns]


def _jsonl(folder: Path) -> Source:
    return open_source(_lines(folder / "x.jsonl", _records()))


def _jsonl_gz(folder: Path) -> Source:
    return open_source(_lines(folder / "x.jsonl.gz", _records()))


def _csv_file(path: Path, rows: list[dict[str, Any]]) -> Path:
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _csv(folder: Path) -> Source:
    rows = [{**row, "label": str(row["label"])} for row in _records()]
    return open_source(_csv_file(folder / "x.csv", rows))


FORMATS: dict[str, Callable[[Path], Source]] = {
    "npy": _npy,
    "fortran npy": _fortran,
    "array": _array,
    "npz": _npz,
    "compressed npz": _compressed,
    "list parquet": _parquet(pa.list_),
    "large list parquet": _parquet(pa.large_list),
    "fixed-size list parquet": _parquet(lambda kind: pa.list_(kind, DIMENSION)),
    "jsonl": _jsonl,
    "jsonl.gz": _jsonl_gz,
    "csv": _csv,
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source]:
    return {name: make(tmp_path_factory.mktemp("source")) for name, make in FORMATS.items()}


@settings(deadline=None)
@given(
    name=st.sampled_from(sorted(FORMATS)),
    size=st.integers(1, ROWS + 3),
    start=st.integers(0, ROWS),
)
def test_blocks_of_any_size_from_any_row_hold_the_same_rows(
    sources: dict[str, Source], name: str, size: int, start: int
) -> None:
    source = sources[name]
    assert (len(source), source.kind) == (ROWS, "vectors")
    blocks = list(source.blocks(size, start))
    assert [block.start for block in blocks] == list(range(start, ROWS, size))
    assert all(len(block) == size for block in blocks[:-1])
    assert [external for block in blocks for external in block.ids] == IDS[start:]
    labels = [row for block in blocks for row in block.payloads or ()]
    shown: Callable[[int], Any] = str if name == "csv" else int
    assert labels == [{"label": shown(label)} for label in LABELS[start:]]
    for block in blocks:
        assert block.vectors is not None
        assert block.vectors.dtype == np.float32
        assert block.vectors.flags.c_contiguous
        np.testing.assert_array_equal(block.vectors, VECTORS[block.start :][: len(block)])
        assert block.texts is None
        assert block.codes is None


@settings(deadline=None)
@given(size=st.integers(1, ROWS + 3), start=st.integers(0, ROWS))
def test_saved_codes_come_in_blocks(
    tmp_path_factory: pytest.TempPathFactory, size: int, start: int
) -> None:
    folder = tmp_path_factory.mktemp("codes")
    CODES.save(folder / "x.safetensors")
    source = open_source(folder / "x.safetensors", **_side_files(folder))
    assert (len(source), source.kind) == (ROWS, "codes")
    ids: list[Any] = []
    for block in source.blocks(size, start):
        assert block.codes is not None
        assert block.codes.equals(CODES[block.start : block.start + len(block)])
        assert block.payloads is not None
        assert block.payloads[0] == {"label": LABELS[block.start]}
        ids += block.ids
    assert ids == IDS[start:]


def _text_records() -> list[dict[str, Any]]:
    return [
        {"_id": external, "title": f"T{row}" if row % 2 else "", "text": text}
        for row, (external, text) in enumerate(zip(IDS, TEXTS, strict=True))
    ]


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "csv", "csv.gz", "parquet", "beir"])
@settings(deadline=None)
@given(size=st.integers(1, ROWS + 3), start=st.integers(0, ROWS))
def test_texts_follow_their_title_and_stay_in_the_payload(
    tmp_path_factory: pytest.TempPathFactory, kind: str, size: int, start: int
) -> None:
    folder = tmp_path_factory.mktemp("texts")
    path = folder / f"corpus.{'jsonl' if kind == 'beir' else kind}"
    if kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(_text_records()), path, row_group_size=4)
    else:
        (_csv_file if "csv" in kind else _lines)(path, _text_records())
    source = open_source(folder if kind == "beir" else path)
    assert (len(source), source.kind) == (ROWS, "texts")
    blocks = list(source.blocks(size, start))
    expected = [f"T{row} {text}" if row % 2 else text for row, text in enumerate(TEXTS)]
    assert [text for block in blocks for text in block.texts or ()] == expected[start:]
    assert [external for block in blocks for external in block.ids] == IDS[start:]
    payloads = [dict(row) for block in blocks for row in block.payloads or ()]
    assert payloads == [
        {"title": row["title"], "text": row["text"]} for row in _text_records()[start:]
    ]


def test_blocks_refuse_impossible_ranges() -> None:
    source = ArraySource(VECTORS)
    assert list(source.blocks(4, ROWS)) == []
    with pytest.raises(ConfigError, match="at least 1 row each, got 0"):
        source.blocks(0)
    with pytest.raises(ConfigError, match=r"start must be in 0..23 \(number of rows\), got 24"):
        source.blocks(4, ROWS + 1)


def test_fingerprints_follow_files_and_options(tmp_path: Path) -> None:
    path = _lines(tmp_path / "x.jsonl", _records())
    source = open_source(path)
    assert open_source(os.path.relpath(path)).fingerprint == source.fingerprint
    assert open_source(path, payload_fields=["label"]).fingerprint != source.fingerprint
    list(source.blocks(5))
    _lines(path, _records()[::-1])
    os.utime(path, (1, 1))
    assert open_source(path).fingerprint != source.fingerprint
    with pytest.raises(CsrError, match="changed after being opened: open the source again"):
        source.blocks(5)


def test_fingerprints_of_arrays_follow_their_content() -> None:
    same = ArraySource(VECTORS.copy(), list(IDS)).fingerprint
    assert ArraySource(VECTORS, IDS).fingerprint == same
    changed = VECTORS.copy()
    changed[11, 2] += 1
    others = [
        ArraySource(changed, IDS),
        ArraySource(VECTORS),
        ArraySource(VECTORS, IDS[::-1]),
        ArraySource(VECTORS, IDS, [{}] * ROWS),
    ]
    assert len({same, *(source.fingerprint for source in others)}) == 5


def test_importing_sources_loads_no_heavy_package() -> None:
    program = (
        "import sys, csr_qdrant.sources\n"
        "heavy = {'torch', 'pyarrow', 'scipy', 'qdrant_client', 'qdrant_edge'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
