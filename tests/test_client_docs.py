"""The examples of docs/client.md and docs/tune.md run."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant import Collection
from csr_qdrant.encoder import Encoder

DOCS = Path(__file__).parents[1] / "docs"


def blocks(name: str, language: str) -> list[str]:
    text = (DOCS / name).read_text("utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def encoder() -> Encoder:
    rng = np.random.default_rng(1)
    return Encoder(
        weight=rng.standard_normal((64, 24)).astype(np.float32),
        latent_bias=np.zeros(64, np.float32),
        pre_bias=np.zeros(24, np.float32),
        k=8,
    )


VECTORS = np.random.default_rng(0).standard_normal((300, 24)).astype(np.float32)


def test_the_clients_examples_run(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder.save("encoder")
    names: dict[str, Any] = {"vectors": VECTORS}
    for block in blocks("client.md", "python"):
        exec(compile(block, "client.md", "exec"), names)
    assert names["answer"].points[0].id == names["first"] == 3
    assert [answer.points[0].id for answer in names["several"]] == [0, 1, 2, 3]
    assert names["by_topic"].groups[0].id == 3
    for name in ("hybrid", "same_kind"):
        assert names[name].points[0].id == 3


def test_the_commands_run(csr: Callable[..., Any], encoder: Encoder) -> None:
    with Collection.create("docs", encoder, keep_dense=True) as collection:
        collection.add(range(300), vectors=VECTORS)
    (commands,) = blocks("tune.md", "sh")
    for command in commands.strip().splitlines():
        told = csr(*command.split()[1:], "--json").json
        assert told["queries"] == 100 and told["reached"] is True
