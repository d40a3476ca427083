"""A small server that speaks the part of Qdrant's gRPC interface that csr-qdrant uses; no test.

The same collections are served over REST at a port of their own (`rest_server.py`), as Qdrant
does. `python tests/grpc_server.py --port 6333 --grpc-port 6334` starts one by hand.
"""

import argparse
import contextlib
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn, Self

import grpc  # type: ignore[import-untyped]
from qdrant_client import grpc as messages
from qdrant_client import models

sys.path.insert(0, str(Path(__file__).parent))
from grpc_rpcs import COLLECTIONS, POINTS, ROOT, Rpc
from rest_faults import Fault, Faults, Shares
from rest_routes import REFUSALS, failure_of, perform, route_of
from rest_server import RestServer

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ALREADY_EXISTS,
    422: grpc.StatusCode.INVALID_ARGUMENT,
}
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),  # a port in use is an error
]
SERVICES: list[tuple[str, type, Callable[..., None], dict[str, Rpc]]] = [
    ("Root", messages.QdrantServicer, messages.add_QdrantServicer_to_server, ROOT),
    (
        "Collections",
        messages.CollectionsServicer,
        messages.add_CollectionsServicer_to_server,
        COLLECTIONS,
    ),
    ("Points", messages.PointsServicer, messages.add_PointsServicer_to_server, POINTS),
]


class GrpcServer:
    """A server in threads of this process, at `port`; closed at the end of a `with` block.

    It serves what `rest` holds, at whose `url` the REST interface is, with the same faults, planned
    by the methods and paths of REST. With `api_key`, requests without it are refused.
    """

    def __init__(
        self,
        port: int = 0,
        rest: RestServer | None = None,
        api_key: str | None = None,
        seed: int = 0,
    ) -> None:
        self.rest = rest or RestServer(seed=seed)
        self._owns_rest = rest is None
        self.api_key = api_key
        self.closing = threading.Event()
        self.refusals: list[tuple[grpc.StatusCode, str]] = []  # what the next requests get
        self._server = grpc.server(ThreadPoolExecutor(16), options=OPTIONS)
        for name, base, add, rpcs in SERVICES:
            methods = {each: _method(self, rpc) for each, rpc in rpcs.items()}
            add(type(name, (base,), methods)(), self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self.connection: dict[str, Any] = {"prefer_grpc": True, "grpc_port": self.port}
        self._server.start()

    @property
    def url(self) -> str:
        """Address of the REST interface."""
        return self.rest.url

    @property
    def faults(self) -> Faults:
        """What goes wrong."""
        return self.rest.faults

    @property
    def limit_bytes(self) -> int:
        """Size of the largest message that is taken."""
        return self.rest.limit_bytes

    @limit_bytes.setter
    def limit_bytes(self, size: int) -> None:
        self.rest.limit_bytes = size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up on everybody."""
        self.closing.set()
        self._server.stop(0).wait(5)
        if self._owns_rest:
            self.rest.close()

    def answer(self, rpc: Rpc, message: Any, context: grpc.ServicerContext) -> Any:
        """Return the reply to one request, or abort it with a status."""
        path = rpc.target(message)
        self._check_key(path, context)
        if self.refusals and path != "/":
            _abort(context, *self.refusals.pop(0))
        fault = self.faults.next(rpc.method, path)
        if fault in ("drop_before", "busy", "limited"):
            self._refuse(fault, context)
        if message.ByteSize() > self.rest.limit_bytes:  # what stands before a server has limits
            self.faults.note("too large")
            sizes = f"({message.ByteSize()} vs. {self.rest.limit_bytes})"
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            _abort(context, code, f"Received message larger than max {sizes}")
        reply = self._done(rpc, path, message, context)
        if fault == "slow":
            time.sleep(self.faults.shares.slow_s)
        while fault == "hang" and context.is_active() and not self.closing.is_set():
            time.sleep(0.01)
        if fault in ("drop_after", "hang"):
            _drop(context)
        return reply

    def _check_key(self, path: str, context: grpc.ServicerContext) -> None:
        given = dict(context.invocation_metadata()).get("api-key")
        if self.api_key is None or path == "/" or given == self.api_key:
            return
        told = "Invalid API key or JWT" if given else "Must provide an API key"
        _abort(context, grpc.StatusCode.UNAUTHENTICATED, told)

    def _refuse(self, fault: Fault | None, context: grpc.ServicerContext) -> NoReturn:
        if fault == "drop_before":
            _drop(context)
        if fault == "busy":
            told = "Shard temporarily unavailable: as the tests wish"
            _abort(context, grpc.StatusCode.UNAVAILABLE, told)
        context.set_trailing_metadata((("retry-after", str(self.faults.shares.retry_after_s)),))
        told = "Rate limiting exceeded: as the tests wish"
        _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, told)

    def _done(self, rpc: Rpc, path: str, message: Any, context: grpc.ServicerContext) -> Any:
        found = route_of(rpc.method, path)
        assert found is not None, path
        try:
            result = perform(self.rest.engine, *found, *rpc.arguments(message))
            if isinstance(result, models.UpdateResult) and not message.wait:
                result.status = models.UpdateStatus.ACKNOWLEDGED
            return rpc.reply(result)
        except REFUSALS as error:
            refused = failure_of(error)
            text = refused.document["status"]["error"].replace("in JSON body", "in body")
            _abort(context, CODES[refused.status], text)
        except Exception as error:  # a fault of this server's own: seen, whatever the client makes
            told = f"Service internal error: {type(error).__name__}: {error}"
            _abort(context, grpc.StatusCode.INTERNAL, told)


def _method(server: GrpcServer, rpc: Rpc) -> Callable[..., Any]:
    return lambda _, message, context: server.answer(rpc, message, context)


def _abort(context: grpc.ServicerContext, code: grpc.StatusCode, text: str) -> NoReturn:
    context.abort(code, text)
    raise AssertionError("abort has raised")


def _drop(context: grpc.ServicerContext) -> NoReturn:
    """End a request as one ends whose connection is lost."""
    _abort(context, grpc.StatusCode.UNAVAILABLE, "recvmsg:Connection reset by peer")


def main() -> None:
    """Serve until interrupted, or, with `--until-eof`, until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--grpc-port", type=int, default=0)
    parser.add_argument("--drop", type=float, default=0.0)
    parser.add_argument("--until-eof", action="store_true")
    asked = parser.parse_args()
    shares = Shares(drop_before=asked.drop / 2, drop_after=asked.drop / 2)
    with (
        RestServer(asked.port, shares) as rest,
        GrpcServer(asked.grpc_port, rest) as server,
        contextlib.suppress(KeyboardInterrupt),
    ):
        sys.stdout.write(f"{server.url} {server.port}\n")
        sys.stdout.flush()
        if asked.until_eof:
            sys.stdin.read()
        else:
            threading.Event().wait()


if __name__ == "__main__":
    main()
