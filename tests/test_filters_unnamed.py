"""`has_vector` of the unnamed vector, which Qdrant calls by the empty text."""

from contextlib import closing
from pathlib import Path
from typing import Any

import qdrant_edge as engine
from qdrant_client import QdrantClient, models

from csr_qdrant.stores.filters import client_filter, edge_filter

HAVING = {"must": [{"has_vector": ""}]}


def test_local_mode_finds_points_with_the_unnamed_vector() -> None:
    with closing(QdrantClient(":memory:")) as client:
        dense = models.VectorParams(size=2, distance=models.Distance.DOT)
        client.create_collection(
            "c", dense, sparse_vectors_config={"csr": models.SparseVectorParams()}
        )
        code = models.SparseVector(indices=[1], values=[1.0])
        client.upsert("c", [models.PointStruct(id=0, vector=[1.0, 2.0])])
        client.upsert("c", [models.PointStruct(id=1, vector={"csr": code})])
        assert client.count("c", client_filter(HAVING)).count == 1


def test_edge_finds_points_with_the_unnamed_vector(tmp_path: Path) -> None:
    dense = {"": engine.EdgeVectorParams(2, engine.Distance.Dot)}
    sparse = {"csr": engine.EdgeSparseVectorParams()}
    shard = engine.EdgeShard.create(str(tmp_path), engine.EdgeConfig(dense, sparse))
    code: dict[str, Any] = {"csr": engine.SparseVector(indices=[1], values=[1.0])}
    points = [engine.Point(0, [1.0, 2.0], {}), engine.Point(1, code, {})]
    shard.update(engine.UpdateOperation.upsert_points(points))
    assert shard.count(engine.CountRequest(exact=True, filter=edge_filter(HAVING))) == 1
    shard.close()
