"""A migration over a server that is busy, loses answers, refuses points or is old."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from csr_qdrant.errors import CsrError

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import check_codes
from migrate_world import ENCODER, SMALL, N, World, busy, contents, run, world_fixture

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
world = world_fixture()


def lost() -> Exception:
    import httpx
    from qdrant_client.http.exceptions import ResponseHandlingException

    return ResponseHandlingException(httpx.ReadError("connection reset"))


METHODS = [
    "create_collection",
    "upsert",
    "scroll",
    "retrieve",
    "count",
    "update_collection",
    "update_collection_aliases",
    "delete",
]


def test_a_busy_server_that_drops_answers_is_asked_again(
    world: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world("memory")
    source, place = here.source(), here.place()
    counts: dict[str, int] = {}

    def flaky(name: str) -> Any:
        real = getattr(here.client, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            counts[name] = counts.get(name, 0) + 1
            fault = counts[name] % 4
            if fault == 1:
                raise busy(429) if counts[name] % 8 == 1 else busy(503)
            result = real(*arguments, **keywords)
            if fault == 2:  # done, but the answer is lost
                raise lost()
            return result

        return call

    for method in METHODS:
        monkeypatch.setattr(here.client, method, flaky(method))
    report = run(source, place, replace(SMALL, alias="live"))
    assert report.complete and report.swapped
    check_codes(contents(place), ENCODER)
    assert counts["upsert"] > N // 32 and counts["create_collection"] > 1


def test_points_that_a_server_refuses_are_named(
    world: Callable[[str], World], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = world("memory")
    source, place, upsert = here.source(), here.place(), here.client.upsert

    def picky(name: str, points: list[Any], **keywords: Any) -> Any:
        if any(point.id in (77, 78) for point in points):
            raise busy(422)
        if len(points) > 20:
            raise busy(413)
        return upsert(name, points, **keywords)

    bad = tmp_path / "bad.jsonl"
    monkeypatch.setattr(here.client, "upsert", picky)
    report = run(source, place, replace(SMALL, bad_rows=bad))
    assert report.refused == report.bad == 2 and not report.complete
    named = [json.loads(line)["id"] for line in bad.read_text("utf-8").splitlines()]
    assert report.target_points == N - 2 and named == [77, 78]
    with pytest.raises(CsrError, match="was not moved"):
        run(source, place, replace(SMALL, alias="live"))


def test_a_server_that_refuses_everything_is_at_fault_itself(
    world: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world("memory")
    source, place = here.source(), here.place()

    def refusing(name: str, points: list[Any], **keywords: Any) -> Any:
        raise busy(422)

    monkeypatch.setattr(here.client, "upsert", refusing)
    with pytest.raises(CsrError, match="refused all of 32 points, and has no other"):
        run(source, place)


def test_an_old_server_gets_this_path_and_a_too_old_one_a_sentence(
    world: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world("memory")
    source, place = here.source(), here.place()
    info = here.client.info

    def of(version: str) -> Any:
        return lambda: info().model_copy(update={"version": version})

    monkeypatch.setattr(here.client, "info", of("1.15.3"))
    with pytest.raises(CsrError, match=r"1\.15\.3.*at least 1\.16"):
        run(source, place)
    monkeypatch.setattr(here.client, "info", of("1.16.0"))
    assert run(source, place).complete
