"""Pages of a migration: within what servers allow, and small where points are large."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx import Headers
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from csr_qdrant.deployment import migrate_pages
from csr_qdrant.deployment.attach_passes import PAGE_VALUES
from csr_qdrant.deployment.migrate import MigrateConfig, migrate
from csr_qdrant.deployment.migrate_pages import PageSize
from csr_qdrant.stores.whole_points import WholePoint

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import ClientTarget, encoder_of, vectors_of

N = 150


@pytest.fixture
def source() -> Iterator[ClientTarget]:
    made = ClientTarget(QdrantClient(":memory:"), "docs")
    made.upsert(range(N), vectors_of(N))
    yield made
    made.client.close()


def limits(client: QdrantClient, monkeypatch: pytest.MonkeyPatch, calls: list[int]) -> None:
    """Let collections have a strict mode, which the client enforces as servers do."""
    info, scroll, upsert = client.get_collection, client.scroll, client.upsert
    strict = models.StrictModeConfigOutput(
        enabled=True, max_query_limit=20, upsert_max_batchsize=10, search_allow_exact=False
    )

    def counted(*_: Any, **keywords: Any) -> Any:
        message = b'{"status": {"error": "Bad request: Exact search disabled!"}}'
        raise UnexpectedResponse(400, "Bad Request", message, Headers())

    def described(name: str) -> Any:
        found = info(name)
        found.config.strict_mode_config = strict
        return found

    def check(count: int, most: int) -> None:
        calls.append(count)
        if count > most:
            raise UnexpectedResponse(400, "Bad Request", b"Limit exceeded", Headers())

    def scrolled(*arguments: Any, **keywords: Any) -> Any:
        check(keywords["limit"], 20)
        return scroll(*arguments, **keywords)

    def upserted(name: str, points: Any, **keywords: Any) -> Any:
        check(len(points), 10)
        return upsert(name, points, **keywords)

    monkeypatch.setattr(client, "count", counted)
    monkeypatch.setattr(client, "get_collection", described)
    monkeypatch.setattr(client, "scroll", scrolled)
    monkeypatch.setattr(client, "upsert", upserted)


def test_a_strict_servers_limits_are_kept(
    source: ClientTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    limits(source.client, monkeypatch, calls)
    config = MigrateConfig(vector="text", device="numpy")
    report = migrate((source.client, "docs"), (source.client, "copy"), encoder_of(), config)
    assert report.complete and report.copied == report.coded == N
    assert len(calls) > 2 * N / 10


def test_pages_shrink_where_payloads_are_large(
    source: ClientTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, scroll = source.client, source.client.scroll
    sizes: list[tuple[Any, int]] = []
    monkeypatch.setattr(migrate_pages, "PAGE_VALUES", 2**12)
    client.set_payload("docs", {"text": "x" * 2**13}, points=list(range(40, 60)))

    def scrolled(*arguments: Any, **keywords: Any) -> Any:
        found = scroll(*arguments, **keywords)
        if keywords["with_payload"] and arguments[0] == "docs":
            sizes.append((found[0][0].id, len(found[0])))
        return found

    monkeypatch.setattr(client, "scroll", scrolled)
    config = MigrateConfig(vector="text", device="numpy", verify=False)
    assert migrate((client, "docs"), (client, "copy"), encoder_of(), config).complete
    assert sizes[:2] == [(0, 32), (32, 64)]
    assert 10 <= sizes[2][1] <= 12  # four large ones fill a page, and this one follows 20 of 64
    assert sum(count for _, count in sizes) == N and sizes[-1][1] > 4


def test_pages_grow_step_by_step_up_to_the_batch() -> None:
    size = PageSize(100, multi=True)
    seen = []
    for _ in range(5):
        seen.append(size.limit)
        size.saw([WholePoint(i, {"": [0.5] * 4}, {}) for i in range(size.limit)])
    assert seen == [16, 32, 64, 100, 100]
    size.saw([WholePoint(0, {"pages": [[0.5] * 1024] * 128}, {})])
    assert size.limit == 8
    size.saw([WholePoint(0, {"": [0.5] * (2 * PAGE_VALUES)}, {})])
    assert size.limit == 1
