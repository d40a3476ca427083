"""docs/cli.md: its help texts are current, and it lists exactly the JSON keys that there are."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.cli.main import COMMANDS
from csr_qdrant.cli.reference import with_help_texts
from csr_qdrant.encoder import Encoder

Csr = Callable[..., Any]

DOCUMENT = (Path(__file__).parents[1] / "docs" / "cli.md").read_text("utf-8")
X = np.random.default_rng(1).normal(size=(100, 8)).astype(np.float32)


def documented(command: str, heading: str) -> list[str]:
    """Return the keys of the list below `heading` in the section of `command`."""
    section = DOCUMENT.split(f"\n## `csr {command}`\n")[1].split("\n## ")[0]
    lines = section.split(f"\n{heading}\n\n")[1].split("\n\n")[0]
    listed = (line.split(":")[0] for line in lines.splitlines() if line.startswith("- "))
    return [key for line in listed for key in re.findall(r"`(\w+)`", line)]


def test_the_help_texts_are_current() -> None:
    assert with_help_texts(DOCUMENT) == DOCUMENT, (
        "run: python -m csr_qdrant.cli.reference docs/cli.md"
    )


def test_every_command_is_documented() -> None:
    assert re.findall(r"<!-- help: csr (\w+) -->\n```text\nUsage: csr", DOCUMENT) == list(COMMANDS)


@pytest.fixture
def files(csr: Csr, tiny_encoder: Encoder) -> None:
    """Make vectors, codes, an encoder and a collection."""
    np.save("x.npy", X)
    tiny_encoder.save("enc")
    tiny_encoder.encode(X).save("c.safetensors")
    assert csr("index", "x.npy", "col", "--encoder", "enc").exit_code == 0


TRAIN = ("x.npy", "-o", "new", "--steps", 2, "--h", 32, "--k", 4, "--held-out", 10)


@pytest.mark.parametrize(
    ("command", "heading", "arguments"),
    [
        ("train", "JSON keys:", TRAIN),
        ("train", "With `--dry-run`:", (*TRAIN, "--dry-run")),
        ("embed", "JSON keys:", ("x.npy", "-o", "y.npy")),
        ("embed", "With `--dry-run`:", ("x.npy", "-o", "y.npy", "--dry-run")),
        ("index", "JSON keys:", ("x.npy", "col")),
        ("index", "With `--dry-run`:", ("x.npy", "col", "--dry-run")),
        ("info", "JSON keys of an encoder:", ("enc",)),
        ("info", "Of a collection:", ("col",)),
        ("info", "Of a file of codes:", ("c.safetensors",)),
    ],
)
def test_the_json_keys_are_those_that_are_documented(
    csr: Csr, files: None, command: str, heading: str, arguments: tuple[Any, ...]
) -> None:
    told = csr(command, *arguments, "--json").json
    assert sorted(told) == sorted(documented(command, heading))


def test_the_json_keys_of_a_query_are_documented(csr: Csr, files: None) -> None:
    row = csr("query", "col", "--vectors", "x.npy", "--json").rows[0]
    assert list(row) == documented("query", "JSON keys of each line:")
    for key in row["hits"][0]:
        assert f"`{key}`" in DOCUMENT


def test_inner_keys_of_a_training_run_are_documented(csr: Csr, files: None) -> None:
    told = csr("train", *TRAIN, "--json").json
    validation = told["validations"][0]
    for key in (*validation, *validation["at"][0], *told["data"]):
        assert f"`{key}`" in DOCUMENT


def test_unknown_marks_are_refused() -> None:
    with pytest.raises(KeyError, match="fly"):
        with_help_texts("<!-- help: csr fly -->\n<!-- end of help -->")
