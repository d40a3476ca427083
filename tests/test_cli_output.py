"""What commands write, and where to."""

import json
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from csr_qdrant.cli import output as output_module
from csr_qdrant.cli.output import Output, clean, plain, table


class Pair(NamedTuple):
    a: int
    b: float


@dataclass(frozen=True)
class Nested:
    pairs: list[Pair]
    path: Path


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Pair(1, 2.5), {"a": 1, "b": 2.5}),
        (Nested([Pair(1, float("nan"))], Path("x")), {"pairs": [{"a": 1, "b": None}], "path": "x"}),
        ({1: np.float32(0.5), "n": np.int64(3)}, {"1": 0.5, "n": 3}),
        (np.array([[1.0, np.inf]]), [[1.0, None]]),
        ((1, "é", None, True), [1, "é", None, True]),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_values_become_plain_json(value: Any, expected: Any) -> None:
    assert plain(value) == expected
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == expected


def test_data_goes_to_stdout_and_all_else_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.result({"hits": 2}, "two hits", "[bold]as it is[/bold] :smile: 'quoted' 12")
    output.note("a note")
    output.warn("beware")
    assert capsys.readouterr() == (
        "two hits\n[bold]as it is[/bold] :smile: 'quoted' 12\n",
        "a note\nWarning: beware\n",
    )


def test_json_replaces_the_views(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=True)
    output.result({"città": float("nan"), "n": [1]}, "two hits")
    output.note("a note")
    out, err = capsys.readouterr()
    assert out == '{\n  "città": null,\n  "n": [\n    1\n  ]\n}\n'
    assert err == "a note\n"
    output.row({"id": "a"}, "a")
    output.row({"id": "b"}, "b")
    assert capsys.readouterr().out == '{"id": "a"}\n{"id": "b"}\n'


def test_quiet_keeps_data_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(quiet=True)
    output.result({}, "data")
    output.note("a note")
    output.warn("beware")
    with output.progress("embedding", 10) as progress:
        progress.advance(10)
    assert capsys.readouterr() == ("data\n", "Warning: beware\n")


def test_long_lines_and_wide_tables_stay_whole_in_a_pipe(
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = "word " * 100
    Output().result({}, long, table(["id", "text"], [["a", long], ["b", "short"]], title="Hits"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == long
    assert lines[1].strip() == "Hits"
    assert sum(long.strip() in line for line in lines) == 2
    assert sum("short" in line for line in lines) == 1


def test_columns_of_numbers_stand_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [["dense", "0.139", "1,024"], ["MRL", "–", "8"]]
    Output().result({}, table(["system", "nDCG", "bytes"], rows))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert [line.split() for line in lines if "─" not in line] == [
        ["system", "nDCG", "bytes"],
        *rows,
    ]
    assert lines[-1].endswith("      –       8")


def test_data_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert clean("a\x1b[31mred\r\x07\x9b\n\tz é") == "a\\x1b[31mred\\r\\x07\\x9b\n\tz é"
    Output().result({}, "\x1b[2J", table(["a"], [["\x1b[2J"]]))
    assert "\x1b" not in capsys.readouterr().out


def test_progress_without_a_terminal_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Output()
    with output.progress("embedding", 10) as progress:
        progress.advance(10)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(output_module, "PLAIN_SECONDS", 0.0)
    with output.progress("embedding", 2000) as progress:
        progress.advance(500, note="loss 0.5")
        progress.update(1000)
    with output.progress("reading", unit="lines") as progress:
        progress.advance(1234)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "embedding: 500 of 2,000 rows (25 %), 0 s, loss 0.5",
        "embedding: 1,000 of 2,000 rows (50 %), 0 s, loss 0.5",
        "embedding: 1,000 of 2,000 rows (50 %), 0 s, loss 0.5",
        "reading: 1,234 lines, 0 s",
        "reading: 1,234 lines, 0 s",
    ]


def test_questions_without_a_terminal_are_answered_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    assert Output().confirm("Really?") is False
