"""Collections read and written whole: every kind of vector, payloads, set-up, between engines."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from csr_qdrant.errors import CsrError
from csr_qdrant.stores.base import Schema
from csr_qdrant.stores.whole_points import NewPlace, WholePoints
from csr_qdrant.stores.whole_points_edge import EdgePlace
from csr_qdrant.stores.whole_points_server import ServerPlace

sys.path.insert(0, str(Path(__file__).parent))
from engines import open_client

N, SCHEMA = 60, Schema(h=32, attached=True, dense_name="text", dense_dim=8)


@pytest.fixture(params=["memory", "rest", "grpc"])
def client(request: pytest.FixtureRequest) -> QdrantClient:
    made = open_client(request.param, request)
    distance = models.Distance.DOT
    together = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    made.create_collection(
        "docs",
        vectors_config={
            "text": models.VectorParams(size=8, distance=distance),
            "tokens": models.VectorParams(size=3, distance=distance, multivector_config=together),
        },
        sparse_vectors_config={"words": models.SparseVectorParams()},
    )
    random = np.random.default_rng(0)
    points = []
    for i in range(N):
        vectors: dict[str, Any] = {"text": random.normal(size=8).astype(np.float32).tolist()}
        if i % 2:
            vectors["tokens"] = random.normal(size=(1 + i % 4, 3)).astype(np.float32).tolist()
        if i % 3:
            vectors["words"] = models.SparseVector(indices=[i, i + 7], values=[0.5, 2.0])
        points.append(models.PointStruct(id=i, vector=vectors, payload={"row": i, "tags": ["a"]}))
    made.upsert("docs", points)
    return made


def copied(source: WholePoints, place: NewPlace) -> WholePoints:
    """Copy page by page, in pages that do not divide the points."""
    target = place.create(source.setup(), SCHEMA, {"note": "kept"}, None)
    offset: Any = None
    while True:
        points, offset = source.points(13, offset)
        assert target.upsert(points) == []
        if offset is None:
            target.flush()
            return target


def contents(points: WholePoints) -> dict[Any, Any]:
    found, following = points.points(1000, None)
    assert following is None
    return {
        point.id: (point.payload, {name: np.array(v) for name, v in point.vectors.items()})
        for point in found
    }


def test_a_copy_to_the_embedded_engine_and_back_is_the_collection(
    client: QdrantClient, tmp_path: Path
) -> None:
    source = ServerPlace(client, "docs").open()
    edge = copied(source, EdgePlace(tmp_path / "docs"))
    back = copied(edge, ServerPlace(client, "copy"))
    before = contents(source)
    for other in (edge, back):
        assert (other.size(), other.size("tokens"), other.size("words")) == (N, N // 2, 40)
        assert other.schema() == SCHEMA
        assert other.metadata()["note"] == "kept"
        after = contents(other)
        assert after.keys() == before.keys()
        for point, (payload, vectors) in before.items():
            assert after[point][0] == payload
            assert after[point][1].keys() == vectors.keys()
            for name, values in vectors.items():
                found = np.asarray(after[point][1][name], np.float32)
                np.testing.assert_array_equal(found, np.asarray(values, np.float32))
    for each in (source, edge, back):
        each.close()


def test_points_are_found_by_id_and_deleted(client: QdrantClient, tmp_path: Path) -> None:
    edge = copied(ServerPlace(client, "docs").open(), EdgePlace(tmp_path / "docs"))
    assert edge.existing([3, 4, 1000]) == {3, 4}
    edge.delete([3, 1000])
    assert edge.existing([3, 4]) == {4}
    assert [point.id for point in edge.fetch([4, 3])] == [4]
    assert edge.ids(2, 3) == ([4, 5], 6)
    edge.close()


def test_an_alias_moves_in_one_step(client: QdrantClient) -> None:
    old = ServerPlace(client, "docs")
    copied(old.open(), ServerPlace(client, "new")).close()
    new = ServerPlace(client, "new")
    assert new.alias("live") is None
    old.swap("live")
    assert new.alias("live") == old.location
    new.swap("live")
    assert new.alias("live") == new.location and old.aliases() == []
    assert client.count("live").count == N


def test_a_point_that_the_embedded_engine_cannot_hold_is_named(
    client: QdrantClient, tmp_path: Path
) -> None:
    edge = copied(ServerPlace(client, "docs").open(), EdgePlace(tmp_path / "docs"))
    some = edge.fetch([1, 2])
    refused = edge.upsert([some[0]._replace(payload={"x": float("nan")}), some[1]])
    assert [each.id for each in refused] == [some[0].id] and "NaN" in refused[0].reason
    assert edge.fetch([some[0].id])[0].payload == some[0].payload
    edge.close()


def test_settings_that_a_copy_cannot_have_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    client = QdrantClient(":memory:")
    size = models.VectorParams(size=8, distance=models.Distance.DOT)
    client.create_collection("docs", vectors_config=size)
    info = client.get_collection("docs")
    info.config.params.read_fan_out_factor = 2
    info.config.params.payload = models.PayloadStorageParams(memory=models.Memory.COLD)
    info.config.params.vectors = {"": size.model_copy(update={"datatype": models.Datatype.TURBO4})}
    monkeypatch.setattr(client, "get_collection", lambda name: info)
    setup = ServerPlace(client, "docs").open().setup()
    assert setup.left_out == ("read fan out factor",)
    assert ServerPlace(client, "copy").left_out(setup) == []  # it is given the datatype
    assert "memory of payload" in EdgePlace(tmp_path / "copy").left_out(setup)


def test_a_server_whose_optimiser_failed_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    client = QdrantClient(":memory:")
    client.create_collection(
        "docs", vectors_config=models.VectorParams(size=8, distance=models.Distance.DOT)
    )
    info = client.get_collection("docs")
    info.status = models.CollectionStatus.RED
    info.optimizer_status = models.OptimizersStatusOneOf1(error="no space left")
    monkeypatch.setattr(client, "get_collection", lambda name: info)
    with pytest.raises(CsrError, match=r"is red, as the server says \(.*no space left"):
        ServerPlace(client, "docs").wait_ready(3600)
