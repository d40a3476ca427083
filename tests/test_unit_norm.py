"""Queries are encoded as the documents of a collection were: at norm 1 where it keeps these so."""

from pathlib import Path

import numpy as np
import pytest
import qdrant_edge as engine
from qdrant_client import QdrantClient, models

from csr_qdrant.collection import Collection
from csr_qdrant.deployment.attach import AttachConfig, attach, attach_on
from csr_qdrant.deployment.migrate import MigrateConfig, migrate
from csr_qdrant.encoder import Encoder, unit_rows
from csr_qdrant.explain import query_code

N, D = 60, 8
RANDOM = np.random.default_rng(4)
ROWS = (9 * RANDOM.normal(size=(N, D))).astype(np.float32)
ENCODER = Encoder(  # whose codes depend on norms
    weight=RANDOM.normal(size=(64, D)).astype(np.float32),
    latent_bias=np.zeros(64, np.float32),
    pre_bias=RANDOM.normal(size=D).astype(np.float32),
    k=4,
)


def make_shard(folder: Path, distance: engine.Distance) -> None:
    folder.mkdir()
    config = engine.EdgeConfig(vectors={"": engine.EdgeVectorParams(size=D, distance=distance)})
    shard = engine.EdgeShard.create(str(folder), config)
    points = [engine.Point(i, {"": row}, {}) for i, row in enumerate(ROWS.tolist())]
    shard.update(engine.UpdateOperation.upsert_points(points))
    shard.flush()
    shard.close()


def check(collection: Collection, at_norm_1: bool) -> None:
    """Let the documents find themselves, by codes that are equal."""
    assert collection.store.schema.unit_norm == at_norm_1
    hits = collection.search_batch(ROWS, limit=1)
    assert [hit.id for (hit,) in hits] == list(range(N))
    assert [hit.score for (hit,) in hits] == pytest.approx([1.0] * N, abs=1e-4)
    wanted = ENCODER.encode(unit_rows(ROWS[:1]) if at_norm_1 else ROWS[:1]).normalised()
    assert query_code(collection, ROWS[0]).equals(wanted, tolerance=1e-6)


@pytest.mark.parametrize("distance", [engine.Distance.Cosine, engine.Distance.Dot])
def test_attached_codes_find_their_documents(distance: engine.Distance, tmp_path: Path) -> None:
    make_shard(tmp_path / "docs", distance)
    attach(tmp_path / "docs", ENCODER, AttachConfig(device="numpy"))
    with Collection.open(tmp_path / "docs") as docs:
        check(docs, distance == engine.Distance.Cosine)


@pytest.mark.parametrize("drop_dense", [False, True])
def test_copies_find_their_documents(drop_dense: bool, tmp_path: Path) -> None:
    make_shard(tmp_path / "docs", engine.Distance.Cosine)
    config = MigrateConfig(device="numpy", drop_dense=drop_dense)
    migrate(tmp_path / "docs", tmp_path / "copy", ENCODER, config)
    with Collection.open(tmp_path / "copy") as copy:
        check(copy, True)


def test_codes_attached_on_a_server_find_their_documents() -> None:
    client = QdrantClient(":memory:")
    params = models.VectorParams(size=D, distance=models.Distance.COSINE)
    client.create_collection("docs", params)
    points = [models.PointStruct(id=i, vector=row) for i, row in enumerate(ROWS.tolist())]
    client.upsert("docs", points)
    attach_on(client, "docs", ENCODER, AttachConfig(device="numpy"))
    with Collection.open_on(client, "docs", ENCODER) as docs:
        check(docs, True)


def test_unit_rows() -> None:
    rows = unit_rows(np.array([[3, 4], [0, 0]], np.float32))
    assert rows.tolist() == [pytest.approx([0.6, 0.8]), [0, 0]]


def test_rows_are_brought_to_norm_1_as_the_engine_does_it(tmp_path: Path) -> None:
    config = engine.EdgeConfig(
        vectors={"": engine.EdgeVectorParams(size=D, distance=engine.Distance.Cosine)}
    )
    rows = np.tile(ROWS[0] / np.linalg.norm(ROWS[0]), (6, 1)).astype(np.float32)
    rows *= np.array([0, 1e-8, 3e-4, 4e-4, 1, 1e9], np.float32)[:, None]
    shard = engine.EdgeShard.create(str(tmp_path), config)
    points = [engine.Point(i, {"": row}, {}) for i, row in enumerate(rows.tolist())]
    shard.update(engine.UpdateOperation.upsert_points(points))
    records = shard.retrieve(list(range(6)), with_payload=False, with_vector=True)
    stored = np.array([record.vector for record in sorted(records, key=lambda each: each.id)])
    shard.close()
    np.testing.assert_allclose(unit_rows(rows), stored, rtol=1e-5)
    assert np.linalg.norm(stored, axis=1) == pytest.approx([0, 1e-8, 3e-4, 1, 1, 1], rel=1e-5)
