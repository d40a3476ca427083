"""Attaching to a server that refuses points, splits, is busy or goes away."""

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from csr_qdrant.deployment.attach import AttachConfig, attach
from csr_qdrant.deployment.migrate import MigrateConfig, migrate
from csr_qdrant.errors import CsrError
from csr_qdrant.stores.server_errors import RetryPolicy
from csr_qdrant.stores.server_writer import ServerCodeWriter
from csr_qdrant.stores.whole_points_server import ServerPlace, ServerPoints

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import QUICK, ClientTarget, check_codes, encoder_of, vectors_of

ENCODER = encoder_of()
N = 120


def answer(status: int, said: str) -> UnexpectedResponse:
    content = json.dumps({"status": {"error": said}}).encode()
    return UnexpectedResponse(status, said, content, httpx.Headers())


class Faulty(QdrantClient):
    """A local collection behind a server with faults: `fault(ids, call)` may raise one."""

    fault: Any = staticmethod(lambda ids, call: None)
    calls = 0

    def update_vectors(  # type: ignore[override]
        self, collection_name: str, points: Any, **options: Any
    ) -> Any:
        """Write, unless a fault is due."""
        self.calls += 1
        self.fault([point.id for point in points], self.calls)
        return super().update_vectors(collection_name, points, **options)


@pytest.fixture
def target() -> ClientTarget:
    made = ClientTarget(Faulty(":memory:"), "docs")
    made.upsert(range(N), vectors_of(N))
    return made


def run(target: ClientTarget, fault: Any, bad_rows: Path | None = None) -> Any:
    target.client.fault = fault  # type: ignore[attr-defined]
    config = AttachConfig(vector="text", batch=32, bad_rows=bad_rows, threads=2)
    with target.writer() as writer:
        return attach(writer, ENCODER, config)


def test_points_that_the_server_refuses_are_named_and_stop_nothing(
    target: ClientTarget, tmp_path: Path
) -> None:
    refused = {5, 90}

    def fault(ids: list[int], call: int) -> None:
        if refused & set(ids):
            raise answer(400, "Wrong input: something about this point")

    for _ in range(2):  # the second run meets the refused ones alone
        report = run(target, fault, tmp_path / "bad.jsonl")
        assert (report.bad, report.coded, report.complete) == (2, N - 2, True)
        lines = (tmp_path / "bad.jsonl").read_text("utf-8").splitlines()
        assert {json.loads(line)["id"] for line in lines} == refused
    report = run(target, lambda ids, call: None, tmp_path / "bad.jsonl")
    assert (report.written, report.complete) == (2, True)
    assert not (tmp_path / "bad.jsonl").exists()
    check_codes(target.contents(), ENCODER)


def test_codes_that_the_server_will_not_replace_are_removed(
    target: ClientTarget, tmp_path: Path
) -> None:
    run(target, lambda ids, call: None)
    target.change([9], vectors_of(1, seed=5))

    def fault(ids: list[int], call: int) -> None:
        if 9 in ids:
            raise answer(400, "Wrong input: something about this point")

    for removed in (1, 0):
        report = run(target, fault, tmp_path / "bad.jsonl")
        assert (report.bad, report.removed, report.coded) == (1, removed, N - 1)
        assert report.complete
        (line,) = (tmp_path / "bad.jsonl").read_text("utf-8").splitlines()
        assert json.loads(line)["id"] == 9
    assert "csr" not in target.contents()[9][1]  # the old one was that of another vector


def test_a_server_that_refuses_all_is_at_fault_itself(target: ClientTarget) -> None:
    def fault(ids: list[int], call: int) -> None:
        raise answer(400, "Wrong input: no such thing")

    with pytest.raises(CsrError, match=r"refused the codes of all of 32 points.*no such thing"):
        run(target, fault)


def test_large_requests_are_split(target: ClientTarget) -> None:
    def fault(ids: list[int], call: int) -> None:
        if len(ids) > 7:
            raise answer(413, "Payload too large")

    report = run(target, fault)
    assert (report.written, report.complete) == (N, True)
    check_codes(target.contents(), ENCODER)


@pytest.mark.parametrize(
    "error",
    [
        answer(429, "Too many requests"),
        answer(503, "Service unavailable"),
        ResponseHandlingException(httpx.ReadTimeout("timed out")),
        ResponseHandlingException(httpx.RemoteProtocolError("the server hung up")),
    ],
)
def test_a_server_that_is_busy_or_away_is_asked_again(
    target: ClientTarget, error: Exception
) -> None:
    def fault(ids: list[int], call: int) -> None:
        if call % 3:  # two of three requests
            raise error

    report = run(target, fault)
    assert (report.written, report.complete) == (N, True)
    check_codes(target.contents(), ENCODER)


def test_a_key_without_the_right_is_one_sentence_and_a_rerun_ends_it(target: ClientTarget) -> None:
    def fault(ids: list[int], call: int) -> None:
        raise answer(403, "Forbidden: only reads are allowed")

    with pytest.raises(CsrError, match=r"refused the API key \(403\)"):
        run(target, fault)
    report = run(target, lambda ids, call: None)
    assert (report.written, report.complete) == (N, True)


class Away(QdrantClient):
    """A local collection behind a server that goes away at its third write, for good."""

    writes = records = 0  # records: of progress, while it was away
    leaves_at = 3

    @property
    def away(self) -> bool:
        """Whether it has gone."""
        return self.writes >= self.leaves_at

    def _check(self) -> None:
        if self.away:
            raise ResponseHandlingException(httpx.ConnectError("refused"))

    def update_vectors(  # type: ignore[override]
        self, collection_name: str, points: Any, **options: Any
    ) -> Any:
        """Write."""
        self.writes += 1
        self._check()
        return super().update_vectors(collection_name, points, **options)

    def scroll(self, *arguments: Any, **options: Any) -> Any:
        """Read."""
        self._check()
        return super().scroll(*arguments, **options)

    def update_collection(self, *arguments: Any, **options: Any) -> Any:
        """Record."""
        self.records += self.away
        self._check()
        return super().update_collection(*arguments, **options)


@pytest.fixture
def leaving() -> ClientTarget:
    made = ClientTarget(Away(":memory:"), "docs")
    made.upsert(range(N), vectors_of(N))
    return made


def test_a_server_that_goes_away_is_insisted_on_only_once(leaving: ClientTarget) -> None:
    client: Any = leaving.client
    config = AttachConfig(vector="text", batch=16, threads=2)
    few = RetryPolicy(attempts=4, first_s=0.01, longest_s=0.01)
    with ServerCodeWriter.open(client, "docs", retries=few) as writer:
        with pytest.raises(CsrError, match="cannot reach the server"):
            attach(writer, ENCODER, config)
        assert client.writes >= client.leaves_at + 3  # that was worth four tries
        assert client.records == 1  # how far it came is not
        client.leaves_at = client.writes + 1000
        report = attach(writer, ENCODER, config)
        client.leaves_at = client.writes + 1
        with pytest.raises(CsrError):
            writer.write("csr", [1], ENCODER.encode(vectors_of(1)), only_new=False)
        assert client.writes == client.leaves_at + 3  # the writer is as patient as it was
    assert report.complete
    client.leaves_at = client.writes + 1
    check_codes(leaving.contents(), ENCODER)


def test_migrating_insists_only_once_too(leaving: ClientTarget) -> None:
    client: Any = leaving.client
    client.leaves_at = 1000
    few = RetryPolicy(attempts=4, first_s=0.01, longest_s=0.01)
    place = ServerPlace(client, "copy", few)

    def leave(phase: str, done: int, total: int) -> None:
        if phase == "verify":
            client.leaves_at = client.writes
            client.records = 0

    config = MigrateConfig(vector="text", batch=16)
    with ServerPoints.open(client, "docs", retries=few) as source:
        with pytest.raises(CsrError, match="cannot reach the server"):
            migrate(source, place, ENCODER, config, leave)
        assert client.records == 1
        client.leaves_at = 1000
        assert migrate(source, place, ENCODER, config).complete


@pytest.fixture
def heard() -> Iterator[None]:
    """Let Ctrl-C be heard: a test run in the background passes on that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_waiting_for_a_server_that_is_away(leaving: ClientTarget, heard: None) -> None:
    assert threading.current_thread() is threading.main_thread()
    client: Any = leaving.client
    config = AttachConfig(vector="text", batch=16, threads=2)
    slow = RetryPolicy(attempts=5, first_s=60, longest_s=60)

    def interrupt() -> None:
        while not client.away:
            time.sleep(0.01)
        time.sleep(0.2)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        interrupted.append(time.perf_counter())

    interrupted: list[float] = []
    thread = threading.Thread(target=interrupt)
    thread.start()
    with (
        ServerCodeWriter.open(client, "docs", retries=slow) as writer,
        pytest.raises(KeyboardInterrupt),
    ):
        attach(writer, ENCODER, config)
    assert time.perf_counter() - interrupted[0] < 2
    thread.join()
    client.leaves_at = 1000
    with ServerCodeWriter.open(client, "docs", retries=QUICK) as writer:
        assert attach(writer, ENCODER, config).complete
    check_codes(leaving.contents(), ENCODER)
