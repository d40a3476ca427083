"""Over REST, clients killed at any moment and a server that hangs up: run again, all ends well."""

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from rest_cases import CASES, WORKER, Case, check_equal
from rest_faults import Fault, Shares
from rest_routes import LIMIT_BYTES
from rest_server import RestServer
from test_indexing_kills import Worker

DROPS = Shares(drop_before=0.02, drop_after=0.02)
TROUBLE = Shares(busy=0.05, limited=0.05, slow=0.05, slow_s=0.01)
ALL: tuple[Fault, ...] = ("busy", "limited", "slow", "hang", "drop_after", "drop_before")
WRITES = {"attach": ("PUT", "/points/vectors"), "migrate-to-edge": ("POST", "/points/scroll")}
# Less than a batch of these takes, so that it is halved. `index` does not, nor do reads.
SMALL = {"attach": 1500, "migrate": 4000, "migrate-from-edge": 4000}


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    made = Worker(WORKER)
    yield made
    assert made.process.stdin is not None
    made.process.stdin.close()
    assert made.process.wait(60) == 0


@pytest.fixture
def server() -> Iterator[RestServer]:
    with RestServer(seed=1) as made:
        yield made


def check_kills(
    worker: Worker, server: RestServer, folder: Path, what: str, n: int, kills: int
) -> None:
    case = Case(what, server, folder, n)
    started = time.perf_counter()
    assert worker.run(case.arguments("whole")) == "done"
    # A share of the time: each run gets a little further, since progress is recorded often.
    within_s = 3 * (time.perf_counter() - started) / kills
    server.faults.shares = DROPS
    moments = random.Random(n + kills)
    killed = case.arguments("killed")
    ends = [worker.run(killed, moments.uniform(0, within_s)) for _ in range(kills)]
    sys.stdout.write(f"{what}: {ends.count('killed')} killed, {server.faults.met}\n")
    assert set(ends) <= {"killed", "done"} and "killed" in ends
    assert worker.run(killed) == "done"
    server.faults.shares = Shares()
    check_equal(case)


@pytest.mark.parametrize("what", CASES)
def test_kills_and_lost_connections(
    worker: Worker, server: RestServer, tmp_path: Path, what: str
) -> None:
    check_kills(worker, server, tmp_path, what, n=900 if what == "index" else 200, kills=5)


@pytest.mark.parametrize(
    "what",
    [each if each in SMALL else pytest.param(each, marks=pytest.mark.slow) for each in CASES],
)
def test_a_server_in_trouble(worker: Worker, server: RestServer, tmp_path: Path, what: str) -> None:
    case = Case(what, server, tmp_path, n=200)
    assert worker.run(case.arguments("whole")) == "done"
    server.faults.shares = TROUBLE
    server.faults.plan(*WRITES.get(what, ("PUT", "/points")), *ALL)
    server.limit_bytes = SMALL.get(what, LIMIT_BYTES)
    assert worker.run({**case.arguments("killed"), "timeout_s": 1}) == "done"
    assert set(ALL) <= server.faults.met.keys()
    assert ("too large" in server.faults.met) == (what in SMALL)
    server.faults.shares, server.limit_bytes = Shares(), LIMIT_BYTES
    check_equal(case)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("what", CASES)
def test_many_kills(worker: Worker, server: RestServer, tmp_path: Path, what: str) -> None:
    check_kills(worker, server, tmp_path, what, n=4000, kills=50)
