"""Pages of a migration: within what servers allow, and small where points are large."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient

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
