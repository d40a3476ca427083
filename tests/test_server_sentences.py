"""What the user reads when a server fails, refuses or is not what it should be."""

import re
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient

from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.stores.base import Schema
from csr_qdrant.stores.server import ServerStore, connect
from csr_qdrant.stores.server_config import address

sys.path.insert(0, str(Path(__file__).parent))
from fake_server import (
    SECRET,
    UPSERT,
    Answer,
    FakeServer,
    H,
    failure,
    points,
    server_fixture,
    store_fixture,
)

server = server_fixture()
store = store_fixture()


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
