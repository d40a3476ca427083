"""Measurements: percentiles, turns, memory, and what a record says about its origin."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from csr_qdrant.benchmarks import measure
from csr_qdrant.benchmarks.record import write_record
from csr_qdrant.errors import ConfigError


def test_systems_take_turns_query_by_query() -> None:
    made: list[tuple[str, int]] = []

    def call(name: str, query: int) -> Callable[[], None]:
        return lambda: made.append((name, query))

    calls = {name: [call(name, query) for query in range(30)] for name in "abc"}
    found = measure.latencies(calls, warm_up=1, repeats=2)
    assert made[:3] == [("a", 0), ("b", 0), ("c", 0)]
    turns = [made[at : at + 3] for at in range(3, len(made), 3)]
    assert [{query for _, query in turn} for turn in turns] == [{i} for i in range(30)] * 2
    assert all(sorted(name for name, _ in turn) == ["a", "b", "c"] for turn in turns)
    # Nobody always comes after the same other one.
    assert len({"".join(name for name, _ in turn) for turn in turns}) == 6
    assert list(found) == ["a", "b", "c"]


def test_latencies_are_in_milliseconds() -> None:
    calls = {"slow": [lambda: time.sleep(0.02)] * 5, "fast": [lambda: None] * 5}
    found = measure.latencies(calls, warm_up=0)
    assert 20 <= found["slow"].p50_ms < 200
    assert found["fast"].p50_ms < 5
    assert measure.latency_of([0.001, 0.002, 0.003]) == pytest.approx((2, 2.9, 2.98))


def test_unequal_numbers_of_calls_are_refused() -> None:
    with pytest.raises(ConfigError, match="'a': 1, 'b': 2"):
        measure.latencies({"a": [int], "b": [int, int]})
    with pytest.raises(ConfigError, match=r"got \{\}"):
        measure.latencies({})


def test_interleaved_medians_are_in_seconds() -> None:
    found = measure.interleaved_medians({"nap": lambda: time.sleep(0.03)}, 3)
    assert 0.03 <= found["nap"] < 0.3


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_anonymous_memory_grows_with_arrays_but_not_with_maps(tmp_path: Path) -> None:
    size = 64 << 20
    np.zeros(size, np.uint8).tofile(tmp_path / "file")
    before = measure.rss_anon_bytes()
    mapped = np.memmap(tmp_path / "file", np.uint8, "r")
    assert mapped.sum() == 0
    assert measure.rss_anon_bytes() - before < size / 4
    held = np.ones(size, np.uint8)
    assert held[0]
    assert size * 0.9 < measure.rss_anon_bytes(os.getpid()) - before < size * 1.3


def test_a_record_says_where_it_comes_from(tmp_path: Path) -> None:
    path = write_record("nap", {"rounds": 3}, {"nap_s": 0.03}, tmp_path / "results")
    written = json.loads(path.read_text("utf-8"))
    assert path == tmp_path / "results" / "nap.json"
    assert written["benchmark"] == "nap"
    assert (written["params"], written["results"]) == ({"rounds": 3}, {"nap_s": 0.03})
    assert written["machine"]["cores"] == os.cpu_count()
    assert written["machine"]["cpu"]
    assert written["versions"]["numpy"] == np.__version__
    assert set(written) == {"benchmark", "params", "results", "versions", "machine", "commit"}
