"""The examples of docs/migrate.md run."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge

from csr_qdrant.encoder import Encoder

PAGE = (Path(__file__).parents[1] / "docs" / "migrate.md").read_text("utf-8")
D, N = 12, 200


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


@pytest.fixture
def rows(tmp_path: Path, csr: Callable[..., Any]) -> Any:
    """Give the vectors of a bare shard in `docs`, beside an encoder."""
    random = np.random.default_rng(0)
    made = random.normal(size=(N, D)).astype(np.float32)
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
    assert csr(*commands[0], "--json").json["keep"] == "rescore"
    assert not (tmp_path / "copy").exists()
    assert csr(*commands[1], "--json").json["copied"] == N
    assert len(csr(*commands[2], "--json").rows) == 3
    again = csr(*commands[3], "--json").json
    assert (again["copied"], again["mended"], again["complete"]) == (0, 0, True)


def test_the_python_example_runs(rows: Any) -> None:
    names: dict[str, Any] = {"query": rows[5]}
    exec(compile(block("python"), "migrate.md", "exec"), names)
    assert names["report"].complete and names["report"].target_points == N
    assert len(names["hits"]) == 5 and names["hits"][0].payload["row"] in range(N)
