"""CSR against HNSW at equal recall: what is compared with what, and the record."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from csr_qdrant.benchmarks.equal_recall import EqualRecallConfig, Point, equals, main
from csr_qdrant.benchmarks.render import rendered
from csr_qdrant.errors import ConfigError


def point(recall: float, p50_ms: float) -> Point:
    return Point(f"{recall} {p50_ms}", recall, p50_ms, p50_ms, None)


def test_the_fastest_of_at_least_the_recall_counts() -> None:
    graphs = [point(0.9, 1.0), point(0.99, 2.0)]
    codes = [point(0.89, 0.1), point(0.9, 3.0), point(0.95, 0.5)]
    low, high = equals(graphs, codes)
    assert low.codes == codes[2] and low.ratio == 0.5
    assert high.codes is None and high.ratio is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"k": 8}, "query latents are 8"),
        ({"efs": ()}, "each need a value"),
        ({"candidates": ()}, "each need a value"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        EqualRecallConfig(**settings)  # type: ignore[arg-type]


def test_the_command_records_what_it_measured(tmp_path: Path) -> None:
    centres = np.random.default_rng(0).standard_normal((30, 16))
    noise = np.random.default_rng(1).standard_normal((600, 16))
    rows = centres[np.arange(600) % 30] + 0.3 * noise
    np.save(tmp_path / "rows.npy", rows.astype(np.float32))
    app = typer.Typer()
    app.command()(main)
    settings = [
        "--name",
        "few",
        "--rows",
        "1000",
        "--h",
        "128",
        "--steps",
        "50",
        "--queries",
        "20",
    ]
    words = [str(tmp_path / "rows.npy"), *settings, "--output", str(tmp_path)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "equal_recall-few.json").read_text("utf-8"))
    points = {each["name"]: each for each in record["results"]["points"]}
    # So few rows are all candidates: codes of many latents miss next to nothing.
    assert points["codes, 32 query latents, 400 candidates"]["recall"] > 0.95
    assert points["HNSW, ef 256"]["recall"] > 0.99
    assert record["params"]["d"] == 16
    text = rendered("<!-- results: equal_recall-few -->\n<!-- end of results -->", tmp_path)
    assert text.count("| HNSW, ef") == 5 and "python -m csr_qdrant.benchmarks.equal_recall" in text
