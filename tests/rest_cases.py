"""Work over REST or gRPC that is disturbed, and the same work left in peace; not a test itself."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from csr_qdrant.stores.edge_folder import read_description
from csr_qdrant.stores.server import connect
from csr_qdrant.stores.server_config import own_metadata

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import (
    ClientTarget,
    EdgeTarget,
    check_codes,
    encoder_of,
    vectors_of,
    without_codes,
)
from grpc_server import GrpcServer
from rest_server import RestServer

WORKER = Path(__file__).with_name("rest_worker.py")
ENCODER = encoder_of()
CASES = ["index", "attach", "migrate", "migrate-from-edge", "migrate-to-edge"]


class Case:
    """One kind of work, done twice: once in peace, and once with kills and lost connections."""

    def __init__(self, what: str, server: RestServer | GrpcServer, folder: Path, n: int) -> None:
        self.what, self.server, self.folder, self.n = what, server, folder, n
        self.client = connect(server.url, **server.connection)
        ENCODER.save(folder / "encoder")
        self.before: dict[Any, Any] = {}
        self.source = self._source()
        if what == "migrate":
            for name in ("whole", "killed"):
                alias_to(self.client, f"live-{name}", "source")

    def _source(self) -> Any:
        if self.what == "index":
            np.save(self.folder / "rows.npy", vectors_of(self.n))
            return str(self.folder / "rows.npy")
        if self.what == "migrate-from-edge":
            shard = EdgeTarget(self.folder / "source")
            shard.upsert(range(self.n), vectors_of(self.n))
            self.before = shard.contents()
            return str(shard.folder)
        for name in ("killed", "whole") if self.what == "attach" else ("source",):
            made = ClientTarget(self.client, name)
            made.upsert(range(self.n), vectors_of(self.n))
            self.before = made.contents()
        return "source"

    def arguments(self, name: str) -> dict[str, Any]:
        """Return what a worker needs to know; `name` is that of what it makes or changes."""
        target = str(self.folder / name) if self.what == "migrate-to-edge" else name
        found = {
            "what": self.what.partition("-")[0],
            "url": self.server.url,
            "connection": self.server.connection,
            "encoder": str(self.folder / "encoder"),
            "source": self.source,
            "target": target,
        }
        return found | ({"alias": f"live-{name}"} if self.what == "migrate" else {})

    def contents(self, name: str) -> dict[Any, Any]:
        target: Any = EdgeTarget if self.what == "migrate-to-edge" else ClientTarget
        opened = target.__new__(target)
        opened.folder = self.folder / name / "shard"
        opened.client, opened.name = self.client, name
        found: dict[Any, Any] = opened.contents()
        return found

    def description(self, name: str) -> Any:
        """Return what is recorded beside the points."""
        if self.what == "migrate-to-edge":
            return read_description(self.folder / name)
        records = own_metadata(self.client.get_collection(name))
        return {
            key: {**each, "alias": None} if isinstance(each, dict) else each
            for key, each in records.items()
        }


def check_equal(case: Case) -> None:
    """Raise unless what was disturbed is what was left in peace."""
    after = case.contents("killed")
    assert sorted(after) == list(range(case.n))
    assert_same(after, case.contents("whole"))
    assert case.description("killed") == case.description("whole")
    if case.what == "index":
        check_codes({i: (p, {"text": v["dense"], **v}) for i, (p, v) in after.items()}, ENCODER)
        return
    check_codes(after, ENCODER)
    assert_same(without_codes(after), case.before)
    if case.what == "migrate":
        aliases = case.client.get_aliases().aliases
        names = {each.alias_name: each.collection_name for each in aliases}
        assert names == {"live-whole": "whole", "live-killed": "killed"}


def alias_to(client: QdrantClient, alias: str, name: str) -> None:
    create = models.CreateAlias(collection_name=name, alias_name=alias)
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])


def assert_same(found: dict[Any, Any], wanted: dict[Any, Any]) -> None:
    """Compare contents; engines round what they bring to norm 1 more than once by themselves."""
    assert found.keys() == wanted.keys()
    for point, (payload, vectors) in wanted.items():
        assert found[point][0] == payload
        assert found[point][1].keys() == vectors.keys()
        for name, each in vectors.items():
            if name == "csr":
                assert found[point][1][name][0] == each[0]
            other = np.asarray(found[point][1][name], np.float32)
            np.testing.assert_allclose(other, np.asarray(each, np.float32), rtol=3e-7)
