"""Which requests to a server are sent again after a failure, and when."""

import sys
from itertools import pairwise
from pathlib import Path

import pytest

from csr_qdrant.errors import CsrError
from csr_qdrant.stores.server import RetryPolicy, ServerStore, connect
from csr_qdrant.stores.server_points import REQUEST_POINTS

sys.path.insert(0, str(Path(__file__).parent))
from fake_server import (
    QUERY,
    QUERY_CALL,
    QUICK,
    UPDATED,
    UPSERT,
    Answer,
    FakeServer,
    Seen,
    failure,
    points,
    result,
    server_fixture,
    store_fixture,
)

server = server_fixture()
store = store_fixture()


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
