"""What the tests of migrating share: sources and places of any engine, and runs over them."""

import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient

from csr_qdrant.deployment.migrate import MigrateConfig, migrate
from csr_qdrant.errors import CsrError
from csr_qdrant.stores.whole_points import NewPlace
from csr_qdrant.stores.whole_points_edge import EdgePlace, EdgePoints
from csr_qdrant.stores.whole_points_server import ServerPlace, ServerPoints

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import QUICK, ClientTarget, EdgeTarget, Target, encoder_of, vectors_of
from engines import open_client

SMALL = MigrateConfig(batch=32, vector="text", device="numpy")
ENCODER = encoder_of()
N = 150


class World:
    """Makes sources and places of one engine, and cleans up after itself."""

    def __init__(self, kind: str, folder: Path, request: pytest.FixtureRequest) -> None:
        self.kind, self.folder = kind, folder
        self.names: list[str] = []
        if kind != "edge":
            self.client = open_client(kind, request)

    def name(self) -> str:
        self.names.append(f"csr-qdrant-test-{uuid.uuid4().hex}")
        return self.names[-1]

    def source(self) -> Any:
        made: Target
        if self.kind == "edge":
            made = EdgeTarget(self.folder / self.name())
        else:
            made = ClientTarget(self.client, self.name())
        made.upsert(range(N), vectors_of(N))
        return made

    def place(self, name: str | None = None) -> Any:
        name = name or self.name()
        if self.kind == "edge":
            return EdgePlace(self.folder / name)
        return ServerPlace(self.client, name, QUICK)

    def close(self) -> None:
        if self.kind != "edge":
            for name in self.names:  # only what this test made
                self.client.delete_collection(name)
            self.client.close()


def world_fixture() -> Any:
    """Return a fixture that gives a function from an engine's name to a `World`."""

    @pytest.fixture
    def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str], World]]:
        made: list[World] = []

        def make(kind: str) -> World:
            folder = tmp_path / f"world-{len(made)}"
            folder.mkdir()
            made.append(World(kind, folder, request))
            return made[-1]

        yield make
        for each in made:
            each.close()

    return world


def points_of(source: Any) -> Any:
    if isinstance(source, EdgeTarget):
        return EdgePoints.open(source.folder)
    return ServerPoints.open(source.client, source.name, retries=QUICK)


def run(source: Any, place: NewPlace, config: MigrateConfig = SMALL, encoder: Any = ENCODER) -> Any:
    with points_of(source) as opened:
        return migrate(opened, place, encoder, config)


def contents(place: NewPlace) -> dict[Any, Any]:
    opened: Any
    with place.open() as opened:  # type: ignore[attr-defined]
        found, following = opened.points(10**5, None)
    assert following is None
    return {point.id: (point.payload, dict(point.vectors)) for point in found}


def plain(contents: dict[Any, Any]) -> dict[Any, Any]:
    """Return what `attach_targets` returns, in the types of `contents`."""
    return {
        i: (p, {n: tuple(v) if isinstance(v, tuple) else v for n, v in vectors.items()})
        for i, (p, vectors) in contents.items()
    }


def aliases(client: QdrantClient) -> dict[str, str]:
    return {each.alias_name: each.collection_name for each in client.get_aliases().aliases}


def refused(
    source: Any, place: Any, match: str, config: MigrateConfig = SMALL, encoder: Any = ENCODER
) -> None:
    there = place.location
    with pytest.raises(CsrError, match=match):
        run(source, place, config, encoder)
    assert place.location == there


def busy(status: int) -> Exception:
    from httpx import Headers
    from qdrant_client.http.exceptions import UnexpectedResponse

    return UnexpectedResponse(status, "busy", b"{}", Headers())
