"""Products and the engine find the same; the script records every way at every size."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from csr_qdrant.benchmarks.neighbours import exact_neighbours, unit_rows
from csr_qdrant.benchmarks.products import DenseProduct, SparseProduct, device_of
from csr_qdrant.benchmarks.retrieval_time import (
    ENGINES,
    PRODUCTS,
    RetrievalConfig,
    Ways,
    recorded,
    timed,
)
from csr_qdrant.benchmarks.synthetic import random_codes
from csr_qdrant.errors import ConfigError

N, D, H, K, M, LIMIT = 500, 16, 64, 8, 20, 10
RANDOM = np.random.default_rng(0)
VECTORS = unit_rows(RANDOM.standard_normal((N, D)))
QUERIES = unit_rows(RANDOM.standard_normal((M, D)))
CODES, ASKED = random_codes(N, h=H, k=K), random_codes(M, h=H, k=K, seed=1)
CPU = torch.device("cpu")


@pytest.mark.parametrize("row_block", [7, 128, 1000])
def test_the_dense_product_is_exact_search(row_block: int) -> None:
    found = DenseProduct(VECTORS, CPU, row_block=row_block).search(QUERIES, LIMIT)
    expected = exact_neighbours(QUERIES, VECTORS, LIMIT)
    np.testing.assert_array_equal(found.rows.numpy(), expected.rows)
    np.testing.assert_allclose(found.scores.numpy(), expected.scores, atol=1e-6)


@pytest.mark.parametrize("row_block", [7, 128, 1000])
def test_the_sparse_product_is_the_dense_one_of_the_same_codes(row_block: int) -> None:
    sparse = SparseProduct(CODES, CPU, row_block=row_block).search(ASKED, LIMIT)
    dense = DenseProduct(CODES.to_dense(), CPU).search(ASKED.to_dense(), LIMIT)
    np.testing.assert_allclose(sparse.scores.numpy(), dense.scores.numpy(), atol=1e-6)
    scores = ASKED.to_dense() @ CODES.to_dense().T
    own = np.take_along_axis(scores, sparse.rows.numpy(), axis=1)
    np.testing.assert_allclose(own, sparse.scores.numpy(), atol=1e-6)


def test_fewer_rows_than_asked_for() -> None:
    assert DenseProduct(VECTORS[:3], CPU).search(QUERIES, LIMIT).rows.shape == (M, 3)
    assert SparseProduct(CODES[:3], CPU, row_block=2).search(ASKED, LIMIT).rows.shape == (M, 3)


def test_products_and_the_engine_agree(tmp_path: Path) -> None:
    config = RetrievalConfig(rows=(N,), d=D, hs=(H,), ks=(K,), batch=M, singles=M)
    ways = Ways(VECTORS, CODES, config, tmp_path)
    try:
        calls = ways.calls(QUERIES, ASKED)
        for of_product, of_engine in zip(PRODUCTS, ENGINES, strict=True):
            best, found = calls[of_product](), calls[of_engine]()
            np.testing.assert_allclose(found.scores, best.scores.numpy(), atol=1e-5)
        np.testing.assert_array_equal(calls[ENGINES[0]]().rows, calls[PRODUCTS[0]]().rows.numpy())
        one = ways.calls(QUERIES[:1], ASKED[:1])
        for name in ENGINES:
            scores = [point.score for point in one[name]()]
            np.testing.assert_allclose(scores, calls[name]().scores[0], atol=1e-6)
        found_times = timed(ways, QUERIES, ASKED, config)
    finally:
        ways.close()
    assert set(found_times) == {*PRODUCTS, *ENGINES}
    assert all(value > 0 for each in found_times.values() for value in each.values())


def test_the_grid_is_recorded(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"rows": (60, 90), "hs": (32,), "ks": (2, 4)}
    config = RetrievalConfig(**sizes, d=8, batch=6, singles=2, rounds=1, engine=False)
    told: list[str] = []
    cells, path = recorded(config, tmp_path, told.append)
    assert path == tmp_path / "retrieval_time.json"
    record = json.loads(path.read_text("utf-8"))
    assert record["results"]["cells"] == cells
    assert [(c["rows"], c["h"], c["k"]) for c in cells] == [
        (60, 32, 2),
        (60, 32, 4),
        (90, 32, 2),
        (90, 32, 4),
    ]
    assert {name for cell in cells for name in cell["ways"]} == set(PRODUCTS)
    assert record["params"]["batch"] == 6
    assert told[-1] == "90 rows, h=32, k=4"


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="k may be at most h"):
        RetrievalConfig(hs=(16,), ks=(32,))
    with pytest.raises(ConfigError, match="must be at least 1"):
        RetrievalConfig(rows=())
    with pytest.raises(ConfigError, match=r"1\.\.4 \(batch\), got 5"):
        RetrievalConfig(batch=4, singles=5)
    with pytest.raises(ConfigError, match="no device of torch"):
        device_of("abacus")
    with pytest.raises(ConfigError, match="cpu or cuda, got meta"):
        device_of("meta")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="sees no CUDA device"):
            device_of("cuda")
