"""The examples of docs/attach.md run."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qdrant_edge
from qdrant_client import QdrantClient, models

sys.path.insert(0, str(Path(__file__).parent))
from docs_shard import D, commands, ran, rows_fixture

PAGE, N, ZERO = "attach.md", 300, 7
rows = rows_fixture(N, zero=ZERO)


def test_the_commands_run(rows: Any, csr: Callable[..., Any], tmp_path: Path) -> None:
    given = commands(PAGE)
    plan = csr(*given[0], "--json").json
    assert plan["points_to_rewrite"] == N and not (tmp_path / "docs" / "collection.json").exists()
    attached = csr(*given[1], "--json").json
    assert (attached["written"], attached["bad"], attached["complete"]) == (N - 1, 1, True)
    assert f'"id": {ZERO}' in (tmp_path / "bad.jsonl").read_text("utf-8")
    csr(*given[2], "--json")
    assert csr(*given[3], "--json").json["codes"] == N - 1


def test_the_python_example_runs(rows: Any, csr: Callable[..., Any], tmp_path: Path) -> None:
    names = ran(PAGE, 0, {"query": rows[5]})
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
    names = ran(PAGE, 1, {"client": client, "points": points[200:], "query": rows[250]})
    assert names["hits"][0].id == 250 and len(names["hits"]) == 5
    report = names["report"]
    assert (report.written, report.rewritten, report.coded) == (0, 0, N - 1)


def test_the_open_shard_stays_open(rows: Any, csr: Callable[..., Any]) -> None:
    shard = qdrant_edge.EdgeShard.load("docs")
    names = ran(PAGE, 2, {"shard": shard})
    assert names["report"].complete
    assert shard.count(qdrant_edge.CountRequest(exact=True)) == N
    shard.close()
