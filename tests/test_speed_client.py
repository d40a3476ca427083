"""The script behind the figure of CsrQdrant's overhead runs, and both of its calls agree."""

import json
from pathlib import Path

import numpy as np
import pytest

from csr_qdrant.benchmarks import speed_client
from csr_qdrant.benchmarks.synthetic import random_encoder
from csr_qdrant.client import CsrQdrant


def test_speed_client(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speed_client.main(rows=30, d=16, h=64, k=4, queries=3, repeats=2, output=tmp_path)
    results = json.loads((tmp_path / "speed_client.json").read_text("utf-8"))["results"]
    assert results.pop("goal_at_most") == speed_client.GOAL
    assert len(results) == 4
    for found in results.values():
        encode, both, ours = (
            found[name]["p50_ms"] for name in ("encode", "encode_then_raw", "query")
        )
        assert found["ratio_beyond_encoding"] == pytest.approx((ours - encode) / (both - encode))
    assert "speed_client: http stub, by code: p50" in capsys.readouterr().out


@pytest.mark.parametrize("rescore", [0, 20])
def test_raw_and_our_queries_find_the_same(rescore: int) -> None:
    encoder, random = random_encoder(d=16, h=64, k=4), np.random.default_rng(0)
    client = speed_client.filled(encoder, random.standard_normal((30, 16)).astype(np.float32))
    queries = random.standard_normal((3, 16)).astype(np.float32)
    raw = speed_client.raw_calls(client, encoder, queries, rescore)
    for call, query in zip(raw, queries, strict=True):
        ours = CsrQdrant(client, encoder).query("c", query, limit=10, rescore=rescore)
        expected = call()
        assert ours.points and [p.id for p in ours.points] == [p.id for p in expected.points]
        scores = [point.score for point in expected.points]
        assert [point.score for point in ours.points] == pytest.approx(scores, abs=1e-5)
        assert [p.payload for p in ours.points] == [p.payload for p in expected.points]
