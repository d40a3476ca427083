"""The scripts behind the published figures run, at small sizes, and record what they say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.benchmarks import (
    memory_attach,
    memory_index,
    memory_migrate,
    speed_attach,
    speed_encode,
    speed_index,
    speed_search,
)
from csr_qdrant.benchmarks.memory_peaks import peak_of
from csr_qdrant.benchmarks.synthetic import random_encoder, random_vectors
from csr_qdrant.errors import CsrError


def _record(folder: Path, name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / f"{name}.json").read_text("utf-8"))
    assert record["benchmark"] == name
    return record


def test_speed_encode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speed_encode.main(rows=500, d=16, h=64, k=4, rounds=2, output=tmp_path)
    results = _record(tmp_path, "speed_encode")["results"]
    for kind, goal in (("torch", 1.4), ("numpy", 2.0)):
        found = results[kind]
        assert found["ratio"] == pytest.approx(found["encode_s"] / found["product_s"])
        assert found["goal_at_most"] == goal
    assert "speed_encode: torch: encode" in capsys.readouterr().out


def test_speed_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speed_search.main(rows=300, d=16, h=64, k=4, queries=5, repeats=2, output=tmp_path)
    results = _record(tmp_path, "speed_search")["results"]
    raw = results["raw"]["p50_ms"]
    assert results["ratio_by_codes"] == pytest.approx(results["search_codes"]["p50_ms"] / raw)
    encode = results["encode"]["p50_ms"]
    beyond = [results[name]["p50_ms"] - encode for name in ("search_vector", "encode_then_raw")]
    assert results["ratio_by_vector_beyond_encoding"] == pytest.approx(beyond[0] / beyond[1])
    assert "goal: at most 1.2" in capsys.readouterr().out


def test_raw_and_our_searches_find_the_same(tmp_path: Path) -> None:
    queries = np.array(random_vectors(tmp_path / "queries.npy", 5, 16))
    with speed_search.filled(tmp_path / "c", random_encoder(d=16, h=64, k=4), 300) as collection:
        raw = [call() for call in speed_search.raw_calls(collection, queries)]
        ours = speed_search.our_calls(collection, queries)
        for name in ("search_codes", "search_vector"):
            found = [call() for call in ours[name]]
            for hits, expected in zip(found, raw, strict=True):
                scores = [point.score for point in expected]
                assert [hit.score for hit in hits] == pytest.approx(scores, abs=1e-5)
                assert [hit.payload for hit in hits] == [point.payload for point in expected]


def test_speed_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speed_index.main(rows=600, h=64, k=4, rounds=1, output=tmp_path)
    results = _record(tmp_path, "speed_index")["results"]
    rates = results["points_per_s"]
    loops = {name: rate for name, rate in rates.items() if name.split()[-1].isdigit()}
    assert results["fastest_loop"] == max(loops, key=lambda name: loops[name])
    assert results["ratio"] == pytest.approx(rates["ours"] / max(loops.values()))
    assert set(loops) == {"loop of 64", "loop of 256", "loop of 1024"}
    building = rates["loop of 256 that builds its points"]
    assert results["ratio_to_building_loop"] == pytest.approx(rates["ours"] / building)
    assert "goal: at least 0.8" in capsys.readouterr().out


def test_speed_attach(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speed_attach.main(rows=600, d=16, h=64, k=4, rounds=1, output=tmp_path)
    results = _record(tmp_path, "speed_attach")["results"]
    rates, seconds = results["points_per_s"], results["seconds"]
    loops = [f"loop of {size}" for size in (64, 256, 1024)]
    assert set(rates) >= {"attach", "verify", *loops}
    assert all(rates[name] == pytest.approx(600 / taken[0]) for name, taken in seconds.items())
    assert results["fastest_loop"] == max(loops, key=lambda name: rates[name])
    assert results["ratio"] == pytest.approx(rates["attach"] / rates[results["fastest_loop"]])
    assert "goal: at least 0.8" in capsys.readouterr().out


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.parametrize(
    ("module", "ours", "loop"),
    [
        (memory_index, "index_vectors", "upsert_codes"),
        (memory_attach, "attach", "loop"),
        (memory_migrate, "migrate", "loop"),
    ],
)
def test_memory(
    module: Any, ours: str, loop: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"optimise": True} if module is memory_index else {}
    module.main(rows=700, d=16, h=64, k=4, folder=tmp_path, output=tmp_path, run=None, **more)
    name = module.__name__.rpartition(".")[2]
    results = _record(tmp_path, name)["results"]
    peaks = [results[run]["peak_rss_anon_gb"] for run in (ours, loop)]
    assert min(peaks) > 0.01
    assert results["difference_gb"] == pytest.approx(peaks[0] - peaks[1])
    assert "goal: below 0.5" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.json"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_a_failed_run_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(CsrError, match="upsert_codes ended with status 1"):
        peak_of(memory_index.__name__, "upsert_codes", tmp_path, "--no-optimise")
