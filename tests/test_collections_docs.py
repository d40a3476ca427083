"""The examples of docs/collections.md run."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge

PAGE = (Path(__file__).parents[1] / "docs" / "collections.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


@pytest.fixture
def docs(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32)
    folder = tmp_path / "docs"
    folder.mkdir()
    vectors = {"": qdrant_edge.EdgeVectorParams(size=12, distance=qdrant_edge.Distance.Cosine)}
    shard = qdrant_edge.EdgeShard.create(str(folder), qdrant_edge.EdgeConfig(vectors=vectors))
    points = [
        qdrant_edge.Point(i, {"": row.tolist()}, {"topic": f"t{i % 4}"})
        for i, row in enumerate(rows)
    ]
    shard.update(qdrant_edge.UpdateOperation.upsert_points(points))
    shard.flush()
    shard.close()


def test_the_commands_run(docs: None, csr: Callable[..., Any]) -> None:
    commands = [line.split("#")[0].split()[1:] for line in blocks("sh")[0].strip().splitlines()]
    told = [csr(*words, "--steps", 5, "--h", 32, "--k", 4, "--json").json for words in commands]
    assert [each["data"]["rows"] for each in told] == [300, 200]
    assert told[1]["data"]["labels"] == 200 and told[1]["data"]["unlabelled"] == 0


def test_the_python_example_runs(docs: None, csr: Callable[..., Any]) -> None:
    names: dict[str, Any] = {}
    example = blocks("python")[0].replace("minutes=5", "steps=5, h=32, k=(4,)")
    exec(compile(example, "collections.md", "exec"), names)
    assert names["found"].vectors.shape == (200, 12)
    assert (names["encoder"].d, names["encoder"].h) == (12, 32)
