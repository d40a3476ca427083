"""What the documentation says must run, and show the recorded figures."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from typer.testing import CliRunner

from csr_qdrant.benchmarks.render import rendered
from csr_qdrant.cli.main import app
from csr_qdrant.deployment.attach import AttachConfig, attach_on
from csr_qdrant.trainer import TrainConfig, fit

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


class Kept(QdrantClient):
    """A server that outlives its connections."""

    def close(self, grpc_grace: float | None = None, **options: Any) -> None:
        """Stay open: the next command connects to the same one."""


@pytest.fixture
def server(vectors: Path, monkeypatch: pytest.MonkeyPatch) -> QdrantClient:
    client = Kept(":memory:")
    monkeypatch.setattr("csr_qdrant.stores.server.connect", lambda *_, **__: client)
    rows = np.load(vectors / "vectors.npy")
    text = models.VectorParams(size=24, distance=models.Distance.COSINE)
    image = models.VectorParams(size=3, distance=models.Distance.COSINE)
    client.create_collection("docs", {"text": text, "image": image})
    points = [models.PointStruct(id=i, vector={"text": v}) for i, v in enumerate(rows.tolist())]
    client.upsert("docs", points)
    return client


def test_the_commands_on_a_collection_run(server: QdrantClient) -> None:
    runner, found = CliRunner(env={"QDRANT_URL": "http://localhost:6333"}), {}
    for command in _code("sh", "csr attach").strip().splitlines()[1:]:
        words = command.split("#")[0].split()[1:]
        if words[0] == "train":
            words += ["--steps", "20", "--h", "128", "--k", "16"]
        if words[0] == "tune":
            words += ["--queries", "20", "--k", "16", "--candidates", "50"]
        result = runner.invoke(app, [*words, "--json", *(["--yes"] * (words[0] == "detach"))])
        assert result.exit_code == 0, (command, result.output)
        # One document, or, of a query, one a line.
        texts = result.stdout.splitlines() if words[0] == "query" else [result.stdout]
        found[words[0]] = [json.loads(text) for text in texts]
    assert (found["attach"][-1]["written"], found["attach"][-1]["complete"]) == (400, True)
    assert [query["hits"][0]["id"] for query in found["query"]] == [0, 1, 2, 3, 4]
    assert set(server.get_collection("docs").config.params.vectors or {}) == {"text", "image"}
    assert not server.get_collection("docs").config.params.sparse_vectors


def test_the_applications_example_runs(vectors: Path, server: QdrantClient) -> None:
    rows = np.load(vectors / "vectors.npy")
    encoder = fit(rows, TrainConfig(k=(16,), h=128, steps=20))
    encoder.save(vectors / "encoder")
    attach_on(server, "docs", encoder, AttachConfig(vector="text"))
    new = models.PointStruct(id=400, vector={"text": (-rows[0]).tolist()})
    example = _code("python", "CsrQdrant").replace("QdrantClient(url)", "server")
    names = {"server": server, "points": [new], "vector": -rows[0]}
    exec(compile(example, "README.md", "exec"), names)
    hits: Any = names["hits"]
    assert hits[0].id == 400 and hits[0].score == pytest.approx(1, abs=1e-4)


def test_a_benchmarks_report_becomes_a_table(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "data" / "bench_report.json", tmp_path / "bench-nave.json")
    block = "<!-- results: bench-nave -->\n<!-- end of results -->"
    new = rendered(block, tmp_path)
    report = json.loads((tmp_path / "bench-nave.json").read_text("utf-8"))
    rows = [line for line in new.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(report["systems"])
    assert report["commit"] in new
    assert rendered(new, tmp_path) == new
