"""Clients killed at any moment and a server that hangs up, over REST and gRPC: all ends well."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from engines import LANGUAGES, open_server
from grpc_server import GrpcServer
from kill_workers import Worker, seconds, worker_fixture
from rest_cases import CASES, WORKER, Case, check_equal
from rest_faults import Fault, Shares
from rest_routes import LIMIT_BYTES
from rest_server import RestServer

Server = RestServer | GrpcServer
DROPS = Shares(drop_before=0.02, drop_after=0.02)
TROUBLE = Shares(busy=0.05, limited=0.05, slow=0.05, slow_s=0.01)
ALL: tuple[Fault, ...] = ("busy", "limited", "slow", "hang", "drop_after", "drop_before")
WRITES = {"attach": ("PUT", "/points/vectors"), "migrate-to-edge": ("POST", "/points/scroll")}
SLOW = pytest.mark.slow
# Less than a batch of these takes, so that it is halved. `index` does not, nor do reads.
SMALL = {
    "rest": {"attach": 1500, "migrate": 4000, "migrate-from-edge": 4000},
    "grpc": {"attach": 600, "migrate": 1500, "migrate-from-edge": 1500},
}
worker = worker_fixture(WORKER)


@pytest.fixture(params=LANGUAGES)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with open_server(request.param, seed=1) as made:
        yield made


def check_kills(
    worker: Worker, server: Server, folder: Path, what: str, n: int, kills: int
) -> None:
    case = Case(what, server, folder, n)
    duration_s = seconds(worker, case.arguments("whole"))
    start_s = seconds(worker, {**case.arguments("whole"), "what": "nothing"})
    # A share of the time: each run gets a little further, since progress is recorded often.
    share_s = 2 * max(duration_s - start_s, 0) / kills
    server.faults.shares = DROPS
    even = random.Random(n + kills).uniform
    killed = case.arguments("killed")
    # The first one dies at its work for certain, or all might be done before they are killed.
    ends = [worker.run(killed, start_s + even(0, share_s / 2))]
    ends += [worker.run(killed, even(0, 2 * start_s) + even(0, share_s)) for _ in range(kills - 1)]
    met = sum(server.faults.met.values())
    assert set(ends) <= {"killed", "done"} and "killed" in ends
    assert worker.run(killed) == "done"
    sys.stdout.write(
        f"{what}: {ends.count('killed')} killed in {duration_s:.1f} s of work, {met} connections "
        f"lost, then {sum(server.faults.met.values()) - met}\n"
    )
    server.faults.shares = Shares()
    check_equal(case)


@pytest.mark.parametrize("what", CASES)
def test_kills_and_lost_connections(
    worker: Worker, server: Server, tmp_path: Path, what: str
) -> None:
    check_kills(worker, server, tmp_path, what, n=900 if what == "index" else 200, kills=3)


@pytest.mark.parametrize(
    "what",
    [each if each in SMALL["rest"] else pytest.param(each, marks=SLOW) for each in CASES],
)
def test_a_server_in_trouble(worker: Worker, server: Server, tmp_path: Path, what: str) -> None:
    case = Case(what, server, tmp_path, n=200)
    assert worker.run(case.arguments("whole")) == "done"
    server.faults.shares = TROUBLE
    server.faults.plan(*WRITES.get(what, ("PUT", "/points")), *ALL)
    small = SMALL["grpc" if isinstance(server, GrpcServer) else "rest"]
    server.limit_bytes = small.get(what, LIMIT_BYTES)
    assert worker.run({**case.arguments("killed"), "timeout_s": 1}) == "done"
    assert set(ALL) <= server.faults.met.keys()
    assert ("too large" in server.faults.met) == (what in small)
    server.faults.shares, server.limit_bytes = Shares(), LIMIT_BYTES
    check_equal(case)


@SLOW
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("what", CASES)
def test_many_kills(worker: Worker, server: Server, tmp_path: Path, what: str) -> None:
    check_kills(worker, server, tmp_path, what, n=4000, kills=50)
