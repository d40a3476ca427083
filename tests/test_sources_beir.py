"""BEIR folders, relevance files, and vectors of any source as one array on disk."""

import gzip
import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.sources import (
    ArraySource,
    as_memmap,
    beir_splits,
    open_source,
    read_beir,
    read_pairs,
    read_queries,
)

NAVE = Path(__file__).parents[1] / "benchmarks" / "data" / "nave"
HEADER = "query-id\tcorpus-id\tscore\n"


def _beir(folder: Path, *, nested: bool, gz: bool) -> Path:
    files = {
        "corpus.jsonl": '{"_id": 1, "title": "T", "text": "a"}\n{"_id": "d2", "text": "b"}\n',
        "queries.jsonl": '{"_id": "q1", "text": "x"}\n{"_id": 2, "text": "y"}\n'
        '{"_id": "q3", "text": "z", "metadata": {}}\n',
        ("qrels/test" if nested else "qrels.test") + ".tsv": HEADER + "q3\t1\t2\n2\td2\t0\n2\t1\t1",
    }
    for name, text in files.items():
        path = folder / (name + ".gz" if gz else name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()) if gz else text.encode())
    return folder


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("gz", [True, False])
def test_beir_folders_of_both_layouts(tmp_path: Path, nested: bool, gz: bool) -> None:
    folder = _beir(tmp_path, nested=nested, gz=gz)
    (block,) = open_source(folder).blocks(9)
    assert (block.ids, block.texts) == (["1", "d2"], ["T a", "b"])
    assert list(beir_splits(folder)) == ["test"]
    judged = read_beir(folder, "test")
    assert judged.query_ids == ["2", "q3"]
    assert judged.texts == ["y", "z"]
    assert judged.qrels == {"q3": {"1": 2}, "2": {"d2": 0, "1": 1}}
    assert read_queries(folder) == (["q1", "2", "q3"], ["x", "y", "z"])


def test_the_shipped_data_set_is_whole() -> None:
    source = open_source(NAVE)
    assert (len(source), source.kind) == (31_095, "texts")
    (first, *_) = source.blocks(2)
    assert first.ids == ["Gen.1.1", "Gen.1.2"]
    assert first.texts is not None
    assert first.texts[0] == "In the beginning, Godcreated the heavens and the earth."
    sizes = {"train": (6_231, 38_180), "dev": (1_046, 6_896), "test": (2_609, 17_918)}
    assert set(beir_splits(NAVE)) == set(sizes)
    for split, (queries, judgements) in sizes.items():
        judged = read_beir(NAVE, split)
        assert len(judged.query_ids) == len(judged.texts) == len(judged.qrels) == queries
        assert sum(map(len, judged.qrels.values())) == judgements


def test_beir_mistakes_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(CsrError, match=r"is no BEIR folder, it has no corpus\.jsonl or corpus"):
        open_source(tmp_path)
    folder = _beir(tmp_path, nested=True, gz=False)
    with pytest.raises(CsrError, match=r"no judgements 'dev' \(found: test\): .*qrels/dev\.tsv"):
        read_beir(folder, "dev")
    (folder / "qrels" / "dev.tsv").write_text(HEADER + "q9\t1\t1\n")
    with pytest.raises(CsrError, match=r"dev\.tsv judges query 'q9', which .* does not hold"):
        read_beir(folder, "dev")
    (folder / "qrels" / "dev.tsv").write_text(HEADER + "q1\t1\t0.5\n")
    with pytest.raises(CsrError, match=r"must grade with integers, got 0\.5 for query 'q1'"):
        read_beir(folder, "dev")


@pytest.mark.parametrize("header", ["", HEADER])
@pytest.mark.parametrize("name", ["p.tsv", "p.tsv.gz"])
def test_pairs_with_and_without_header(tmp_path: Path, header: str, name: str) -> None:
    text = (header + "q1\t17\t1\r\nq1\tb c\t0.5\n\nq2\t17\t-2\n").encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    pairs = read_pairs(tmp_path / name)
    assert len(pairs) == 3
    assert pairs.query_ids == ["q1", "q1", "q2"]
    assert pairs.doc_ids == ["17", "b c", "17"]
    assert pairs.scores.dtype == np.float32
    assert pairs.scores.tolist() == [1, 0.5, -2]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("q1\td1\t1\nq2\td2\n", r"line 2 must be query-id, doc-id and score, .* got 'q2\\td2'"),
        ("q1\td1\t1\nq2\t\t1\n", "line 2 must be query-id"),
        ("q1 0 d1 1\n", "line 1 must be query-id"),
        ("q1\td1\t1\nq2\td2\thigh\n", "line 2 must end with a number, got 'high'"),
        ("q1\td1\t1\nq2\td2\tnan\n", "line 2 must end with a number, got 'nan'"),
        (HEADER, "holds no pairs"),
        ("", "is empty"),
    ],
)
def test_pairs_mistakes_name_the_line(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "p.tsv").write_text(text)
    with pytest.raises(CsrError, match=sentence):
        read_pairs(tmp_path / "p.tsv")


# --- as_memmap --------------------------------------------------------------------------------


def _lengths(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    return np.array([[len(text), 1] for text in texts], np.float32)


def _texts(folder: Path, count: int) -> Path:
    path = folder / "x.jsonl"
    path.write_text(
        "".join(json.dumps({"id": row, "text": "a" * row}) + "\n" for row in range(count))
    )
    return path


def test_mapped_vectors_are_returned_as_they_are(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float16).reshape(3, 2)
    np.save(tmp_path / "x.npy", values)
    array = as_memmap(open_source(tmp_path / "x.npy"), tmp_path / "spilled.npy")
    assert isinstance(array, np.memmap)
    assert array.tolist() == values.tolist()
    assert as_memmap(ArraySource(values), tmp_path / "spilled.npy") is values
    assert not (tmp_path / "spilled.npy").exists()


def test_other_vectors_are_spilled(tmp_path: Path) -> None:
    values = np.arange(14, dtype=np.float32).reshape(7, 2)
    np.savez_compressed(tmp_path / "x.npz", vectors=values)
    done: list[int] = []
    path = tmp_path / "spilled.npy"
    array = as_memmap(open_source(tmp_path / "x.npz"), path, size=3, progress=done.append)
    assert isinstance(array, np.memmap)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, values)
    np.testing.assert_array_equal(np.load(path), values)
    assert done == [3, 3, 1]
    for odd in (np.asfortranarray(values), values.astype(">f4")):
        array = as_memmap(ArraySource(odd), path)
        assert array.flags.c_contiguous
        assert array.dtype.isnative
        np.testing.assert_array_equal(array, values)


def test_texts_are_embedded_on_the_way(tmp_path: Path) -> None:
    source = open_source(_texts(tmp_path, 5))
    array = as_memmap(source, tmp_path / "spilled.npy", _lengths, size=2)
    assert array.tolist() == [[row, 1] for row in range(5)]
    with pytest.raises(ConfigError, match="holds texts: name an embedder"):
        as_memmap(source, tmp_path / "other.npy")


def test_codes_cannot_be_spilled(tmp_path: Path) -> None:
    SparseCodes.from_dense(np.eye(2)).save(tmp_path / "x.safetensors")
    with pytest.raises(CsrError, match="holds codes, dense vectors are needed"):
        as_memmap(open_source(tmp_path / "x.safetensors"), tmp_path / "spilled.npy")


def test_a_failed_spill_leaves_the_old_file(tmp_path: Path) -> None:
    source = open_source(_texts(tmp_path, 5))
    path = tmp_path / "out" / "spilled.npy"
    as_memmap(source, path, _lengths)
    before = path.read_bytes()

    def uneven(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.ones((len(texts), len(texts)), np.float32)

    with pytest.raises(CsrError, match=r"row 2 has shape \(2,\)|row 4 has shape \(1,\)"):
        as_memmap(source, path, uneven, size=2)

    def offline(texts: Sequence[str]) -> Any:
        raise ConnectionError("no route to the model")

    with pytest.raises(CsrError, match="could not be embedded: no route to the model"):
        as_memmap(source, path, offline)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["spilled.npy"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from csr_qdrant.sources import spill

    # Writes to this device fail as those on a full disk do.
    monkeypatch.setattr(spill, "replaced_file", lambda _: nullcontext(Path("/dev/full")))
    with pytest.raises(CsrError, match=r"cannot be written \(No space left on device\)"):
        as_memmap(open_source(_texts(tmp_path, 5)), tmp_path / "s.npy", _lengths)
