"""`CSR_LOG=json`: what is no data comes as a JSON object a line."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.cli import output
from csr_qdrant.cli.output import Output
from csr_qdrant.encoder import Encoder

PAGE = (Path(__file__).parents[1] / "docs" / "operate.md").read_text("utf-8")


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_notes_and_warnings_are_objects(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CSR_LOG", "json")
    Output().note("two\nlines")
    Output(quiet=True).note("not heard")
    Output(quiet=True).warn("beware")
    told = lines(capsys.readouterr().err)
    assert [(each["level"], each["message"]) for each in told] == [
        ("info", "two\nlines"),
        ("warning", "beware"),
    ]
    assert datetime.fromisoformat(told[0]["time"]).utcoffset() is not None


def test_progress_carries_its_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CSR_LOG", "json")
    monkeypatch.setattr(output, "PLAIN_SECONDS", 0.0)
    with Output().progress("attaching", 10) as progress:
        progress.update(4)
    told = lines(capsys.readouterr().err)
    assert {key: told[0][key] for key in ("task", "done", "total", "unit")} == {
        "task": "attaching",
        "done": 4,
        "total": 10,
        "unit": "rows",
    }
    example = json.loads(re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[0])
    assert set(example) == set(told[0])


def test_errors_are_objects_and_data_stay_as_they_were(
    csr: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tiny_encoder: Encoder
) -> None:
    monkeypatch.setenv("CSR_LOG", "json")
    failed = csr("info", "nothing")
    [told] = lines(failed.stderr)
    assert failed.exit_code == 1 and told["level"] == "error"
    assert told["message"].startswith("nothing is not there")
    tiny_encoder.save("enc")
    np.save("x.npy", np.ones((3, 8), np.float32))
    made = csr("index", "x.npy", "docs", "--encoder", "enc", "--json")
    assert made.json["rows"] == 3
    lines(made.stderr)


def test_the_example_with_spans_runs() -> None:
    pytest.importorskip("opentelemetry.sdk.trace")
    [example] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    example += "from csr_qdrant.telemetry import span\nwith span('search', queries=1): pass\n"
    ran = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True)
    assert '"name": "csr_qdrant.search"' in ran.stdout, ran.stderr
