"""Comparing systems: each figure stands with its system and means what it says."""

from pathlib import Path

import numpy as np
import pytest

from csr_qdrant.benchmarks.compare import Task, compare
from csr_qdrant.benchmarks.csr_system import CsrSystem
from csr_qdrant.benchmarks.synthetic import random_codes, random_encoder, random_vectors
from csr_qdrant.benchmarks.systems import DenseSystem, truncated
from csr_qdrant.errors import ConfigError

N, D = 500, 16


def _task(folder: Path) -> Task:
    """Queries that equal documents: query i asks for document 2i, as does its one judgement."""
    vectors = random_vectors(folder / "vectors.npy", N, D)
    query_ids = [f"q{i}" for i in range(40)]
    return Task(
        doc_ids=[f"d{i}" for i in range(N)],
        vectors=vectors,
        query_ids=query_ids,
        queries=np.asarray(vectors[:80:2]),
        qrels={name: {f"d{2 * i}": 1} for i, name in enumerate(query_ids)},
    )


def test_figures_of_each_system(tmp_path: Path) -> None:
    task, encoder = _task(tmp_path), random_encoder(d=D, h=64, k=8)
    systems = [
        DenseSystem(name="exact", m=0),
        truncated(1),
        CsrSystem(name="codes", encode=encoder.encode, k=8, candidates=50),
    ]
    steps: list[str] = []
    exact, cut, codes = compare(systems, task, tmp_path / "shards", timed=7, progress=steps.append)
    assert steps == ["exact neighbours", "exact", "truncated to 1", "codes", "latencies"]
    assert [exact.name, cut.name, codes.name] == ["exact", "truncated to 1", "codes"]
    assert exact.ndcg.tolist() == [1.0] * 40
    assert exact.recall.tolist() == [1.0] * 40
    assert cut.recall.mean() < 0.3
    assert exact.found.rows[:, 0].tolist() == list(range(0, 80, 2))
    assert codes.ndcg.tolist() == [1.0] * 40  # a query's own code is its nearest, then rescored
    assert 0.4 < codes.recall.mean() <= 1
    assert exact.footprint.searched > 10 * cut.footprint.searched
    assert (exact.postings, cut.postings) == (None, None)
    assert codes.postings == pytest.approx(8 * 8 / 64, rel=0.5)
    assert all(0 < found.latency.p50_ms <= found.latency.p99_ms for found in (exact, cut, codes))
    for system in systems:
        system.close()


def test_tasks_and_names_must_fit(tmp_path: Path) -> None:
    task = _task(tmp_path)
    with pytest.raises(ConfigError, match="names of their own, got exact, exact"):
        compare([DenseSystem(name="exact", m=0)] * 2, task, tmp_path / "shards")
    with pytest.raises(ConfigError, match="500 vectors for 499 documents"):
        Task(
            doc_ids=task.doc_ids[1:],
            vectors=task.vectors,
            query_ids=task.query_ids,
            queries=task.queries,
            qrels=task.qrels,
        )
    with pytest.raises(ConfigError, match="in the order of the queries"):
        Task(
            doc_ids=task.doc_ids,
            vectors=task.vectors,
            query_ids=task.query_ids,
            queries=task.queries,
            qrels=dict(reversed(list(task.qrels.items()))),
        )


def test_synthetic_data_is_the_same_every_time(tmp_path: Path) -> None:
    first = random_vectors(tmp_path / "a.npy", 50, 4)
    assert first.tolist() == random_vectors(tmp_path / "b.npy", 50, 4).tolist()
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-6)
    codes = random_codes(1000, h=128, k=8)
    assert codes.equals(random_codes(1000, h=128, k=8))
    assert codes.lengths.tolist() == [8] * 1000
    np.testing.assert_allclose(codes.norms(), 1, rtol=1e-6)
    assert np.bincount(codes.indices, minlength=128).min() > 30
