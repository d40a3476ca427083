"""Collections in strict mode: our requests stay within what their administrator allows."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grpc import RpcError  # type: ignore[import-untyped]
from httpx import Headers
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from csr_qdrant.collection import Collection
from csr_qdrant.deployment.attach import AttachConfig, attach_on
from csr_qdrant.deployment.detach import detach_on
from csr_qdrant.deployment.migrate import MigrateConfig, migrate
from csr_qdrant.errors import CsrError
from csr_qdrant.integrations.ray import CsrWrite
from csr_qdrant.sources.collection_points import CollectionVectors
from csr_qdrant.stores.server import connect

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import ClientTarget, check_codes, encoder_of, vectors_of, without_codes
from engines import LANGUAGES, open_server
from rest_cases import assert_same

N = 150
STRICT = models.StrictModeConfig(
    enabled=True,
    max_query_limit=20,
    upsert_max_batchsize=10,
    search_allow_exact=False,
    condition_max_size=5,
    filter_max_conditions=2,
)
ATTACH = AttachConfig(vector="text", device="numpy")


@pytest.fixture(params=LANGUAGES)
def client(request: pytest.FixtureRequest) -> Iterator[QdrantClient]:
    with open_server(request.param) as server:
        made = connect(server.url, **server.connection)
        yield made
        made.close()


@pytest.fixture
def target(client: QdrantClient) -> ClientTarget:
    made = ClientTarget(client, "docs")
    made.upsert(range(N), vectors_of(N))
    client.update_collection("docs", strict_mode_config=STRICT)
    return made


@contextmanager
def lenient(client: QdrantClient, name: str = "docs") -> Iterator[None]:
    """Let the test itself do as it likes."""
    off = models.StrictModeConfig(enabled=False)
    client.update_collection(name, strict_mode_config=off)
    yield
    client.update_collection(name, strict_mode_config=STRICT)


def contents(target: ClientTarget) -> Any:
    with lenient(target.client, target.name):
        return target.contents()


def test_the_server_of_the_tests_is_strict(client: QdrantClient, target: ClientTarget) -> None:
    ids = models.Filter(must=[models.HasIdCondition(has_id=list(range(6)))])
    vectors = [models.PointVectors(id=i, vector={"text": [0.5] * 8}) for i in range(11)]
    for ask in (
        lambda: client.scroll("docs", limit=21),
        lambda: client.count("docs", exact=True),
        lambda: client.delete_vectors("docs", ["text"], ids),
        lambda: client.update_vectors("docs", vectors),
    ):
        with pytest.raises((UnexpectedResponse, RpcError), match="Bad request"):
            ask()


def test_attach_and_detach(client: QdrantClient, target: ClientTarget) -> None:
    before = contents(target)
    report = attach_on(client, "docs", encoder_of(), ATTACH)
    assert report.complete and report.written == report.coded == report.points == N
    check_codes(contents(target), encoder_of())
    assert detach_on(client, "docs").codes == N
    assert contents(target) == before


def test_attach_mends_and_removes(client: QdrantClient, target: ClientTarget) -> None:
    attach_on(client, "docs", encoder_of(), ATTACH)
    with lenient(client):
        target.change(range(30), vectors_of(30, seed=5))
        target.change(range(30, 60), np.zeros((30, 8), np.float32))
        target.drop_dense(list(range(60, 90)))
    config = AttachConfig(vector="text", device="numpy", remove_orphans=True)
    report = attach_on(client, "docs", encoder_of(), config)
    assert (report.rewritten, report.removed, report.bad, report.orphans) == (30, 60, 30, 0)
    assert report.complete and report.coded == N - 60


def test_ray_writes_onto_attached_points(client: QdrantClient, target: ClientTarget) -> None:
    encoder = encoder_of()
    attach_on(client, "docs", encoder, ATTACH)
    before, changed = contents(target), vectors_of(N, seed=3)
    changed[7:40] = 0  # more than one request may name
    write = CsrWrite("docs", encoder, connect=lambda: client)
    told = write({"id": np.arange(N), "vector": changed})
    assert [int(told[name][0]) for name in ("rows", "without_code", "missing")] == [N, 33, 0]
    after = contents(target)
    assert without_codes(after) == without_codes(before)
    codes = list(encoder.encode(changed).normalised().to_lists())
    for point, (_, vectors) in after.items():
        code = vectors.get("csr")
        assert (code[0] if code else []) == ([] if 7 <= point < 40 else codes[point][0])


def test_migrate(client: QdrantClient, target: ClientTarget) -> None:
    config = MigrateConfig(vector="text", device="numpy")
    report = migrate((client, "docs"), (client, "copy"), encoder_of(), config)
    assert report.complete and report.copied == report.coded == N
    assert client.get_collection("copy").config.strict_mode_config == models.StrictModeConfigOutput(
        **STRICT.model_dump(exclude_none=True)
    )
    copy = ClientTarget.__new__(ClientTarget)
    copy.client, copy.name = client, "copy"
    assert_same(without_codes(contents(copy)), contents(target))


def test_read_for_training(client: QdrantClient, target: ClientTarget) -> None:
    with CollectionVectors.open_on(client, "docs", "text") as source:
        assert len(source) == N
        rows = np.concatenate([block.vectors for block in source.blocks()])
        assert len(source.sample(50).ids) == 50
    np.testing.assert_array_equal(rows, vectors_of(N))


def test_a_collection_of_codes(client: QdrantClient) -> None:
    with Collection.create_on(client, "own", encoder_of()) as collection:
        client.update_collection("own", strict_mode_config=STRICT)
    with Collection.open_on(client, "own", encoder_of()) as collection:
        collection.add(list(range(N)), vectors=vectors_of(N))
        assert len(collection) == N
        assert [hits[0].id for hits in collection.search_batch(vectors_of(20)[:20])] == list(
            range(20)
        )


def test_a_full_collection_is_said_to_be_full(
    client: QdrantClient, target: ClientTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def full(*_: object, **__: object) -> None:
        asked.append(1)
        message = b'{"status": {"error": "Max points count limit of 9 reached!"}}'
        raise UnexpectedResponse(400, "Bad Request", message, Headers())

    monkeypatch.setattr(client, "update_vectors", full)
    with pytest.raises(CsrError, match="Max points count limit of 9 reached!"):
        attach_on(client, "docs", encoder_of(), ATTACH)
    assert len(asked) <= 4  # threads that write at a time
