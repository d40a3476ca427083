"""The cost model recovers known costs and foretells what it says; runs on real shards."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from csr_qdrant.benchmarks import scale
from csr_qdrant.benchmarks.scale_model import (
    LatencyModel,
    MemoryModel,
    Sizes,
    Timings,
    fit_latency,
    fit_memory,
    predict,
)
from csr_qdrant.benchmarks.scale_report import ScaleConfig, lines, to_json
from csr_qdrant.benchmarks.synthetic import random_codes
from csr_qdrant.errors import ConfigError
from csr_qdrant.stores.base import Datatype

TRUE = LatencyModel(0.02, 7e-7, 9e-6)
MEMORY = MemoryModel(5.3, 40.0)


def _timings(model: LatencyModel = TRUE, noise: float = 0.0) -> Timings:
    random = np.random.default_rng(0)
    rows = np.repeat([1e5, 2e5, 4e5], 200)
    postings = rows * random.uniform(0.02, 0.4, len(rows))
    measured = model.predict(rows, postings) * np.exp(noise * random.standard_normal(len(rows)))
    return Timings(rows, postings, measured)


def test_exact_timings_give_their_costs_back() -> None:
    fitted = fit_latency(_timings())
    assert fitted.call_ms == pytest.approx(TRUE.call_ms, rel=1e-6)
    assert fitted.document_ms == pytest.approx(TRUE.document_ms, rel=1e-6)
    assert fitted.posting_ms == pytest.approx(TRUE.posting_ms, rel=1e-6)
    assert fitted.residuals(_timings()).largest < 1e-6


def test_interrupted_queries_hardly_pull() -> None:
    timings = _timings(noise=0.05)
    slow = timings.latency_ms.copy()
    slow[::10] *= 8
    disturbed = timings._replace(latency_ms=slow)
    fitted = fit_latency(disturbed)
    at = (1e6, 2e5)
    assert float(fitted.predict(*at)) == pytest.approx(float(TRUE.predict(*at)), rel=0.1)
    found = fitted.residuals(disturbed)
    assert found.median < 0.06
    assert found.largest > 0.8


def test_costs_are_never_negative() -> None:
    fitted = fit_latency(_timings(LatencyModel(-0.05, 1e-6, 9e-6)))
    assert fitted.call_ms == 0
    assert fitted.document_ms > 0
    assert fitted.posting_ms > 0


def test_the_index_is_so_many_bytes_a_posting_and_a_list() -> None:
    postings, lists = np.array([1e5, 2e5, 4e5]), np.array([900.0, 1000.0, 1000.0])
    fitted = fit_memory(Sizes(postings, lists, 5.3 * postings + 40 * lists))
    assert fitted.posting_bytes == pytest.approx(5.3, rel=1e-6)
    assert fitted.list_bytes == pytest.approx(40, rel=1e-6)


def test_predictions_are_the_models() -> None:
    def foretold(rows: int, shards: int, merge_ms: float = 0.05) -> tuple[float, float]:
        found = predict(
            TRUE,
            MEMORY,
            rows=rows,
            shards=shards,
            touched_share=0.1,
            postings_a_row=32.0,
            lists=4000,
            merge_ms=merge_ms,
        )
        return found.p50_ms, found.ram_gb

    one, four = foretold(10_000_000, 1), foretold(40_000_000, 4)
    assert one[0] == pytest.approx(0.02 + 7 + 9)
    assert one[1] == pytest.approx((5.3 * 320e6 + 40 * 4000) / 1e9)
    # Four times the documents over four shards: the same search, its merging, four times the RAM.
    assert four[0] == pytest.approx(one[0] + 4 * 0.05)
    assert four[1] == pytest.approx(4 * one[1])
    assert foretold(40_000_000, 4, merge_ms=0)[0] == pytest.approx(one[0])
    # Of unequal parts the largest decides.
    assert foretold(3, 2, merge_ms=0)[0] == pytest.approx(0.02 + 2 * 7e-7 + 0.2 * 9e-6)
    with pytest.raises(ConfigError, match="1 <= shards <= rows, got 5 and 4"):
        foretold(4, 5)


def test_too_little_to_fit_is_refused() -> None:
    timings = _timings()
    with pytest.raises(ConfigError, match="600 timings of 1 sizes"):
        fit_latency(timings._replace(rows=np.full(600, 1e5)))
    with pytest.raises(ConfigError, match="three timings above 0 ms"):
        fit_latency(timings._replace(latency_ms=np.zeros(600)))
    with pytest.raises(ConfigError, match="two sizes"):
        fit_memory(Sizes(np.ones(2), np.ones(2), np.ones(2)))
    with pytest.raises(ConfigError, match="two sizes"):
        ScaleConfig(fitted=(100, 100))
    with pytest.raises(ConfigError, match="f32 or u8, got 'f64'"):
        ScaleConfig(datatype="f64")  # type: ignore[arg-type]


@pytest.mark.parametrize("datatype", ["f32", "u8"])
def test_sizes_are_measured_fitted_and_checked(datatype: Datatype, tmp_path: Path) -> None:
    codes, asked = random_codes(1500, h=64, k=8), random_codes(12, h=64, k=8, seed=1)
    config = ScaleConfig(
        fitted=(500, 1000), checked=(1500,), k=8, query_ks=(2, 8), datatype=datatype, queries=12
    )
    scaled = scale.run(codes, asked, config, tmp_path)
    assert list(scaled.sizes) == [500, 1000, 1500]
    for n, size in scaled.sizes.items():
        assert size.postings == 8 * n
        assert size.lists == 64
        # What a query touches: the documents that hold each of its latents, counted once a latent.
        dense = codes[:n].to_dense() > 0
        touched = (asked.truncated(2).to_dense() > 0) @ dense.sum(axis=0)
        np.testing.assert_array_equal(size.timings[2].postings, touched)
        assert (size.timings[8].postings > size.timings[2].postings).all()
    found = json.loads(json.dumps(to_json(scaled, config)))
    assert [size["fitted"] for size in found["sizes"]] == [True, True, False]
    for size in found["sizes"]:
        each = size["p50_by_query_k"]["8"]
        assert each["relative_error"] == pytest.approx(
            each["predicted_ms"] / each["measured_ms"] - 1
        )
        # u8 packs ids of whole blocks of 128 only, so such short lists are not in proportion.
        assert abs(size["index_relative_error"]) < (0.1 if datatype == "f32" else 0.4)
    assert len(found["predicted"]) == 8
    assert found["residuals_checked"]["largest"] >= found["residuals_checked"]["median"]
    unchecked = scale.run(codes, asked, replace(config, checked=()), tmp_path / "again")
    assert unchecked.checked is None


def test_a_file_of_vectors_is_recorded(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((400, 16)).astype(np.float32)
    np.save(tmp_path / "x.npy", vectors)
    results, path = scale.simulated(
        vectors=tmp_path / "x.npy",
        fitted=(200, 400),
        checked=(600,),
        h=64,
        k=8,
        steps=3,
        datatype="u8",
        queries=10,
        output=tmp_path,
    )
    assert path == tmp_path / "scale-u8.json"
    record = json.loads(path.read_text("utf-8"))
    assert record["results"] == json.loads(json.dumps(results))
    assert record["params"]["query_ks"] == [4, 8]
    assert [size["rows"] for size in results["sizes"]] == [200, 400, 600]
    assert any("600 (not fitted)" in f"{name} {line}" for name, line in lines(results))
