"""docs/integrations.md: its examples run; that of fastembed by `make test-fastembed`."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.encoder import Encoder

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
os.environ.setdefault("LANGSMITH_TRACING", "false")

DOCUMENT = (Path(__file__).parents[1] / "docs" / "integrations.md").read_text("utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the encoder that the examples load, in the current folder."""
    rng = np.random.default_rng(0)
    Encoder(
        weight=rng.normal(size=(1024, 256)).astype(np.float32),
        latent_bias=np.zeros(1024, np.float32),
        pre_bias=np.zeros(256, np.float32),
        k=32,
        info={"embedder": "wordllama"},
    ).save(tmp_path / "encoder")
    monkeypatch.chdir(tmp_path)


def examples(title: str) -> list[str]:
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", DOCUMENT, re.DOTALL | re.MULTILINE)
    assert section, title
    return re.findall(r"```python\n(.*?)```", section[1], re.DOTALL)


def run(example: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(example, "integrations.md", "exec"), names)
    return names


@pytest.mark.parametrize("title", ["LangChain", "LlamaIndex", "Haystack"])
@pytest.mark.usefixtures("folder")
def test_the_ships_are_found(title: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(examples(title)[0])
    found = capsys.readouterr().out
    assert "the sea is deep" in found and "ocean" in found and "bread" not in found


@pytest.mark.usefixtures("folder")
def test_codes_behind_haystacks_own_embedders() -> None:
    names = run(examples("Haystack")[1])
    code, query = names["coded"][0].sparse_embedding, names["query"]
    assert len(code.indices) == 32 and len(names["coded"][0].embedding) == 256
    assert query["encoder"]["sparse_embedding"] == code
    assert names["again"].to_dict() == names["search"].to_dict()


def test_every_example_is_run_somewhere() -> None:
    told = {title: len(examples(title)) for title in ("LangChain", "LlamaIndex", "Haystack")}
    assert told == {"LangChain": 1, "LlamaIndex": 1, "Haystack": 2}
    assert len(examples("fastembed")) == 1  # run by tests/fastembed_install.py
    assert DOCUMENT.count("```python") == 5
