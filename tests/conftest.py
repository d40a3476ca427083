"""Fixtures that several rooms' tests share."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from csr_qdrant.stores.base import Schema, Store

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

MakeStore = Callable[..., Store]


@pytest.fixture(params=["edge", "memory", pytest.param("server", marks=pytest.mark.server)])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStore]:
    """Give a function (schema, metadata) -> empty store, over every engine in turn."""
    if request.param == "edge":
        yield from _edge(tmp_path)
    elif request.param == "memory":
        from qdrant_client import QdrantClient

        yield from _client(QdrantClient(":memory:"))
    else:
        yield from _client(server_client())


def server_client() -> "QdrantClient":
    """Return a client of the server at QDRANT_URL; skip the test if there is none."""
    url = os.environ.get("QDRANT_URL")
    if not url:
        pytest.skip("QDRANT_URL is not set")
    from csr_qdrant.stores.server import connect

    return connect(url, api_key=os.environ.get("QDRANT_API_KEY"))


def _edge(folder: Path) -> Iterator[MakeStore]:
    from csr_qdrant.stores.edge import EdgeStore

    made: list[EdgeStore] = []

    def make(schema: Schema, metadata: dict[str, Any] | None = None) -> Store:
        made.append(EdgeStore.create(folder / f"collection-{len(made)}", schema, metadata))
        return made[-1]

    yield make
    for store in made:
        store.close()


def _client(client: "QdrantClient") -> Iterator[MakeStore]:
    from csr_qdrant.stores.server import ServerStore

    names: list[str] = []

    def make(schema: Schema, metadata: dict[str, Any] | None = None) -> Store:
        names.append(f"csr-qdrant-test-{uuid.uuid4().hex}")
        return ServerStore.create(client, names[-1], schema, metadata)

    yield make
    for name in names:  # only what this test made
        client.delete_collection(name)
    client.close()
