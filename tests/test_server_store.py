"""The server store over real HTTP: a small server that answers as Qdrant's REST interface does.

What the engine makes of the requests is tested in test_stores.py; here it is about requests that
fail: which are sent again, when, and what the user reads.
"""

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.stores.base import PointBatch, Schema, Search
from csr_qdrant.stores.server import RetryPolicy, ServerStore, connect
from csr_qdrant.stores.server_config import address
from csr_qdrant.stores.server_points import REQUEST_BYTES, REQUEST_POINTS

H = 16
QUICK = RetryPolicy(attempts=4, first_s=0.01, longest_s=0.5)
SECRET = "s3cr3t-k3y"
LIMIT = 32 * 2**20


class Answer(NamedTuple):
    status: int
    body: Any = None
    headers: dict[str, str] = {}  # noqa: RUF012


class Seen(NamedTuple):
    """One request as it arrived."""

    method: str
    path: str
    body: Any
    size: int
    headers: dict[str, str]
    at: float


def result(value: Any) -> Answer:
    return Answer(200, {"result": value, "status": "ok", "time": 0.0})


def failure(status: int, text: str, **headers: str) -> Answer:
    return Answer(status, {"status": {"error": text}, "time": 0.0}, headers)


UPDATED = result({"operation_id": 0, "status": "completed"})


class FakeServer:
    """Answers requests from a script first, and otherwise as an empty collection would."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.script: dict[tuple[str, str], list[Answer]] = {}
        self.version = "1.16.0"
        self.metadata: Any = None
        self.exists = True
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: Any) -> None:
                pass

            def _answer(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                seen = Seen(
                    self.command,
                    self.path.split("?")[0],
                    json.loads(raw) if raw else None,
                    len(raw),
                    {name.lower(): value for name, value in self.headers.items()},
                    time.monotonic(),
                )
                outer.seen.append(seen)
                answer = outer.reply(seen)
                if answer.status == 0:  # hang up without an answer
                    self.close_connection = True
                    return
                body = json.dumps(answer.body).encode()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _answer

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def reply(self, seen: Seen) -> Answer:
        planned = self.script.get((seen.method, seen.path))
        if planned:
            return planned.pop(0)
        if seen.path == "/":
            return Answer(200, {"title": "qdrant", "version": self.version})
        if seen.path == "/collections/c/exists":
            return result({"exists": self.exists})
        if seen.path == "/collections/c":
            return result(self.collection()) if seen.method == "GET" else result(True)
        return UPDATED

    def collection(self) -> dict[str, Any]:
        optimizers = {
            "deleted_threshold": 0.2,
            "vacuum_min_vector_number": 1000,
            "default_segment_number": 0,
            "flush_interval_sec": 5,
        }
        return {
            "status": "green",
            "optimizer_status": "ok",
            "points_count": 0,
            "segments_count": 1,
            "payload_schema": {},
            "config": {
                "params": {"vectors": {}, "sparse_vectors": {"csr": {}}},
                "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
                "optimizer_config": optimizers,
                "metadata": self.metadata,
            },
        }

    def plan(self, method: str, path: str, *answers: Answer) -> None:
        self.script[method, path] = list(answers)

    def requests(self, method: str, path: str) -> list[Seen]:
        return [seen for seen in self.seen if (seen.method, seen.path) == (method, path)]

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(timeout=5)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    fake.metadata = {"csr_qdrant": {"format": 1, "schema": {"h": H}}, "csr_qdrant.k": 2, "own": 1}
    yield fake
    fake.close()


@pytest.fixture
def store(server: FakeServer) -> Iterator[ServerStore]:
    with ServerStore.open(connect(server.url), "c", writes=QUICK, owns_client=True) as opened:
        server.seen.clear()
        yield opened


def points(n: int, payload: dict[str, Any] | None = None) -> PointBatch:
    rows = np.eye(H, dtype=np.float32)[np.arange(n) % H]
    return PointBatch(range(n), SparseCodes.from_dense(rows), None, [payload or {}] * n)


QUERY = Search(codes=points(1).codes, limit=1)
UPSERT = ("PUT", "/collections/c/points")
QUERY_CALL = ("POST", "/collections/c/points/query/batch")


# --- what is sent -------------------------------------------------------------------------------


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


# --- repeating ----------------------------------------------------------------------------------


def gaps(requests: list[Seen]) -> list[float]:
    return [later.at - first.at for first, later in pairwise(requests)]


@pytest.mark.parametrize(
    "trouble",
    [
        failure(429, "slow down"),
        failure(408, "slow"),
        failure(502, "bad gateway"),
        failure(503, "starting"),
        failure(504, "late"),
        Answer(0),
        Answer(503, "<html>not JSON</html>"),
    ],
)
def test_writes_are_repeated_until_the_server_takes_them(
    server: FakeServer, store: ServerStore, trouble: Answer
) -> None:
    server.plan(*UPSERT, trouble, trouble)
    store.upsert(points(3))
    requests = server.requests(*UPSERT)
    assert len(requests) == 3
    assert requests[0].body == requests[1].body == requests[2].body


def test_pauses_grow_and_stay_below_their_limit(server: FakeServer) -> None:
    policy = RetryPolicy(attempts=6, first_s=0.05, longest_s=0.15)
    store = ServerStore.open(connect(server.url), "c", writes=policy)
    server.plan(*UPSERT, *[failure(503, "starting")] * 5)
    store.upsert(points(1))
    pauses = gaps(server.requests(*UPSERT))
    assert len(pauses) == 5
    for pause, most in zip(pauses, [0.05, 0.1, 0.15, 0.15, 0.15], strict=True):
        assert most / 2 <= pause < most + 0.5  # the rest is the machine's own


def test_a_server_that_names_a_pause_is_obeyed(server: FakeServer) -> None:
    policy = RetryPolicy(attempts=3, first_s=0.001, longest_s=5)
    store = ServerStore.open(connect(server.url), "c", writes=policy)
    server.plan(*UPSERT, failure(429, "slow down", Retry_After="1"))
    store.upsert(points(1))
    (pause,) = gaps(server.requests(*UPSERT))
    assert 1 <= pause < 2


@pytest.mark.parametrize("named", ["3600", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_a_pause_that_is_too_long_or_unreadable_falls_back_to_ours(
    server: FakeServer, store: ServerStore, named: str
) -> None:
    server.plan(*UPSERT, failure(429, "slow down", Retry_After=named))
    store.upsert(points(1))
    (pause,) = gaps(server.requests(*UPSERT))
    assert pause < 2


def test_giving_up_says_why(server: FakeServer, store: ServerStore) -> None:
    server.plan(*UPSERT, *[failure(429, "slow down")] * 99)
    with pytest.raises(CsrError, match="the server is still limiting requests"):
        store.upsert(points(1))
    assert len(server.requests(*UPSERT)) == QUICK.attempts


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500])
def test_other_failures_are_not_repeated(
    server: FakeServer, store: ServerStore, status: int
) -> None:
    server.plan(*UPSERT, failure(status, "no"))
    with pytest.raises(CsrError):
        store.upsert(points(1))
    assert len(server.requests(*UPSERT)) == 1


def test_only_the_request_that_failed_is_sent_again(server: FakeServer, store: ServerStore) -> None:
    server.plan(*UPSERT, UPDATED, failure(503, "starting"))
    store.upsert(points(REQUEST_POINTS + 5))
    assert [len(request.body["points"]) for request in server.requests(*UPSERT)] == [256, 5, 5]


def test_deletions_and_metadata_are_repeated_as_well(
    server: FakeServer, store: ServerStore
) -> None:
    delete = ("POST", "/collections/c/points/delete")
    server.plan(*delete, failure(503, "starting"))
    server.plan("PATCH", "/collections/c", failure(503, "starting"))
    store.delete([1, 2])
    store.write_metadata("k", 1)
    assert [request.body for request in server.requests(*delete)] == [{"points": [1, 2]}] * 2
    assert len(server.requests("PATCH", "/collections/c")) == 2


def test_a_search_is_repeated_a_little(server: FakeServer, store: ServerStore) -> None:
    hit = {"id": 4, "version": 0, "score": 0.5, "payload": {"a": 1}}
    server.plan(*QUERY_CALL, failure(503, "starting"), result([{"points": [hit]}]))
    assert store.search(QUERY) == [[(4, 0.5, {"a": 1})]]
    server.plan(*QUERY_CALL, *[failure(503, "starting")] * 99)
    with pytest.raises(CsrError, match="the server answered 503: starting"):
        store.search(QUERY)
    assert len(server.requests(*QUERY_CALL)) == 2 + 3


# --- sentences ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (failure(401, "Must provide an API key"), "refused the API key (401): set QDRANT_API_KEY"),
        (failure(403, "Forbidden"), "refused the API key (403)"),
        (failure(404, "Not found: Collection `c` doesn't exist!"), "not found: check the name"),
        (
            failure(400, "JSON payload (40000000 bytes) is larger than allowed (limit: 33554432)"),
            "refused a request as too large",
        ),
        (Answer(413, "<html>Request Entity Too Large</html>"), "refused a request as too large"),
        (
            failure(500, "Service internal error: No space left on device (os error 28)"),
            "the server's disk is full",
        ),
        (
            failure(400, "Wrong input:\n  vector\n  name"),
            "the server answered 400: Wrong input: vector name",
        ),
        (Answer(200, {"hello": "world"}), "not one of a Qdrant server"),
    ],
)
def test_refusals_become_one_sentence(
    server: FakeServer, store: ServerStore, answer: Answer, message: str
) -> None:
    server.plan(*UPSERT, answer)
    with pytest.raises(CsrError, match=re.escape(message)) as caught:
        store.upsert(points(1))
    text = str(caught.value)
    assert text.startswith(f"collection 'c' at {server.url}: ") and "\n" not in text


def test_a_wrong_key_is_found_when_opening(server: FakeServer) -> None:
    server.plan("GET", "/collections/c/exists", failure(401, "Invalid API key or JWT"))
    with (
        pytest.warns(UserWarning, match="insecure"),
        pytest.raises(CsrError, match="refused the API key") as caught,
    ):
        ServerStore.open(connect(server.url, api_key=SECRET), "c")
    assert SECRET not in str(caught.value)


def test_a_server_that_does_not_answer_in_time_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(CsrError, match="no answer in time"):
            ServerStore.open(connect(url, timeout_s=1), "c")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.mark.parametrize("prefer_grpc", [False, True])
def test_an_unreachable_server_is_found_at_once(prefer_grpc: bool) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    client = QdrantClient(
        url=url, prefer_grpc=prefer_grpc, grpc_port=free_port(), check_compatibility=False
    )
    started = time.monotonic()
    acts: list[Callable[[], ServerStore]] = [
        lambda: ServerStore.open(client, "c"),
        lambda: ServerStore.create(client, "c", Schema(h=H)),
    ]
    for act in acts:
        with pytest.raises(CsrError, match="cannot reach the server") as caught:
            act()
        assert url in str(caught.value)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("version", ["1.15.5", "1.9.0", "v0.11.0"])
def test_old_servers_are_refused_with_both_versions(server: FakeServer, version: str) -> None:
    server.version = version
    message = f"has version {version}, csr-qdrant needs at least 1.16: upgrade the server"
    acts: list[Callable[[], ServerStore]] = [
        lambda: ServerStore.open(connect(server.url), "c"),
        lambda: ServerStore.create(connect(server.url), "new", Schema(h=H)),
    ]
    for act in acts:
        with pytest.raises(CsrError, match=re.escape(message)):
            act()
    assert {seen.method for seen in server.seen} == {"GET"}


@pytest.mark.parametrize("version", ["1.16.0", "1.20.3-dev", "2.0.0", "nightly"])
def test_newer_servers_are_taken(server: FakeServer, version: str) -> None:
    server.version = version
    assert ServerStore.open(connect(server.url), "c").schema.h == H


def test_a_missing_collection_is_named(server: FakeServer) -> None:
    server.exists = False
    with pytest.raises(CsrError, match="there is no collection 'c' at http"):
        ServerStore.open(connect(server.url), "c")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "was not made by csr-qdrant"),
        ({"other": 1}, "was not made by csr-qdrant"),
        ({"csr_qdrant": {"format": 9}}, "has format 9, this version reads up to 1"),
        ({"csr_qdrant": {"format": 1}}, "are damaged"),
        ({"csr_qdrant": "what"}, "are damaged"),
        (
            {"csr_qdrant": {"format": 1, "schema": {"h": 4, "code_name": "gone"}}},
            "has lost its sparse vectors 'gone'",
        ),
    ],
)
def test_collections_of_others_are_refused(server: FakeServer, metadata: Any, message: str) -> None:
    server.metadata = metadata
    with pytest.raises(CsrError, match=message):
        ServerStore.open(connect(server.url), "c")


def test_an_existing_collection_is_never_touched(server: FakeServer) -> None:
    with pytest.raises(ConfigError, match="already exists: choose another name or open it"):
        ServerStore.create(connect(server.url), "c", Schema(h=H))
    assert {seen.method for seen in server.seen} == {"GET"}


@pytest.mark.parametrize("key", ["ключ", "two\nlines", "tab\tkey"])
def test_a_key_that_cannot_be_sent_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ConfigError, match="check QDRANT_API_KEY") as caught:
        connect("http://localhost:6333", api_key=key)
    assert key not in str(caught.value) and repr(key) not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://host", "http://[::1", "http://host:port"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is not the URL of a Qdrant server"):
        connect(url)


def test_a_password_in_the_url_is_never_shown(server: FakeServer) -> None:
    client = connect(server.url.replace("http://", f"http://user:{SECRET}@"))
    assert address(client) == f"at {server.url}"
    with pytest.raises(ConfigError) as caught:
        connect(f"ftp://user:{SECRET}@host")
    assert SECRET not in str(caught.value)


def test_only_an_owned_client_is_closed(server: FakeServer) -> None:
    client = connect(server.url)
    ServerStore.open(client, "c").close()
    store = ServerStore.open(client, "c", owns_client=True)
    store.close()
    store.close()
    with pytest.raises(CsrError, match="is closed: open it again"):
        store.count()
    with pytest.raises(CsrError, match="the client has been closed"):
        ServerStore.open(client, "c")


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
