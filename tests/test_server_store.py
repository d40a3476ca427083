"""The server store over real HTTP: what it sends, and what it leaves alone.

What the engine makes of the requests is tested in test_stores.py.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.stores.base import PointBatch, Schema
from csr_qdrant.stores.server import RetryPolicy, ServerStore, connect
from csr_qdrant.stores.server_points import REQUEST_BYTES, REQUEST_POINTS

sys.path.insert(0, str(Path(__file__).parent))
from fake_server import (
    LIMIT,
    QUERY,
    QUERY_CALL,
    SECRET,
    UPSERT,
    FakeServer,
    H,
    failure,
    points,
    server_fixture,
    store_fixture,
)

server = server_fixture()
store = store_fixture()


def test_a_collection_is_made_for_codes_and_cheap_rescoring(server: FakeServer) -> None:
    server.exists = False
    schema = Schema(h=H, datatype="u8", dense_dim=3, dense_datatype="f16")
    ServerStore.create(
        connect(server.url), "c", schema, {"k": 4}, shard_number=3, replication_factor=2
    )
    (request,) = server.requests("PUT", "/collections/c")
    assert request.body == {
        "vectors": {
            "dense": {
                "size": 3,
                "distance": "Cosine",
                "datatype": "float16",
                "on_disk": True,
                "hnsw_config": {"m": 0},
            }
        },
        "sparse_vectors": {"csr": {"index": {"datatype": "uint8"}}},
        "shard_number": 3,
        "replication_factor": 2,
        "metadata": {
            "csr_qdrant": {
                "format": 1,
                "schema": {
                    "h": H,
                    "datatype": "u8",
                    "dense_dim": 3,
                    "dense_datatype": "f16",
                    "code_name": "csr",
                    "dense_name": "dense",
                },
            },
            "csr_qdrant.k": 4,
        },
    }


def test_opening_reads_schema_and_metadata(server: FakeServer, store: ServerStore) -> None:
    assert store.schema == Schema(h=H)
    assert store.metadata() == {"k": 2}
    assert store.location == f"collection 'c' at {server.url}"


def test_metadata_are_changed_by_key_and_removed_by_null(
    server: FakeServer, store: ServerStore
) -> None:
    store.write_metadata("k", {"a": None})
    store.write_metadata("k", None)
    bodies = [request.body for request in server.requests("PATCH", "/collections/c")]
    assert bodies == [
        {"metadata": {"csr_qdrant.k": {"a": None}}},
        {"metadata": {"csr_qdrant.k": None}},
    ]


def test_points_are_sent_with_their_codes_and_awaited(
    server: FakeServer, store: ServerStore
) -> None:
    rows = np.zeros((2, H), np.float32)
    rows[0, [1, 3]] = 0.5, -2
    codes = SparseCodes.from_dense(rows)
    store.upsert(PointBatch([2**64 - 1, 7], codes, None, [{"a": None, "t": "ü"}, {}]))
    (request,) = server.requests(*UPSERT)
    assert request.body["points"] == [
        {
            "id": 2**64 - 1,
            "vector": {"csr": {"indices": [1, 3], "values": [0.5, -2.0]}},
            "payload": {"a": None, "t": "ü"},
        },
        {"id": 7, "vector": {}, "payload": {}},
    ]
    assert server.seen[-1] is request


def test_requests_stay_below_the_limit_of_points(server: FakeServer, store: ServerStore) -> None:
    store.upsert(points(2 * REQUEST_POINTS + 1))
    requests = server.requests(*UPSERT)
    ids = [[point["id"] for point in request.body["points"]] for request in requests]
    assert [len(some) for some in ids] == [REQUEST_POINTS, REQUEST_POINTS, 1]
    assert sum(ids, []) == list(range(2 * REQUEST_POINTS + 1))  # noqa: RUF017


@pytest.mark.parametrize("text", ["x" * 500_000, "ü" * 250_000, '"' * 250_000])
def test_requests_stay_below_the_limit_of_bytes(
    server: FakeServer, store: ServerStore, text: str
) -> None:
    store.upsert(points(40, {"text": text}))
    requests = server.requests(*UPSERT)
    assert sum(len(request.body["points"]) for request in requests) == 40
    assert 2 <= len(requests) <= 12
    assert max(request.size for request in requests) < REQUEST_BYTES + 1000 < LIMIT


def test_dense_vectors_and_long_codes_count_as_bytes(server: FakeServer) -> None:
    h, d, n = 30_000, 4096, 256
    schema = {"h": h, "dense_dim": d}
    server.metadata = {"csr_qdrant": {"format": 1, "schema": schema}}
    store = ServerStore.open(connect(server.url), "c")
    dense = np.random.default_rng(0).standard_normal((n, d)).astype(np.float32) * 1e-20
    latents = np.tile(np.arange(h - 512, h), (n, 1))
    codes = SparseCodes.from_topk(latents, np.full((n, 512), 1e-20 / 3, np.float32), h)
    store.upsert(PointBatch(range(n), codes, dense, [{}] * n))
    sizes = [request.size for request in server.requests(*UPSERT)]
    assert len(sizes) > 1 and max(sizes) < REQUEST_BYTES


def test_a_point_larger_than_a_request_travels_alone(
    server: FakeServer, store: ServerStore
) -> None:
    payloads: list[dict[str, Any]] = [{}, {"text": "x" * (REQUEST_BYTES + 1)}, {}]
    store.upsert(replace(points(3), payloads=payloads))
    sent = [[p["id"] for p in request.body["points"]] for request in server.requests(*UPSERT)]
    assert sent == [[0], [1], [2]]


def test_the_key_is_sent_and_never_shown(server: FakeServer) -> None:
    with pytest.warns(UserWarning, match="insecure"):
        client = connect(server.url, api_key=SECRET)
    store = ServerStore.open(client, "c")
    assert {seen.headers.get("api-key") for seen in server.seen} == {SECRET}
    server.plan(*QUERY_CALL, failure(400, f"bad request with {SECRET} inside"))
    with pytest.raises(CsrError, match=r"bad request with \*\*\* inside") as caught:
        store.search(QUERY)
    assert SECRET not in repr(caught.value) and SECRET not in store.location


# --- beside collections of others ---------------------------------------------------------------


def test_what_stands_beside_our_vectors_and_metadata_is_left_alone(tmp_path: Path) -> None:
    client = QdrantClient(":memory:")
    ServerStore.create(client, "c", Schema(h=H), {"k": 1})
    client.update_collection("c", metadata={"team": "search"})
    store = ServerStore.open(client, "c")
    store.write_metadata("k", None)
    assert client.get_collection("c").config.metadata == {
        "csr_qdrant": {
            "format": 1,
            "schema": {
                "h": H,
                "datatype": "f32",
                "dense_dim": None,
                "dense_datatype": "f32",
                "code_name": "csr",
                "dense_name": "dense",
            },
        },
        "team": "search",
    }
    client.create_collection("plain", models.VectorParams(size=2, distance=models.Distance.DOT))
    with pytest.raises(CsrError, match="was not made by csr-qdrant"):
        ServerStore.open(client, "plain")


POLICIES: list[tuple[Callable[[], RetryPolicy], str]] = [
    (lambda: RetryPolicy(attempts=0), "attempts must be at least 1, got 0"),
    (lambda: RetryPolicy(first_s=-1), "pauses must rise from 0"),
    (lambda: RetryPolicy(first_s=9, longest_s=1), "pauses must rise from 0"),
]


@pytest.mark.parametrize(("make", "message"), POLICIES)
def test_policies_that_cannot_work_are_refused(
    make: Callable[[], RetryPolicy], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
