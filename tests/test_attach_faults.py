"""Attaching to a server that refuses points, splits, is busy or goes away."""

import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from csr_qdrant.deployment.attach import AttachConfig, attach
from csr_qdrant.errors import CsrError

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import ClientTarget, check_codes, encoder_of, vectors_of

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
