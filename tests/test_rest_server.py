"""The server of the tests answers as Qdrant does: statuses, sentences, numbers, settings."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from csr_qdrant.stores.server import connect

sys.path.insert(0, str(Path(__file__).parent))
from rest_server import RestServer


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    """Give a client of a server with the collection `c`, two dimensions and the latents `csr`."""
    with RestServer() as server:
        server.limit_bytes = 10_000
        made = connect(server.url)
        made.create_collection(
            "c",
            models.VectorParams(size=2, distance=models.Distance.DOT),
            sparse_vectors_config={"csr": models.SparseVectorParams()},
            hnsw_config=models.HnswConfigDiff(m=7),
        )
        made.upsert("c", [models.PointStruct(id=1, vector=[0.1, 2.0], payload={"a": None})])
        yield made
        made.close()


def code(indices: list[int], values: list[float]) -> Any:
    sparse = models.SparseVector(indices=indices, values=values)
    return [models.PointVectors(id=1, vector={"csr": sparse})]


def alias(name: str, of: str) -> list[Any]:
    create = models.CreateAlias(alias_name=name, collection_name=of)
    return [models.CreateAliasOperation(create_alias=create)]


POINT = models.PointStruct(id=2, vector=[1.0, 2.0], payload={"text": "x" * 10_000})
REFUSALS: list[tuple[Callable[[QdrantClient], Any], int, str]] = [
    (lambda c: c.get_collection("d"), 404, "Not found: Collection `d` doesn"),
    (lambda c: c.create_collection("c", {}), 409, "Collection `c` already exists!"),
    (lambda c: c.update_collection_aliases(alias("c", "c")), 409, "`c` already exists!"),
    (
        lambda c: c.update_collection_aliases(alias("e", "d")),
        404,
        "Not found: Collection `d` doesn",
    ),
    (lambda c: c.update_vectors("c", code([1, 1], [1, 2])), 422, "must be unique|Validation"),
    (
        lambda c: c.update_vectors("c", [models.PointVectors(id=9, vector=[1.0, 2.0])]),
        404,
        "No point with id 9 found",
    ),
    (
        lambda c: c.upsert("c", [models.PointStruct(id=2, vector=[1.0])]),
        400,
        "dimension error",
    ),
    (lambda c: c.upsert("c", [POINT]), 400, "larger than allowed .limit: 10000 bytes"),
    (lambda c: c.query_points("c", [1.0, 2.0], limit=0), 422, "Must be 1 or larger"),
]


@pytest.mark.parametrize(("ask", "status", "sentence"), REFUSALS)
def test_refusals(
    client: QdrantClient, ask: Callable[[QdrantClient], Any], status: int, sentence: str
) -> None:
    with pytest.raises(UnexpectedResponse, match=sentence) as caught:
        ask(client)
    assert caught.value.status_code == status


def test_numbers_are_those_of_float32(client: QdrantClient) -> None:
    client.update_vectors("c", code([9, 4], [1 / 3, 0.2]))
    (point,) = client.retrieve("c", [1], with_vectors=True)
    vectors: Any = point.vector
    assert vectors[""] == [0.1, 2.0] and point.payload == {"a": None}
    assert dict(zip(vectors["csr"].indices, vectors["csr"].values, strict=True)) == {
        4: 0.2,
        9: 0.33333334,
    }
    (hit,) = client.query_points("c", [0.1, 0.0]).points
    assert hit.score == 0.01  # and not 0.010000000149


def test_settings_are_reported(client: QdrantClient) -> None:
    client.create_payload_index("c", "a", models.PayloadSchemaType.KEYWORD)
    client.update_collection(
        "c", hnsw_config=models.HnswConfigDiff(ef_construct=9), metadata={"b": 1}
    )
    client.update_collection("c", metadata={"b": None, "d.e": 2})
    info = client.get_collection("c")
    graph = info.config.hnsw_config
    assert (graph.m, graph.ef_construct, graph.full_scan_threshold) == (7, 9, 10_000)
    assert info.payload_schema["a"].data_type == models.PayloadSchemaType.KEYWORD
    assert info.config.metadata == {"d.e": 2}
    assert (info.points_count, info.indexed_vectors_count) == (1, 1)
    assert client.upsert("c", [POINT.model_copy(update={"payload": {}})], wait=False).status == (
        models.UpdateStatus.ACKNOWLEDGED
    )
