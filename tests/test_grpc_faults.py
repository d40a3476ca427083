"""What goes wrong over gRPC: it ends as over REST, in sentences without the API key."""

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import numpy as np
import pytest
from qdrant_client import models

from csr_qdrant.cli.grpc_port import grpc_port
from csr_qdrant.codes import SparseCodes
from csr_qdrant.deployment.attach import AttachConfig, attach_on
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.stores.base import PointBatch, Schema
from csr_qdrant.stores.server import ServerStore, connect
from csr_qdrant.stores.server_errors import RetryPolicy
from csr_qdrant.stores.whole_points import WholePoint
from csr_qdrant.stores.whole_points_server import ServerPoints

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import ClientTarget, check_codes, encoder_of, vectors_of
from grpc_server import GrpcServer
from rest_faults import Shares
from rest_server import RestServer

SECRET = "sesame-open-9"
TRIES = 3
QUICK = RetryPolicy(attempts=TRIES, first_s=0.001, longest_s=0.01)


@pytest.fixture
def server() -> Iterator[GrpcServer]:
    with GrpcServer() as made:
        yield made


def batch(payload: dict[str, Any] | None = None) -> PointBatch:
    codes = SparseCodes.from_dense(np.eye(8, dtype=np.float32)[:1])
    return PointBatch([1], codes, None, [payload or {}])


def opened(server: GrpcServer, **options: Any) -> ServerStore:
    made = connect(server.url, **server.connection, **options)
    return ServerStore.create(made, "own", Schema(h=8), writes=QUICK, owns_client=True)


def test_what_grpc_cannot_carry_is_refused_alone(server: GrpcServer) -> None:
    client = connect(server.url, **server.connection)
    parameters = models.VectorParams(size=2, distance=models.Distance.DOT)
    client.create_collection("c", parameters)
    points = ServerPoints.open(client, "c", retries=QUICK)
    payloads: list[dict[str, Any]] = [
        {"n": 2**63 - 1},
        {"n": {"deep": [2**63]}},
        {"n": -(2**63)},
        {"n": 0.1},
        {},
    ]
    rows = [WholePoint(i, {"": [0.5, i]}, payload) for i, payload in enumerate(payloads)]
    (refused,) = points.upsert(rows)
    assert refused == (1, "gRPC cannot carry the integer 9223372036854775808: use REST instead")
    found, _ = ServerPoints.open(connect(server.url), "c").points(10, None)
    assert found == [rows[0], *rows[2:]]
    with opened(server) as store, pytest.raises(CsrError, match="cannot carry the integer 9223"):
        store.upsert(batch({"n": 2**63}))


CODES = grpc.StatusCode
SENTENCES = [
    (CODES.UNAUTHENTICATED, "Invalid API key or JWT", "the server refused the API key", 1),
    (CODES.PERMISSION_DENIED, "Forbidden: no", "the server refused the API key", 1),
    (CODES.NOT_FOUND, "Not found: Collection `own`", "not found: check the name", 1),
    (CODES.RESOURCE_EXHAUSTED, "Rate limiting exceeded", "still limiting requests", TRIES),
    (
        CODES.RESOURCE_EXHAUSTED,
        "Received message larger than max (9 vs. 4)",
        "refused a request as too large",
        1,
    ),
    (
        CODES.OUT_OF_RANGE,
        "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes",
        "refused a request as too large",
        1,
    ),
    (CODES.RESOURCE_EXHAUSTED, "Insufficient storage: 0 MB", "the server's disk is full", 1),
    (CODES.INTERNAL, "Service internal error: No space left on device", "disk is full", 1),
    (CODES.UNAVAILABLE, "Shard is down", "cannot reach the server (Shard is down)", TRIES),
    (CODES.DEADLINE_EXCEEDED, "Timeout: 60 s", "no answer in time", TRIES),
    (CODES.INVALID_ARGUMENT, "Wrong input: no", "answered INVALID_ARGUMENT: Wrong input: no", 1),
    (CODES.UNIMPLEMENTED, "unknown service", "answered UNIMPLEMENTED: unknown service", 1),
]


@pytest.mark.parametrize(("status", "told", "sentence", "tries"), SENTENCES)
def test_refusals_are_sentences_without_the_key(
    server: GrpcServer, status: Any, told: str, sentence: str, tries: int
) -> None:
    server.api_key = SECRET
    with pytest.warns(UserWarning, match="insecure"):
        store = opened(server, api_key=SECRET)
    store.upsert(batch())
    server.refusals = [(status, f"{told} {SECRET}\n{SECRET}")] * 5
    with pytest.raises(CsrError) as caught:
        store.upsert(batch())
    text = str(caught.value)
    assert text.startswith(f"collection 'own' at {server.url}: ") and "\n" not in text
    assert sentence.rstrip(")") in text and SECRET not in text
    assert len(server.refusals) == 5 - tries
    store.close()


def test_a_server_that_names_a_pause_is_obeyed(server: GrpcServer) -> None:
    with opened(server) as store:
        server.faults.shares = Shares(retry_after_s=1)
        server.faults.plan("PUT", "/points", "limited", "limited")
        store.upsert(batch())
        server.faults.plan("PUT", "/points", "limited", "limited", "limited")
        with pytest.raises(CsrError, match="still limiting requests"):
            store.upsert(batch())
        store._writes = RetryPolicy(attempts=2, first_s=0, longest_s=5)
        server.faults.plan("PUT", "/points", "limited")
        asked = time.monotonic()
        store.upsert(batch())
        assert time.monotonic() - asked >= 1


@pytest.mark.parametrize("key", [None, "another"])
def test_a_wrong_key_is_found_when_opening(
    server: GrpcServer, key: str | None, recwarn: pytest.WarningsRecorder
) -> None:
    server.api_key = SECRET
    with pytest.raises(CsrError, match="refused the API key"):
        ServerStore.open(connect(server.url, api_key=key, **server.connection), "own")


@pytest.mark.parametrize("fault", ["slow", "hang"])
def test_who_does_not_answer_in_time_is_asked_again(server: GrpcServer, fault: Any) -> None:
    with opened(server, timeout_s=1) as store:
        store._writes = RetryPolicy(attempts=2, first_s=0, longest_s=0)
        server.faults.shares = Shares(slow_s=1.3)
        server.faults.plan("PUT", "/points", fault)
        store.upsert(batch())
        assert store.count() == 1
        server.faults.plan("PUT", "/points", fault, fault)
        with pytest.raises(CsrError, match="no answer in time"):
            store.upsert(batch())


@pytest.mark.slow
def test_a_server_that_comes_back_is_found_within_seconds() -> None:
    with RestServer() as rest:
        server = GrpcServer(rest=rest)
        store = opened(server)
        store.upsert(batch())
        server.close()
        away = time.monotonic()
        while time.monotonic() - away < 7:  # pauses of a channel's own would be at 4 s
            time.sleep(0.05)
            with pytest.raises(CsrError, match="cannot reach the server"):
                store.count()
        with GrpcServer(server.port, rest):
            back = time.monotonic()
            store._writes = RetryPolicy(attempts=50, first_s=0.05, longest_s=0.1)
            store.upsert(batch())
            assert time.monotonic() - back < 2
        store.close()


def test_attach_outlives_a_restart() -> None:
    """All connections are lost at once, while several threads write."""
    with RestServer() as rest:
        first = GrpcServer(rest=rest)
        client = connect(first.url, **first.connection)
        target = ClientTarget(client, "docs")
        target.upsert(range(400), vectors_of(400))
        rest.faults.shares = Shares(slow=1.0, slow_s=0.01)
        servers = [first]

        def restart() -> None:
            servers[-1].close()
            servers.append(GrpcServer(first.port, rest))

        timer = threading.Timer(0.1, restart)
        timer.start()
        config = AttachConfig(vector="text", batch=8, device="numpy")
        report = attach_on(client, "docs", encoder_of(), config)
        timer.join()
        assert report.complete and report.coded == 400 and len(servers) == 2
        rest.faults.shares = Shares()
        check_codes(target.contents(), encoder_of())
        client.close()
        servers[-1].close()


def test_the_port_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QDRANT_GRPC_PORT", raising=False)
    assert grpc_port() == {}
    monkeypatch.setenv("QDRANT_GRPC_PORT", "16334")
    assert grpc_port() == {"grpc_port": 16334}
    for wrong in ("0", "65536", "-1", "six", "²"):
        monkeypatch.setenv("QDRANT_GRPC_PORT", wrong)
        with pytest.raises(ConfigError, match=r"QDRANT_GRPC_PORT must be a port from 1 to 65535"):
            grpc_port()
