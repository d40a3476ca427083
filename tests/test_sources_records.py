"""Bad and hostile rows of text formats and parquet: one CsrError that names file and line."""

import gzip
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from csr_qdrant.errors import CsrError, MissingExtraError
from csr_qdrant.sources import lines as lines_module
from csr_qdrant.sources import open_source


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"\n \n", "holds no rows"),
        (b'{"id": 1, "text": "a"}\n{"id": 2, "text": ', r"line 2 is not valid JSON"),
        (b'{"id": 1, "text": "a"}\n\n[1]\n', "line 3 must hold a JSON object, got list"),
        (b'{"id": 1, "text": "a"}\n{"text": "b"}\n', r"line 2 has no field 'id' \(found: text\)"),
        (b'{"id": 1, "text": "a"}\n{"id": 2, "body": "b"}\n', "line 2 field 'text' must be a text"),
        (b'{"id": 1, "text": null}\n', "line 1 field 'text' must be a text, got NoneType"),
        (b'{"id": 1, "text": "a", "title": 5}\n', "line 1 field 'title' must be a text, got int"),
        (b'{"id": 1, "text": "\xff"}\n', "line 1 is not UTF-8 text"),
        (b'{"id": 1, "text": "\\ud800"}\n', "line 1 field 'text' holds half a surrogate pair"),
        (b'{"id": "\\ud800", "text": "a"}\n', "line 1 holds half a surrogate pair"),
        (b'{"id": 1, "text": "a", "p": {"q": ["\\udfff"]}}\n', "line 1 holds half a surrogate"),
        (
            b'{"id": 1.5, "text": "a"}\n',
            "line 1: ids must be integers, strings or UUIDs, got float",
        ),
        (b'{"id": true, "text": "a"}\n', "line 1: ids must be integers"),
        (b'{"id": "", "text": "a"}\n', "line 1: ids must not be empty"),
        (b'{"id": 99999999999999999999, "text": "a"}\n', "line 1: integer ids must fit into 64"),
        (b'{"id": ' + b"9" * 5000 + b', "text": "a"}\n', "line 1 is not valid JSON"),
        (b'{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}\n', "id 1 twice, in rows 0 and 1"),
        (b'{"id": 1, "body": "a"}\n', r"no such field 'text or vector' \(found: id, body\)"),
        (b'{"_id": 1, "id": 2, "text": "a"}\n' * 2, "id 1 twice"),
        (b'{"id": 1, "text": "a"}\n{"id": 2, "text": "a", "_id": 3}\n', "'_id', which is reserved"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "line 1 is not valid JSON"),
        (b'{"id": 1, "vector": []}\n', "line 1 field 'vector' must be a list of numbers, got an"),
        (b'{"id": 1, "vector": 5}\n', "line 1 field 'vector' must be a list of numbers, got int"),
        (b'{"id": 1, "vector": [1, "2"]}\n', "must hold numbers only, got str in it"),
        (b'{"id": 1, "vector": [1, null]}\n', "must hold numbers only, got NoneType in it"),
        (b'{"id": 1, "vector": [1, true]}\n', "must hold numbers only, got bool in it"),
        (b'{"id": 1, "vector": [[1], [2]]}\n', "must hold numbers only, got list in it"),
        (
            b'{"id": 1, "vector": [1, 2]}\n{"id": 2, "vector": [1, 2, 3]}\n',
            "line 2 field 'vector' has 3 numbers where the rows before have 2",
        ),
        (b'{"id": 1, "vector": [' + b"9" * 400 + b"]}\n", "integer too large for a float"),
        (b'{"id": 1, "vector": [1]}\n{"id": 2}\n', "line 2 has no field 'vector'"),
    ],
)
def test_bad_json_lines(tmp_path: Path, content: bytes, sentence: str) -> None:
    for path in (tmp_path / "x.jsonl", tmp_path / "x.jsonl.gz"):
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" and content else content)
        with pytest.raises(CsrError, match=sentence) as caught:
            open_source(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500


def test_values_that_json_lacks_become_none_and_infinity_stays_in_vectors(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"id": 1, "vector": [NaN, 1e39], "a": NaN, "b": [1e999, {"c": -Infinity}]}\n')
    (block,) = open_source(path).blocks(1)
    assert block.payloads == [{"a": None, "b": [None, {"c": None}]}]
    assert block.vectors is not None
    assert np.isnan(block.vectors[0, 0])
    assert np.isposinf(block.vectors[0, 1])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"id,text\n", "holds no rows"),
        (b"id,text\n1,a,b\n", "line 2 has 3 cells but the header has 2"),
        (b"id,text\n1,a\n\n2\n", "line 4 has 1 cells but the header has 2"),
        (b"id,text,id\n1,a,2\n", "has the column 'id' twice"),
        (b"name,text\n1,a\n", r"no id field 'id' \(found: name, text\)"),
        (b'id,text\n1,"a\n', "is not valid CSV"),
        (b'id,text\n1,"a"b\n', "line 2 is not valid CSV"),
        (b"id,text\n1,\xff\n", "line 2 is not UTF-8 text"),
        (b"id,vector\n1,[1.0 2.0]\n", "line 2 field 'vector' is not valid JSON"),
        (b"id,vector\n1,\n", "line 2 field 'vector' is not valid JSON"),
        (b'id,vector\n1,"{}"\n', "line 2 field 'vector' must be a list of numbers, got dict"),
        (b'id,vector\n1,"[1, 2]"\n2,"[1]"\n', "line 3 field 'vector' has 1 numbers"),
        (b"id,text\n1,a\n1,b\n", "id '1' twice, in rows 0 and 1"),
        (b"\xff\xfei\x00d\x00", "line 1 is not UTF-8 text"),
    ],
)
def test_bad_csv(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(CsrError, match=sentence):
        open_source(tmp_path / "x.csv")


def test_csv_with_byte_order_mark_and_long_cells(tmp_path: Path) -> None:
    text = "x" * 200_000  # more than the csv module's own limit
    (tmp_path / "x.csv").write_bytes(b"\xef\xbb\xbfid,text\r\n007,%s\r\n" % text.encode())
    (block,) = open_source(tmp_path / "x.csv").blocks(1)
    assert (block.ids, block.texts) == (["007"], [text])


def test_endless_lines_do_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines_module, "MAX_LINE_BYTES", 2**20)
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b" " * 2**22))
    with pytest.raises(CsrError, match="line 1 is longer than 1 MiB"):
        open_source(tmp_path / "x.jsonl.gz")


def test_damaged_gzip(tmp_path: Path) -> None:
    whole = gzip.compress(b'{"id": 1, "text": "a"}\n' * 100)
    for content in (whole[:-9], b"junk", whole[:20] + b"\0\0" + whole[22:]):
        (tmp_path / "x.jsonl.gz").write_bytes(content)
        with pytest.raises(CsrError, match=r"x\.jsonl\.gz cannot be read"):
            open_source(tmp_path / "x.jsonl.gz")


def _no_text() -> Any:
    """Return a column that claims to be text."""
    return pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())


def _bad_tables() -> list[tuple[Any, str]]:
    rows = pa.table({"id": [1, 2, 3]})
    ragged = pa.array([[1.0, 2.0], [1.0], [1.0, 2.0]])
    return [
        (rows, r"no such field 'text or vector' \(found: id\)"),
        (pa.table({"text": ["a"]}), r"no id field 'id' \(found: text\)"),
        (rows.append_column("text", pa.array([1, 2, 3])), "'text' must hold texts, got int64"),
        (rows.append_column("text", pa.array(["a", None, "b"])), "row 1 field 'text' must be a"),
        (rows.append_column("vector", pa.array([1.0, 2, 3])), "must hold lists of floats, got dou"),
        (rows.append_column("vector", pa.array([["a"]] * 3)), "must hold lists of floats"),
        (rows.append_column("vector", ragged), "row 1 has 1 numbers where the rows before have 2"),
        (rows.append_column("vector", pa.array([[1.0], None, [1.0]])), "row 1 is missing"),
        (rows.append_column("vector", pa.array([[1.0], [1.0], [None]])), "row 2 has a missing n"),
        (rows.append_column("vector", pa.array([[], [1.0], [1.0]])), "row 0 is empty"),
        (pa.table({"id": [1, 1], "text": ["a", "b"]}), "id 1 twice, in rows 0 and 1"),
        (pa.table({"id": [1, None], "text": ["a", "b"]}), "row 1: ids must be integers"),
        (pa.table({"id": [1.0], "text": ["a"]}), "row 0: ids must be integers"),
        (pa.table({"id": [1], "text": _no_text()}), "holds what is no UTF-8 text, from row 0 on"),
        (pa.table({"id": _no_text(), "text": ["a"]}), "holds what is no UTF-8 text, from row 0 on"),
        (pa.table({"id": [1], "text": ["a"], "raw": [b"x"]}), "payload value of type bytes"),
        (pa.table({"id": [1], "text": ["a"]}).slice(1), "holds no rows"),
        (pa.Table.from_arrays([pa.array([1])] * 2, ["id", "id"]), "has the column 'id' twice"),
    ]


@pytest.mark.parametrize(("table", "sentence"), _bad_tables())
def test_bad_parquet(tmp_path: Path, table: Any, sentence: str) -> None:
    parquet.write_table(table, tmp_path / "x.parquet", row_group_size=1)
    with pytest.raises(CsrError, match=sentence):
        list(open_source(tmp_path / "x.parquet").blocks(2))


def test_damaged_parquet(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    parquet.write_table(pa.table({"id": list(range(999)), "text": ["a"] * 999}), path)
    whole = path.read_bytes()
    for content in (b"junk", whole[:-50], b"PAR1", whole[:40] + b"\xff" * 60 + whole[100:]):
        path.write_bytes(content)
        with pytest.raises(CsrError, match=r"x\.parquet cannot be read as parquet|is empty"):
            list(open_source(path).blocks(2))


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet.write_table(pa.table({"id": [1], "text": ["a"]}), tmp_path / "x.parquet")
    monkeypatch.delitem(sys.modules, "csr_qdrant.sources.parquet", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'csr-qdrant\[parquet\]'"):
        open_source(tmp_path / "x.parquet")
