"""API keys and passwords stay secret, whatever a server answers and whatever a command writes."""

import base64
import io
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from csr_qdrant import telemetry
from csr_qdrant.benchmarks.server_index import ServerIndex
from csr_qdrant.cli import bench, keys, lazy
from csr_qdrant.cli.main import COMMANDS, PACKAGE
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError

Csr = Callable[..., Any]

KEY, PASSWORD = "k3y-of-the-server-9f27", "pa55-of-the-url-41c8"
BASIC = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
SECRETS = (KEY[:10], PASSWORD[:10], BASIC[:16])  # parts of them would be enough to worry
N = 64
X = np.random.default_rng(5).normal(size=(N, 8)).astype(np.float32)
DOCS = ("--collection", "docs")
ENCODER = ("--encoder", "enc")
FEW = ("--sampled", 8, "--by-cosine")
SMALL = ("--systems", "csr", "--k", 4, "--timed", 5, "--candidates", 0)

# Every command that takes a server, in a form that asks it for something.
RUNS: dict[str, tuple[object, ...]] = {
    "index": ("index", "x.npy", "--collection", "new", *ENCODER),
    "query": ("query", "--collection", "new", *ENCODER, "--vectors", "q.npy"),
    "info": ("info", "--collection", "new"),
    "explain": ("explain", "--collection", "new", *ENCODER, "--vectors", "q.npy"),
    "latents": ("latents", "--collection", "new"),
    "attach": ("attach", *DOCS, *ENCODER),
    "tune": ("tune", *DOCS, *ENCODER, "--queries", 20, "--k", 4),
    "doctor": ("doctor", *DOCS, *ENCODER),
    "train": ("train", *DOCS, "-o", "out", "--steps", 5, "--h", 32, "--k", 4, "--device", "cpu"),
    "migrate": ("migrate", *DOCS, *ENCODER, "--to-collection", "copy"),
    "detach": ("detach", *DOCS, "--yes"),
    "bench labels": ("bench", "labels", "g.npz", "v.npz", "-o", "labels", *ENCODER, *SMALL),
    "bench collection": ("bench", "collection", *DOCS, "-o", "bench", *ENCODER, *SMALL, *FEW),
}
# These differ from `bench labels` in where vectors come from, and in nothing that knows a server.
LIKE_LABELS = {"bench nave", "bench beir", "bench image-text"}


def commands() -> Iterator[tuple[str, Any]]:
    for package, names in ((PACKAGE, COMMANDS), (bench.PACKAGE, bench.COMMANDS)):
        prefix = "bench " if package == bench.PACKAGE else ""
        yield from ((prefix + name, lazy.load(package, name)) for name in names)


def test_every_command_that_takes_a_server_is_tried_here() -> None:
    flags = {name: {flag for p in each.params for flag in p.opts} for name, each in commands()}
    assert {name for name, own in flags.items() if "--url" in own} == RUNS.keys() | LIKE_LABELS
    for name, own in flags.items():
        secret = {flag for flag in own if any(w in flag for w in ("key", "token", "password"))}
        files = {flag for flag in ("--api-key-file", "--to-api-key-file") if flag in own}
        assert secret == files and ("--url" in own) == ("--api-key-file" in own), name


# --- what is looked through -------------------------------------------------------------------


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Any:
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "_tracer", lambda: provider.get_tracer("csr_qdrant"))
    return exporter


@pytest.fixture
def tried(
    csr: Csr,
    tiny_encoder: Encoder,
    tmp_path: Path,
    spans: Any,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Callable[..., tuple[Any, str]]:
    """Give a function that runs a command and returns what it did, and all that it let out."""
    np.save("x.npy", X)
    np.save("q.npy", X[:2])
    np.savez("g.npz", data=X, label=np.arange(N) % 4)
    np.savez("v.npz", data=X[:8], label=np.arange(8) % 4)
    tiny_encoder.save("enc")
    caplog.set_level(logging.WARNING)  # what is shown where nobody has set logging up
    monkeypatch.setenv("CSR_DEBUG", "1")
    monkeypatch.setenv("CSR_LOG", getattr(request, "param", ""))
    monkeypatch.setattr("csr_qdrant.stores.server_errors.random.uniform", lambda *_: 0.0)

    def run(name: str, url: str, *more: object) -> tuple[Any, str]:
        arguments = [*RUNS[name], "--url", url, *more]
        # Reports name the command that made them.
        monkeypatch.setattr("sys.argv", ["csr", *map(str, arguments)])
        ran = csr(*arguments)
        out, err = capfd.readouterr()
        files = [file for file in tmp_path.rglob("*") if file.is_file() and file.name != "key.txt"]
        written = [f"{file} {file.read_bytes().decode('latin-1')}" for file in files]
        seen = [ran.stdout, ran.stderr, out, err, caplog.text, *written]
        return ran, "\n".join(seen + [span.to_json() for span in spans.get_finished_spans()])

    return run


def check(everything: str) -> None:
    """Raise if a secret stands in what a command let out."""
    for secret in SECRETS:
        place = everything.find(secret)
        assert place < 0, everything[max(0, place - 300) : place + 100]


# --- servers that fail ------------------------------------------------------------------------


class Echo(ThreadingHTTPServer):
    """Answers every request with its own headers, as careless proxies do."""

    daemon_threads = True

    def __init__(self, status: int, form: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.form = status, form
        self.keys: set[str | None] = set()


class _Handler(BaseHTTPRequestHandler):
    server: Echo

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.keys.add(self.headers.get("api-key"))
        text = " ".join(f"{name}={value}" for name, value in self.headers.items())
        if self.server.form == "cut":  # so that sentences are cut within the key
            text = "x" * 285 + self.headers.get("api-key", "")
        body = text if self.server.form == "text" else json.dumps({"status": {"error": text}})
        self.send_response(self.server.status, text[:200] if self.server.form == "text" else None)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer


@pytest.fixture(params=[(401, "json"), (403, "text"), (500, "json"), (500, "cut"), (200, "text")])
def echo(request: pytest.FixtureRequest) -> Iterator[Echo]:
    server = Echo(*request.param)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize("tried", ["", "json"], indirect=True)
def test_servers_that_echo_what_they_are_sent(
    tried: Any, echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    for name in RUNS:
        ran, everything = tried(name, f"http://user:{PASSWORD}@127.0.0.1:{echo.server_port}")
        assert ran.exit_code, name
        assert "127.0.0.1" in everything and "unexpected" not in ran.stderr, (name, ran.stderr)
        check(everything)
    assert echo.keys == {KEY}


@pytest.mark.parametrize("tried", ["", "json"], indirect=True)
def test_servers_that_cannot_be_reached(tried: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    for name in RUNS:
        ran, everything = tried(name, f"http://user:{PASSWORD}@127.0.0.1:{closed_port()}")
        assert ran.exit_code and "cannot reach the server" in ran.stdout + ran.stderr, name
        check(everything)


@pytest.mark.parametrize(
    "url",
    [
        "user:{}@host:6333",
        "http://user:{}@host:port",
        "http://user:{}/@host",
        "http://[user:{}@host",
    ],
)
def test_addresses_that_are_none(tried: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    for name in ("info", "bench labels"):
        ran, everything = tried(name, url.format(PASSWORD), "--timeout", 1)
        assert ran.exit_code, name
        check(everything)


def test_keys_of_a_file(tried: Any, echo: Echo, tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text(KEY + "\n")
    url = f"http://127.0.0.1:{echo.server_port}"
    for name in ("info", "train", "bench labels"):
        ran, everything = tried(name, url, "--api-key-file", "key.txt")
        assert ran.exit_code, name
        check(everything)
    assert echo.keys == {KEY}


@pytest.mark.parametrize("content", [b"", b" \n", b"two " + KEY.encode(), b"\xff", b"x" * 20_000])
def test_files_that_hold_no_key(tried: Any, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key.txt").write_bytes(content)
    ran, everything = tried("info", "http://127.0.0.1:9", "--api-key-file", "key.txt")
    assert ran.exit_code == 2 and "key.txt" in ran.stderr
    check(everything)
    ran, everything = tried("info", "http://127.0.0.1:9", "--api-key-file", "missing.txt")
    assert ran.exit_code == 2 and "No such file" in ran.stderr


def test_keys_of_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    piped = io.TextIOWrapper(io.BytesIO(f"{KEY}\n\nnext line\n".encode()))
    monkeypatch.setattr("sys.stdin", piped)
    assert keys.api_key(Path("-")) == KEY
    with pytest.raises(ConfigError, match="the key that was given must be an API key"):
        keys.api_key(Path("-"))
    assert piped.read() == "next line\n"


def test_keys_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("getpass.getpass", {"QDRANT_API_KEY: ": KEY}.__getitem__)
    assert keys.api_key(Path("-")) == KEY


# --- a server that works ----------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[QdrantClient]:
    """Put local mode in the place of a server; it knows its address and key as a client does."""
    client = QdrantClient(":memory:")
    vectors = models.VectorParams(size=8, distance=models.Distance.DOT)
    client.create_collection("docs", vectors)
    points = [models.PointStruct(id=i, vector=row.tolist()) for i, row in enumerate(X)]
    client.upsert("docs", points)

    def connect(url: str, *, api_key: str | None = None, **_: Any) -> QdrantClient:
        client.init_options.update(url=url, api_key=api_key, location=None)
        return client

    close = client.close
    monkeypatch.setattr(client, "close", lambda: None)
    monkeypatch.setattr("csr_qdrant.stores.server.connect", connect)
    yield client
    close()


def test_nothing_that_is_written_holds_a_secret(
    tried: Any, server: QdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    # Local mode has no index to wait for, but a client with a URL is waited for as a server is.
    monkeypatch.setattr(ServerIndex, "_idle_since", lambda _: time.perf_counter())
    for name in RUNS:
        ran, everything = tried(name, f"https://user:{PASSWORD}@qdrant.example:6333")
        assert ran.exit_code == 0, (name, ran.stderr)
        check(everything)
        for collection in server.get_collections().collections:
            check(server.get_collection(collection.name).model_dump_json())
    assert server.init_options["api_key"] == KEY
    for made in ("out/csr.json", "labels/report.json", "bench/report.html", "bench/vectors"):
        assert (Path.cwd() / made).exists(), made
