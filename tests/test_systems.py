"""Benchmark systems over real shards: what they find, and what their files weigh."""

from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest

from csr_qdrant.benchmarks.csr_system import CsrSystem
from csr_qdrant.benchmarks.edge_engine import Shard
from csr_qdrant.benchmarks.engine import Asked, DenseVectors, Found, Quantisation
from csr_qdrant.benchmarks.metrics import recall
from csr_qdrant.benchmarks.neighbours import Matrix, exact_neighbours, unit_rows
from csr_qdrant.benchmarks.systems import DenseSystem, System, truncated
from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import ConfigError

N, D, LIMIT = 3000, 32, 10
H = 256


def _data() -> tuple[Matrix, Matrix]:
    """Vectors whose leading dimensions are the stronger ones, and queries near some of them."""
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((N, D)) / np.sqrt(np.arange(1, D + 1))
    queries = vectors[:60] + 0.05 * generator.standard_normal((60, D))
    return vectors.astype(np.float32), queries.astype(np.float32)


VECTORS, QUERIES = _data()
EXACT = exact_neighbours(QUERIES, VECTORS, 100)


def _encode(vectors: npt.NDArray[np.float32]) -> SparseCodes:
    """Return the 32 largest of a fixed random projection: codes that keep much of the geometry."""
    weights = np.random.default_rng(1).standard_normal((H, D)).astype(np.float32)
    projected = vectors @ weights.T
    latents = np.argsort(-projected, axis=1)[:, :32]
    return SparseCodes.from_topk(latents, np.take_along_axis(projected, latents, axis=1), H)


def _found(system: System, folder: Path) -> Found:
    system.build(VECTORS, folder / "shard")
    return system.search(QUERIES, LIMIT)


def _recall(found: Found) -> float:
    return float(recall(found.rows, QUERIES, VECTORS, LIMIT, EXACT).mean())


def _cosines(found: Found) -> npt.NDArray[np.float32]:
    cosines = np.einsum("md,mkd->mk", unit_rows(QUERIES), unit_rows(VECTORS)[found.rows])
    return np.asarray(cosines, np.float32)


def test_exact_search_is_exact_and_weighs_its_vectors(tmp_path: Path) -> None:
    system = DenseSystem(name="exact", m=0)
    found = _found(system, tmp_path)
    np.testing.assert_array_equal(found.rows, EXACT.rows[:, :LIMIT])
    np.testing.assert_allclose(found.scores, EXACT.scores[:, :LIMIT], atol=1e-5)
    size = system.footprint()
    assert size.searched == pytest.approx(4 * D, abs=0.1)
    assert size.rescoring == 0
    assert size.disk > size.searched
    system.close()


def test_timed_calls_give_what_search_gives(tmp_path: Path) -> None:
    systems: list[System] = [
        DenseSystem(name="exact", m=0),
        CsrSystem(name="codes", encode=_encode, k=8),
    ]
    for system in systems:
        found = _found(system, tmp_path / system.name)
        calls = system.calls(QUERIES, LIMIT)
        assert [[hit.id for hit in call()] for call in calls] == found.rows.tolist()
        system.close()


def test_the_graph_finds_nearly_all_and_is_weighed(tmp_path: Path) -> None:
    system = DenseSystem(name="hnsw", m=16, ef=200)
    report = system.build(VECTORS, tmp_path / "shard")
    found = system.search(QUERIES, LIMIT)
    assert _recall(found) > 0.98
    # 32 links of the lowest level at some 12 bits each, beside the vectors.
    assert 4 * D + 30 < system.footprint().searched < 4 * D + 32 * 4
    assert report.optimise_s > 0
    assert report.upload_s > 0
    assert report.total_s == report.upload_s + report.optimise_s
    system.close()


@pytest.mark.parametrize("dims", [4, 16])
def test_truncation_searches_the_first_dimensions(dims: int, tmp_path: Path) -> None:
    system = truncated(dims)
    found = _found(system, tmp_path)
    expected = exact_neighbours(QUERIES[:, :dims], VECTORS[:, :dims], LIMIT)
    assert recall(found.rows, QUERIES[:, :dims], VECTORS[:, :dims], LIMIT, expected).mean() == 1
    assert system.footprint().searched == pytest.approx(4 * dims, abs=0.1)
    assert system.name == f"truncated to {dims}"
    system.close()


def test_truncation_is_rescored_by_whole_vectors(tmp_path: Path) -> None:
    system = truncated(4, candidates=100)
    found = _found(system, tmp_path)
    first = exact_neighbours(QUERIES[:, :4], VECTORS[:, :4], 100)
    for i in range(len(QUERIES)):
        assert set(found.rows[i]) <= set(first.rows[i])
    np.testing.assert_allclose(found.scores, _cosines(found), atol=1e-5)
    plain = exact_neighbours(QUERIES[:, :4], VECTORS[:, :4], LIMIT)
    assert _recall(found) > _recall(Found(plain.rows, plain.scores)) + 0.1
    size = system.footprint()
    assert size.searched == pytest.approx(16, abs=0.1)
    assert size.rescoring == pytest.approx(4 * D, abs=0.1)
    system.close()


QUANTISED = {  # bytes a vector of 32 dimensions, and the least recall
    "binary": (16, 0.15),  # the engine pads to 128 bits
    "int8": (D + 4, 0.9),
    "turbo1": (None, 0.15),
    "turbo1.5": (None, 0.3),
    "turbo2": (None, 0.4),
    "turbo4": (None, 0.75),
    "turbo8": (None, 0.9),
}


@pytest.mark.parametrize("kind", get_args(Quantisation))
def test_quantised_vectors_are_searched_and_rescored(kind: Quantisation, tmp_path: Path) -> None:
    size, least = QUANTISED[kind]
    system = DenseSystem(name=kind, m=0, quantisation=kind)
    plain = _recall(_found(system, tmp_path))
    assert plain > least
    measured = system.footprint()
    assert measured.rescoring == 0
    assert measured.searched < 2 * D
    if size is not None:
        assert measured.searched == pytest.approx(size, abs=0.5)
    rescored = DenseSystem(name="rescored", m=0, quantisation=kind, candidates=200)
    rescored.sharing(system)
    found = rescored.search(QUERIES, LIMIT)
    np.testing.assert_allclose(found.scores, _cosines(found), atol=1e-5)
    assert _recall(found) > min(plain + 0.25, 0.99)
    assert rescored.footprint().rescoring == pytest.approx(4 * D, abs=0.1)
    assert rescored.footprint().searched == measured.searched
    system.close()


def test_codes_are_truncated_normalised_and_scored_by_cosine(tmp_path: Path) -> None:
    system = CsrSystem(name="codes", encode=_encode, k=8, query_k=4)
    found = _found(system, tmp_path)
    documents = _encode(VECTORS).truncated(8).normalised().to_dense()
    queries = _encode(QUERIES).truncated(4).normalised().to_dense()
    scores = queries @ documents.T
    expected = -np.sort(-scores, axis=1)[:, :LIMIT]
    np.testing.assert_allclose(found.scores, expected, atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(scores, found.rows, 1), expected, atol=1e-5)
    touched = (queries > 0) @ (documents > 0).sum(axis=0) / N
    np.testing.assert_allclose(system.postings(QUERIES), touched)
    system.close()


def test_codes_weigh_their_index_only(tmp_path: Path) -> None:
    sizes = {}
    for datatype in ("f32", "f16", "u8"):
        system = CsrSystem(name=datatype, encode=_encode, k=16, datatype=datatype)
        _found(system, tmp_path / datatype)
        sizes[datatype] = system.footprint()
        system.close()
    # 16 postings of 4 bytes and a packed id; lists under 128 entries are not packed.
    assert 16 * 5 < sizes["f32"].searched < 16 * 7
    assert 16 * 2 < sizes["u8"].searched < 16 * 5
    assert sizes["u8"].searched < sizes["f16"].searched < sizes["f32"].searched
    assert {size.rescoring for size in sizes.values()} == {0}


def test_codes_are_rescored_by_dense_vectors(tmp_path: Path) -> None:
    plain = CsrSystem(name="codes", encode=_encode, k=8)
    before = _recall(_found(plain, tmp_path / "plain"))
    system = CsrSystem(name="rescored", encode=_encode, k=8, candidates=200)
    found = _found(system, tmp_path)
    np.testing.assert_allclose(found.scores, _cosines(found), atol=1e-5)
    assert _recall(found) > before + 0.3
    assert system.footprint().rescoring == pytest.approx(4 * D, abs=0.1)
    assert system.footprint().searched == plain.footprint().searched
    plain.close()
    system.close()


def test_rows_and_queries_without_latents_find_nothing(tmp_path: Path) -> None:
    vectors = np.eye(4, dtype=np.float32)

    def encode(rows: npt.NDArray[np.float32]) -> SparseCodes:
        return SparseCodes.from_dense(np.maximum(rows[:, :3], 0))

    system = CsrSystem(name="codes", encode=encode, k=2)
    system.build(vectors, tmp_path / "shard")
    found = system.search(vectors, 3)
    assert found.rows.tolist() == [[0, -1, -1], [1, -1, -1], [2, -1, -1], [-1, -1, -1]]
    assert found.scores[:, 0].tolist() == [1, 1, 1, -np.inf]
    assert [len(call()) for call in system.calls(vectors, 3)] == [1, 1, 1, 0]
    assert system.postings(vectors).tolist() == [0.25, 0.25, 0.25, 0]
    system.close()


def test_a_transform_applies_to_vectors_and_queries(tmp_path: Path) -> None:
    matrix = np.random.default_rng(5).standard_normal((D, 12)).astype(np.float32)
    system = DenseSystem(name="adapter", m=0, transform=lambda vectors: vectors @ matrix)
    found = _found(system, tmp_path)
    expected = exact_neighbours(QUERIES @ matrix, VECTORS @ matrix, LIMIT)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert system.footprint().searched == pytest.approx(48, abs=0.1)
    system.close()


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no quantisation is called 'int4'"):
        DenseSystem(name="x", quantisation="int4")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="changes nothing"):
        DenseSystem(name="x", candidates=10)


def test_searching_twice_the_batch_size_keeps_the_order(tmp_path: Path) -> None:
    shard = Shard(tmp_path / "shard", {"v": DenseVectors(size=2)})
    angles = np.linspace(0, 1, 300)
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    shard.build(300, lambda start, stop: {"v": rows[start:stop]})
    requests = shard.requests(Asked(queries=rows, limit=1, using="v"))
    asked = [None if i % 7 == 0 else request for i, request in enumerate(requests)]
    found = shard.search(asked, 1).rows[:, 0]
    assert found.tolist() == [-1 if i % 7 == 0 else i for i in range(300)]
    shard.close()
