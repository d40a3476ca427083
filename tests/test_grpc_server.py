"""The server of the tests speaks gRPC as Qdrant does, and tells of the same collections as REST."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from csr_qdrant.stores.base import Schema
from csr_qdrant.stores.server import connect
from csr_qdrant.stores.whole_points_server import ServerPoints
from csr_qdrant.stores.whole_points_server_setup import creation, read_setup

sys.path.insert(0, str(Path(__file__).parent))
from grpc_server import GrpcServer

Ask = Callable[[QdrantClient], Any]
m: Any = models  # whose settings are also made of plain JSON


@pytest.fixture
def server() -> Iterator[GrpcServer]:
    with GrpcServer() as made:
        yield made


@pytest.fixture
def client(server: GrpcServer) -> Iterator[QdrantClient]:
    """Give a client of the collection `c`, with two dimensions and the latents `csr`."""
    made = connect(server.url, **server.connection)
    made.create_collection(
        "c",
        models.VectorParams(size=2, distance=models.Distance.DOT),
        sparse_vectors_config={"csr": models.SparseVectorParams()},
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


@pytest.mark.parametrize(
    ("ask", "status", "sentence"),
    [
        (lambda c: c.get_collection("d"), "NOT_FOUND", "Not found: Collection `d` doesn't exist!"),
        (lambda c: c.create_collection("c", {}), "ALREADY_EXISTS", "`c` already exists!"),
        (
            lambda c: c.update_collection_aliases(alias("e", "d")),
            "NOT_FOUND",
            "Not found: Collection `d` doesn't exist!",
        ),
        (lambda c: c.update_vectors("c", code([1, 1], [1, 2])), "INVALID_ARGUMENT", "unique"),
        (
            lambda c: c.update_vectors("c", [models.PointVectors(id=9, vector=[1.0, 2.0])]),
            "NOT_FOUND",
            "Not found: No point with id 9 found",
        ),
        (
            lambda c: c.upsert("c", [models.PointStruct(id=2, vector=[1.0])]),
            "INVALID_ARGUMENT",
            "dimension error",
        ),
        (
            lambda c: c.set_payload("c", {"a": [{"b": float("inf")}]}, [1]),
            "INVALID_ARGUMENT",
            "cannot convert to json number",
        ),
    ],
)
def test_refusals(client: QdrantClient, ask: Ask, status: str, sentence: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        ask(client)
    error: Any = caught.value
    assert error.code().name == status and sentence in error.details()


def test_both_languages_reach_the_same_collections(
    server: GrpcServer, client: QdrantClient
) -> None:
    rest = connect(server.url)
    client.update_collection_aliases(alias("live", "c"))
    client.set_payload("c", {"b": {"c": [1, 1.5, True, None, {}]}}, [1])
    client.create_payload_index("c", "b", models.PayloadSchemaType.KEYWORD)
    assert rest.get_collection("live") == client.get_collection("c")
    asked = [
        client.query_points("c", [1.0, 0.0], with_payload=True, with_vectors=True),
        rest.query_points("c", [1.0, 0.0], with_payload=True, with_vectors=True),
    ]
    ours, theirs = (answer.points[0] for answer in asked)
    vectors: Any = ours.vector
    assert ours.payload == theirs.payload == {"a": None, "b": {"c": [1, 1.5, True, None, {}]}}
    assert ours.score == vectors[0] == float(np.float32(0.1)) and theirs.score == 0.1
    assert client.facet("c", "b").hits == []
    rest.set_payload("c", {"n": [2**63, 2**63 - 1]}, [1])
    (point,) = client.retrieve("c", [1], with_payload=["n"])
    assert point.payload == {"n": [2.0**63, 2**63 - 1]}  # as docs/operate.md says
    assert isinstance(point.payload["n"][0], float)
    client.overwrite_payload("c", {"d": "e"}, [1])
    client.create_payload_index("c", "d", models.PayloadSchemaType.KEYWORD)
    assert [(hit.value, hit.count) for hit in client.facet("c", "d").hits] == [("e", 1)]
    client.delete_payload_index("c", "b")
    assert list(rest.get_collection("c").payload_schema) == ["d"]
    assert [each.alias_name for each in client.get_collection_aliases("c").aliases] == ["live"]


PARAMETERS = m.VectorParams(size=4, distance=m.Distance.COSINE)
VECTORS: dict[str, dict[str, Any]] = {
    "half": {
        "datatype": "float16",
        "on_disk": True,
        "hnsw_config": {"m": 0, "payload_m": 8, "inline_storage": True},
    },
    "many": {"distance": "Manhattan", "multivector_config": {"comparator": "max_sim"}},
    "bytes": {
        "distance": "Euclid",
        "datatype": "uint8",
        "quantization_config": {"scalar": {"type": "int8", "quantile": 0.75}},
    },
    "bits": {
        "distance": "Dot",
        "memory": "cold",
        "quantization_config": {
            "binary": {"encoding": "two_bits", "query_encoding": "scalar8bits"}
        },
    },
    "products": {"quantization_config": {"product": {"compression": "x16", "always_ram": True}}},
}
SETTINGS: dict[str, Any] = {
    "vectors_config": {
        name: m.VectorParams(**{"size": 4, "distance": "Cosine", **each})
        for name, each in VECTORS.items()
    },
    "sparse_vectors_config": {
        "s": m.SparseVectorParams(),
        "t": m.SparseVectorParams(
            index=m.SparseIndexParams(datatype=m.Datatype.UINT8, on_disk=True),
            modifier=m.Modifier.IDF,
        ),
    },
    "shard_number": 2,
    "on_disk_payload": False,
    "hnsw_config": m.HnswConfigDiff(m=5, ef_construct=77, full_scan_threshold=30, on_disk=True),
    "optimizers_config": m.OptimizersConfigDiff(
        deleted_threshold=0.3, indexing_threshold=0, max_optimization_threads=2
    ),
    "wal_config": m.WalConfigDiff(wal_capacity_mb=1, wal_segments_ahead=2),
    "quantization_config": m.ScalarQuantization(
        scalar=m.ScalarQuantizationConfig(type=m.ScalarType.INT8, always_ram=False)
    ),
    "strict_mode_config": m.StrictModeConfig(
        enabled=True,
        max_query_limit=500,
        search_allow_exact=False,
        sparse_config={"s": m.StrictModeSparse(max_length=30)},
        multivector_config={"many": m.StrictModeMultivector(max_vectors=3)},
    ),
    "metadata": {"owner": "us", "list": [1, 1.5, None, {"deep": {}}], "null": None},
}
INDEXES: dict[str, Any] = {
    "a": m.KeywordIndexParams(type="keyword", is_tenant=True, on_disk=True),
    "b": m.PayloadSchemaType.KEYWORD,
    "c": m.IntegerIndexParams(type="integer", lookup=True, range=False, is_principal=True),
    "d": m.TextIndexParams(
        type="text",
        tokenizer=m.TokenizerType.WORD,
        min_token_len=2,
        lowercase=False,
        phrase_matching=True,
        stopwords=m.StopwordsSet(languages=[m.Language.GERMAN], custom=["x"]),
        stemmer=m.SnowballParams(type="snowball", language=m.SnowballLanguage.GERMAN),
    ),
    "e": m.DatetimeIndexParams(type="datetime", is_principal=False),
    "f": m.UuidIndexParams(type="uuid", is_tenant=False),
}


@pytest.mark.parametrize("vectors", [VECTORS, PARAMETERS, {}], ids=["named", "unnamed", "none"])
def test_settings_come_and_go_as_over_rest(server: GrpcServer, vectors: Any) -> None:
    ours, rest = connect(server.url, **server.connection), connect(server.url)
    settings = SETTINGS if vectors is VECTORS else {**SETTINGS, "vectors_config": vectors}
    for name, each in (("ours", ours), ("theirs", rest)):
        each.create_collection(name, **settings)
        for field, schema in INDEXES.items():
            each.create_payload_index(name, field, schema)
    theirs = rest.get_collection("theirs")
    assert rest.get_collection("ours") == ours.get_collection("theirs") == theirs
    setup = read_setup(ours.get_collection("theirs"), "there")
    assert setup == read_setup(theirs, "there")
    ours.create_collection("copy", **creation(setup, Schema(h=8), {}))
    points = ServerPoints.open(ours, "copy")
    points.ensure_indexes(setup.indexes)
    points.forget()
    # An index of the plain kind is asked for with its kind as the only parameter.
    plain = m.KeywordIndexParams(type=m.KeywordIndexType.KEYWORD)
    theirs.payload_schema["b"].params = plain
    assert rest.get_collection("copy") == theirs
