"""A server store over a server that hangs up: what may be repeated is, and its end is clear."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.stores.base import Schema
from csr_qdrant.stores.server import ServerStore, connect
from csr_qdrant.stores.server_errors import RetryPolicy

sys.path.insert(0, str(Path(__file__).parent))
from engines import LANGUAGES, open_server
from grpc_server import GrpcServer
from rest_faults import Fault
from rest_server import RestServer

Server = RestServer | GrpcServer
QUICK = RetryPolicy(attempts=3, first_s=0.001, longest_s=0.01)
SCHEMA = Schema(h=8, dense_dim=2)


@pytest.fixture(params=LANGUAGES)
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("csr_qdrant.stores.server.READS", QUICK)
    with open_server(request.param) as made:
        yield made


@pytest.mark.parametrize("fault", ["drop_before", "drop_after", "busy", "limited"])
def test_a_collection_is_made_and_opened_all_the_same(server: Server, fault: Fault) -> None:
    for method, path in (("GET", "/"), ("GET", "/exists"), ("PUT", "/c"), ("GET", "/c")):
        server.faults.plan(method, path, fault, fault)
    client = connect(server.url, **server.connection)
    ServerStore.create(client, "c", SCHEMA, {"k": 4}, writes=QUICK)
    with ServerStore.open(client, "c", owns_client=True) as store:
        assert store.schema == SCHEMA and store.metadata() == {"k": 4}
    assert server.faults.met == {fault: 8}


def test_what_somebody_else_made_meanwhile_is_not_taken(server: Server) -> None:
    client, other = (
        connect(server.url, **server.connection),
        connect(server.url, **server.connection),
    )
    ServerStore.create(other, "c", SCHEMA, {"k": 3}, writes=QUICK)
    with pytest.raises(ConfigError, match="already exists"):
        ServerStore.create(client, "c", SCHEMA, {"k": 4}, writes=QUICK)

    class Late(ServerStore):
        looked = False

        def _exists(self) -> bool:  # the other one comes between this look and the making
            there, self.looked = self.looked, True
            return there

    with pytest.raises(CsrError, match=r"(409|ALREADY_EXISTS).*already exists"):
        Late.create(client, "c", SCHEMA, {"k": 4}, writes=QUICK)
    assert ServerStore.open(other, "c").metadata() == {"k": 3}


def test_a_server_that_stays_away_is_one_sentence(server: Server) -> None:
    server.faults.plan("GET", "/exists", "drop_before", "drop_before", "drop_before")
    with pytest.raises(CsrError, match=r"collection 'c' at .*: cannot reach the server"):
        ServerStore.open(connect(server.url, **server.connection), "c")
