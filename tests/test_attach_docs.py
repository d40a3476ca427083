"""The examples of docs/attach.md run."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge

from csr_qdrant.encoder import Encoder

PAGE = (Path(__file__).parents[1] / "docs" / "attach.md").read_text("utf-8")
D, N, ZERO = 12, 300, 7


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


@pytest.fixture
def rows(tmp_path: Path, csr: Callable[..., Any]) -> Any:
    """Give the vectors of a bare shard in `docs`, one of them zero, beside an encoder."""
    random = np.random.default_rng(0)
    made = random.normal(size=(N, D)).astype(np.float32)
    made[ZERO] = 0
    folder = tmp_path / "docs"
    folder.mkdir()
    vectors = {"": qdrant_edge.EdgeVectorParams(size=D, distance=qdrant_edge.Distance.Dot)}
    shard = qdrant_edge.EdgeShard.create(str(folder), qdrant_edge.EdgeConfig(vectors=vectors))
    points = [qdrant_edge.Point(i, {"": row}, {"row": i}) for i, row in enumerate(made.tolist())]
    shard.update(qdrant_edge.UpdateOperation.upsert_points(points))
    shard.flush()
    shard.close()
    Encoder(
        weight=random.normal(size=(64, D)).astype(np.float32),
        latent_bias=np.zeros(64, np.float32),
        pre_bias=np.zeros(D, np.float32),
        k=8,
    ).save(tmp_path / "encoder")
    np.save(tmp_path / "queries.npy", made[:3])
    return made


def test_the_commands_run(rows: Any, csr: Callable[..., Any], tmp_path: Path) -> None:
    commands = [line.split("#")[0].split()[1:] for line in block("sh").strip().splitlines()]
    plan = csr(*commands[0], "--json").json
    assert plan["points_to_rewrite"] == N and not (tmp_path / "docs" / "collection.json").exists()
    attached = csr(*commands[1], "--json").json
    assert (attached["written"], attached["bad"], attached["complete"]) == (N - 1, 1, True)
    assert f'"id": {ZERO}' in (tmp_path / "bad.jsonl").read_text("utf-8")
    csr(*commands[2], "--json")
    assert csr(*commands[3], "--json").json["codes"] == N - 1


def test_the_python_example_runs(rows: Any, csr: Callable[..., Any], tmp_path: Path) -> None:
    names: dict[str, Any] = {"query": rows[5]}
    exec(compile(block("python"), "attach.md", "exec"), names)
    assert names["report"].written == N - 1 and names["report"].complete
    assert len(names["hits"]) == 5 and names["hits"][0].payload["row"] in range(N)
