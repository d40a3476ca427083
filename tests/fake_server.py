"""A small server that answers as Qdrant's REST interface does, by a script, and remembers."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import numpy as np
import pytest

from csr_qdrant.codes import SparseCodes
from csr_qdrant.stores.base import PointBatch, Search
from csr_qdrant.stores.server import RetryPolicy, ServerStore, connect

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


def server_fixture() -> Any:
    """Return a fixture that gives a server with one collection, `c`."""

    @pytest.fixture
    def server() -> Iterator[FakeServer]:
        fake = FakeServer()
        fake.metadata = {
            "csr_qdrant": {"format": 1, "schema": {"h": H}},
            "csr_qdrant.k": 2,
            "own": 1,
        }
        yield fake
        fake.close()

    return server


def store_fixture() -> Any:
    """Return a fixture that gives that collection, opened; the server has forgotten the opening."""

    @pytest.fixture
    def store(server: FakeServer) -> Iterator[ServerStore]:
        with ServerStore.open(connect(server.url), "c", writes=QUICK, owns_client=True) as opened:
            server.seen.clear()
            yield opened

    return store


def points(n: int, payload: dict[str, Any] | None = None) -> PointBatch:
    rows = np.eye(H, dtype=np.float32)[np.arange(n) % H]
    return PointBatch(range(n), SparseCodes.from_dense(rows), None, [payload or {}] * n)


QUERY = Search(codes=points(1).codes, limit=1)
UPSERT = ("PUT", "/collections/c/points")
QUERY_CALL = ("POST", "/collections/c/points/query/batch")
