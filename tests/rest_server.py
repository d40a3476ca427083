"""A small server that speaks the part of Qdrant's REST interface that csr-qdrant uses; no test.

`python tests/rest_server.py --port 6333` starts one by hand, `--drop 0.02` one that hangs up on a
share of requests, half of them before it has done what they ask for. What it holds is in memory
and searched by qdrant-client's local mode: for tests of what travels, not of speed.
"""

import argparse
import contextlib
import json
import sys
import threading
import time
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from pydantic_core import to_json

sys.path.insert(0, str(Path(__file__).parent))
from rest_engine import Engine
from rest_faults import Fault, Faults, Shares
from rest_routes import LIMIT_BYTES, Answer, answer, failure, warm_up


class RestServer:
    """A server in a thread of this process, at `url`; closed at the end of a `with` block.

    `faults` may be told what goes wrong at any time, in this process, or by `PUT /stub/faults` with
    the shares as JSON. `PUT /stub/reset` forgets all collections and faults.
    """

    def __init__(self, port: int = 0, shares: Shares | None = None, seed: int = 0) -> None:
        warnings.filterwarnings("ignore", ".*local", UserWarning)  # advice for users of local mode
        warm_up()
        self.engine, self.faults = Engine(), Faults(shares or Shares(), seed)
        self.limit_bytes = LIMIT_BYTES
        self.closing = threading.Event()
        self.http = ThreadingHTTPServer(("127.0.0.1", port), _Handler, bind_and_activate=False)
        self.http.request_queue_size = 128
        self.http.daemon_threads = True
        self.http.rest = self  # type: ignore[attr-defined]
        self.http.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients killed
        self.http.server_bind()
        self.http.server_activate()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.connection: dict[str, Any] = {}  # what `connect` takes beside the URL
        self._thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering."""
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()
        self._thread.join(timeout=5)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *arguments: Any) -> None:
        """Say nothing: who wants to know reads the client's log."""

    def _respond(self) -> None:
        rest: RestServer = self.server.rest  # type: ignore[attr-defined]
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        if path.startswith("/stub/"):
            if path == "/stub/faults":
                rest.faults.shares = Shares(**json.loads(raw))
            else:
                rest.engine, rest.faults = Engine(), Faults()
            self._send(Answer(200, {"result": True, "status": "ok", "time": 0.0}))
            return
        fault = rest.faults.next(self.command, path)
        if fault in ("drop_before", "busy", "limited"):
            self._refuse(rest, fault)
            return
        found = self._done(rest, raw)
        if fault == "slow":
            time.sleep(rest.faults.shares.slow_s)
        elif fault == "hang":
            rest.closing.wait()
        if fault in ("drop_after", "hang"):
            self.close_connection = True
            return
        self._send(found)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _respond

    def _refuse(self, rest: RestServer, fault: Fault) -> None:
        if fault == "drop_before":
            self.close_connection = True
        elif fault == "busy":
            self._send(failure(503, "Shard temporarily unavailable: as the tests wish"))
        else:
            refusal = failure(429, "Rate limiting exceeded: as the tests wish")
            self._send(refusal, ("Retry-After", str(rest.faults.shares.retry_after_s)))

    def _done(self, rest: RestServer, raw: bytes) -> Answer:
        if len(raw) > rest.limit_bytes:
            rest.faults.note("too large")
            limit = f"larger than allowed (limit: {rest.limit_bytes} bytes)"
            return failure(400, f"JSON payload ({len(raw)} bytes) is {limit}.")
        try:
            return answer(rest.engine, self.command, self.path, raw)
        except Exception as error:  # a fault of this server's own: seen, whatever the client makes
            return failure(500, f"Service internal error: {type(error).__name__}: {error}")

    def _send(self, found: Answer, *headers: tuple[str, str]) -> None:
        body = to_json(found.document, by_alias=True)
        self.send_response(found.status)
        for name, value in (*headers, ("Content-Type", "application/json")):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self._headers_buffer += [b"\r\n", body]  # type: ignore[attr-defined]  # one packet
        self.flush_headers()


def main() -> None:
    """Serve until interrupted, or, with `--until-eof`, until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--drop", type=float, default=0.0)
    parser.add_argument("--until-eof", action="store_true")
    asked = parser.parse_args()
    shares = Shares(drop_before=asked.drop / 2, drop_after=asked.drop / 2)
    with RestServer(asked.port, shares) as server, contextlib.suppress(KeyboardInterrupt):
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        if asked.until_eof:
            sys.stdin.read()
        else:
            threading.Event().wait()


if __name__ == "__main__":
    main()
