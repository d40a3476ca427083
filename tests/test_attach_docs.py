"""The examples of docs/attach.md run."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge
from qdrant_client import QdrantClient, models

from csr_qdrant.encoder import Encoder

PAGE = (Path(__file__).parents[1] / "docs" / "attach.md").read_text("utf-8")
D, N, ZERO = 12, 300, 7


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def ran(number: int, names: dict[str, Any]) -> dict[str, Any]:
    """Run one of the examples in Python, and return its names."""
    exec(compile(blocks("python")[number], "attach.md", "exec"), names)
    return names


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
    commands = [line.split("#")[0].split()[1:] for line in blocks("sh")[0].strip().splitlines()]
    plan = csr(*commands[0], "--json").json
    assert plan["points_to_rewrite"] == N and not (tmp_path / "docs" / "collection.json").exists()
    attached = csr(*commands[1], "--json").json
    assert (attached["written"], attached["bad"], attached["complete"]) == (N - 1, 1, True)
    assert f'"id": {ZERO}' in (tmp_path / "bad.jsonl").read_text("utf-8")
    csr(*commands[2], "--json")
    assert csr(*commands[3], "--json").json["codes"] == N - 1


def test_the_python_example_runs(rows: Any, csr: Callable[..., Any], tmp_path: Path) -> None:
    names = ran(0, {"query": rows[5]})
    assert names["report"].written == N - 1 and names["report"].complete
    assert len(names["hits"]) == 5 and names["hits"][0].payload["row"] in range(N)


def test_the_application_runs(rows: Any, csr: Callable[..., Any]) -> None:
    client = QdrantClient(":memory:")
    size = models.VectorParams(size=D, distance=models.Distance.COSINE)
    client.create_collection("docs", {"text": size})
    create = models.CreateAlias(collection_name="docs", alias_name="live")
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])
    points = [models.PointStruct(id=i, vector={"text": row}) for i, row in enumerate(rows.tolist())]
    client.upsert("docs", [point for point in points[:200] if point.id != ZERO])
    names = ran(1, {"client": client, "points": points[200:], "query": rows[250]})
    assert names["hits"][0].id == 250 and len(names["hits"]) == 5
    report = names["report"]
    assert (report.written, report.rewritten, report.coded) == (0, 0, N - 1)


def test_the_open_shard_stays_open(rows: Any, csr: Callable[..., Any]) -> None:
    shard = qdrant_edge.EdgeShard.load("docs")
    names = ran(2, {"shard": shard})
    assert names["report"].complete
    assert shard.count(qdrant_edge.CountRequest(exact=True)) == N
    shard.close()
