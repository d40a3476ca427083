"""What the documentation says must run, and show the recorded figures."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from csr_qdrant.benchmarks.render import rendered
from csr_qdrant.cli.main import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
RESULTS = ROOT / "benchmarks" / "results"


def _code(language: str, containing: str) -> str:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return next(block for block in blocks if containing in block)


@pytest.fixture
def vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((20, 24))
    rows = centres[rng.integers(20, size=400)] + 0.3 * rng.standard_normal((400, 24))
    np.save(tmp_path / "vectors.npy", rows.astype(np.float32))
    np.save(tmp_path / "queries.npy", rows[:5].astype(np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["README.md", "docs/benchmarks.md"])
def test_tables_are_those_of_the_records(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert rendered(text, RESULTS) == text, "run: python -m csr_qdrant.benchmarks.render"


def test_a_table_changes_with_its_record(tmp_path: Path) -> None:
    record = {
        "benchmark": "memory_index",
        "params": {"rows": 1000},
        "results": {
            "index_vectors": {"peak_rss_anon_gb": 1.25, "seconds": 3.0},
            "difference_gb": 0.25,
            "goal_below_gb": 0.5,
        },
        "machine": {"cores": 2, "cpu": "a processor", "memory_gib": 24.0},
        "versions": {"python": "3.11", "qdrant-edge-py": "0.9.0"},
        "commit": "abc",
    }
    (tmp_path / "memory_index.json").write_text(json.dumps(record))
    text = "before\n<!-- results: memory_index -->\nold\n<!-- end of results -->\nafter"
    new = rendered(text, tmp_path)
    assert "old" not in new and new.startswith("before\n") and new.endswith("\nafter")
    assert "| index_vectors | 1.25 | 3 |" in new and "**0.25 GB**" in new


def test_the_python_example_runs(vectors: Path) -> None:
    example = _code("python", "Collection").replace("minutes=5", "h=128, steps=20")
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    hits = names["hits"]
    assert isinstance(hits, list) and len(hits) == 10
    assert hits[0].id == 0 and hits[0].score == pytest.approx(1, abs=1e-4)
    assert (vectors / "encoder" / "model.safetensors").is_file()


def test_the_commands_run(vectors: Path) -> None:
    commands = _code("sh", "csr train").strip().splitlines()
    runner = CliRunner()
    for command in commands:
        words = command.split("#")[0].split()[1:]
        if words[0] == "train":
            words += ["--steps", "20", "--h", "128"]
        words += ["--json"]
        result = runner.invoke(app, words)
        assert result.exit_code == 0, result.output
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [query["hits"][0]["id"] for query in found] == [0, 1, 2, 3, 4]


def test_a_benchmarks_report_becomes_a_table(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "data" / "bench_report.json", tmp_path / "bench-nave.json")
    block = "<!-- results: bench-nave -->\n<!-- end of results -->"
    new = rendered(block, tmp_path)
    report = json.loads((tmp_path / "bench-nave.json").read_text("utf-8"))
    rows = [line for line in new.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(report["systems"])
    assert report["commit"] in new
    assert rendered(new, tmp_path) == new
