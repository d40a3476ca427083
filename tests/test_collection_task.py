"""A collection's own vectors as a task: held-out queries, exact neighbours, interruptions."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge
from qdrant_client import QdrantClient, models

from csr_qdrant.benchmarks import collection_task as module
from csr_qdrant.benchmarks.collection_task import CollectionTask, collection_task
from csr_qdrant.benchmarks.matrix.config import BenchConfig
from csr_qdrant.benchmarks.matrix.run import run_benchmark
from csr_qdrant.benchmarks.matrix.task import own_vectors
from csr_qdrant.benchmarks.mteb_matrix import unwatched
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.sources import collection_points
from csr_qdrant.sources.collection_points import CollectionVectors

D, N, QUERIES = 6, 200, 25
VECTORS = np.random.default_rng(8).normal(size=(N, D)).astype(np.float32)
UNIT = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)


def _edge(folder: Path, vectors: Any = VECTORS, distance: str = "Cosine") -> Path:
    parameters = qdrant_edge.EdgeVectorParams(
        size=D, distance=getattr(qdrant_edge.Distance, distance)
    )
    shard = qdrant_edge.EdgeShard.create(
        str(folder), qdrant_edge.EdgeConfig(vectors={"text": parameters})
    )
    points = [qdrant_edge.Point(i, {"text": row.tolist()}, {}) for i, row in enumerate(vectors)]
    shard.update(qdrant_edge.UpdateOperation.upsert_points(points))
    shard.flush()
    shard.close()
    return folder


@pytest.fixture
def points(tmp_path: Path) -> Iterator[CollectionVectors]:
    with CollectionVectors.open(_edge(tmp_path / "shard")) as opened:
        yield opened


def _check(task: CollectionTask) -> None:
    """Hold a task against the vectors that the collection was made of."""
    rows = [int(point) for point in task.doc_ids]
    asked = [int(point) for point in task.query_ids]
    assert len(asked) == QUERIES
    assert sorted(rows + asked) == list(range(N))  # held out, and nothing lost
    assert rows == sorted(rows)
    np.testing.assert_allclose(task.vectors, UNIT[rows], atol=1e-6)
    np.testing.assert_allclose(task.queries, UNIT[asked], atol=1e-6)


def test_queries_are_held_out(points: CollectionVectors, tmp_path: Path) -> None:
    task = collection_task(points, tmp_path / "task", queries=QUERIES)
    _check(task)
    assert (task.name, task.distance) == (str(tmp_path / "shard"), "Cosine")
    assert isinstance(task.vectors, np.memmap)
    assert task.doc_ids[3:5] == [task.doc_ids[3], task.doc_ids[4]]
    other = collection_task(points, tmp_path / "other", queries=QUERIES, seed=1)
    assert set(other.query_ids) != set(task.query_ids)


def test_the_same_from_a_server(tmp_path: Path) -> None:
    client = QdrantClient(":memory:")
    client.create_collection(
        "docs", vectors_config=models.VectorParams(size=D, distance=models.Distance.COSINE)
    )
    rows = [models.PointStruct(id=i, vector=row.tolist()) for i, row in enumerate(VECTORS)]
    client.upsert("docs", rows)
    with CollectionVectors.open_on(client, "docs") as points:
        _check(collection_task(points, tmp_path / "task", queries=QUERIES))


def test_systems_are_compared_on_it(
    points: CollectionVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("csr_qdrant.benchmarks.matrix.timing.SECONDS", 0.02)
    read = collection_task(points, tmp_path / "task", queries=QUERIES)
    config = BenchConfig(systems=("truncated",), dims=(2,), candidates=0, timed=5)
    report = run_benchmark(own_vectors(read), config, tmp_path / "b", lambda step: None, unwatched)
    exact, short = report["systems"]
    assert exact["fidelity"]["recall@10"] == 1.0
    assert short["fidelity"]["recall@10"] < 0.7
    assert not exact["quality"]  # nothing is judged
    found = np.load(tmp_path / "b" / "neighbours.npz")["rows"]
    asked, rows = ([int(each) for each in ids] for ids in (read.query_ids, read.doc_ids))
    cosines = UNIT[asked].astype(np.float64) @ UNIT[rows].T.astype(np.float64)
    np.testing.assert_array_equal(found, np.argsort(-cosines, axis=1, kind="stable")[:, :10])


def test_an_interrupted_reading_goes_on(
    points: CollectionVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection_points, "PAGE_VALUES", 16 * D)
    monkeypatch.setattr(module, "RECORD_BYTES", 40 * 4 * D)  # every third block or so
    whole = collection_task(points, tmp_path / "whole", queries=QUERIES)
    blocks, offsets = points.blocks, []

    def failing(size: int = 4096, offset: Any = None) -> Iterator[Any]:
        offsets.append(offset)
        for number, block in enumerate(blocks(size, offset)):
            if len(offsets) < 3 and number == 4:
                raise CsrError("the connection broke")
            yield block

    monkeypatch.setattr(points, "blocks", failing)
    for _ in range(2):
        with pytest.raises(CsrError, match="the connection broke"):
            collection_task(points, tmp_path / "task", queries=QUERIES)
    task = collection_task(points, tmp_path / "task", queries=QUERIES)
    assert offsets[0] is None
    assert 0 < offsets[1] < offsets[2] < N
    _check(task)
    np.testing.assert_array_equal(task.vectors, whole.vectors)


def test_a_finished_reading_is_not_repeated(
    points: CollectionVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection_task(points, tmp_path / "task", queries=QUERIES)
    monkeypatch.setattr(points, "blocks", None)
    monkeypatch.setattr(points, "sample", None)
    _check(collection_task(points, tmp_path / "task", queries=QUERIES))


def test_another_task_or_other_points_are_refused(
    points: CollectionVectors, tmp_path: Path
) -> None:
    folder = tmp_path / "task"
    collection_task(points, folder, queries=QUERIES)
    with pytest.raises(CsrError, match=r"holds another task \(other queries, seed\)"):
        collection_task(points, folder, queries=QUERIES + 1, seed=4)
    points.count += 1
    with pytest.raises(CsrError, match=f"has {N + 1} points now and had {N} when"):
        collection_task(points, folder, queries=QUERIES)
    points.count -= 1
    (folder / "vectors.f32").write_bytes(b"short")
    with pytest.raises(CsrError, match=r"is damaged .*: remove it to read anew"):
        collection_task(points, folder, queries=QUERIES)
    (folder / "task.json").write_text("{}")
    with pytest.raises(CsrError, match=r"task.json is damaged"):
        collection_task(points, folder, queries=QUERIES)
    (folder / "task.json").unlink()
    with pytest.raises(CsrError, match="holds something else: choose an empty folder"):
        collection_task(points, folder, queries=QUERIES)


@pytest.mark.parametrize("queries", [0, N // 2 + 1, N])
def test_too_many_queries_are_refused(
    points: CollectionVectors, tmp_path: Path, queries: int
) -> None:
    with pytest.raises(ConfigError, match=f"choose 1 to {N // 2}, got {queries}"):
        collection_task(points, tmp_path / "task", queries=queries)
    assert not (tmp_path / "task").exists()


@pytest.mark.parametrize(
    ("distance", "unit", "ranks_alike"),
    [
        ("Dot", True, True),
        ("Euclid", True, True),
        ("Dot", False, False),
        ("Euclid", False, False),
        ("Manhattan", True, False),
    ],
)
def test_other_distances_are_taken_where_they_rank_as_the_cosine(
    tmp_path: Path, distance: str, unit: bool, ranks_alike: bool
) -> None:
    vectors = UNIT if unit else VECTORS
    with CollectionVectors.open(_edge(tmp_path / "shard", vectors, distance)) as points:
        if ranks_alike:
            _check(collection_task(points, tmp_path / "task", queries=QUERIES))
            return
        with pytest.raises(ConfigError, match=f"compares by {distance}, and not as the cosine"):
            collection_task(points, tmp_path / "task", queries=QUERIES)
        task = collection_task(points, tmp_path / "task", queries=QUERIES, by_cosine=True)
    rows = [int(point) for point in task.doc_ids]
    np.testing.assert_allclose(task.vectors, vectors[rows], atol=1e-6)
    assert json.loads((tmp_path / "task" / "task.json").read_text())["distance"] == distance
