"""`csr doctor`: what it finds in real collections, and that it leaves them as they are."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge
from qdrant_client import QdrantClient, models

from csr_qdrant import Collection
from csr_qdrant.deployment import doctor_codes
from csr_qdrant.deployment.attach import attach, attach_on
from csr_qdrant.deployment.doctor import Diagnosis, diagnose, diagnose_on
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.stores.edge import EdgeStore
from csr_qdrant.stores.edge_writer import EdgeCodeWriter

Csr = Callable[..., Any]

N = 300
ROWS = np.random.default_rng(0).normal(size=(N, 8)).astype(np.float32)
PAGE = (Path(__file__).parents[1] / "docs" / "doctor.md").read_text("utf-8")


def shard(folder: Path, rows: Any = ROWS) -> Path:
    folder.mkdir()
    vectors = {"": qdrant_edge.EdgeVectorParams(size=8, distance=qdrant_edge.Distance.Cosine)}
    made = qdrant_edge.EdgeShard.create(str(folder), qdrant_edge.EdgeConfig(vectors=vectors))
    upsert(made, rows)
    return folder


def upsert(shard: Any, rows: Any, first: int = 0) -> None:
    points = [qdrant_edge.Point(first + i, {"": row.tolist()}, {}) for i, row in enumerate(rows)]
    shard.update(qdrant_edge.UpdateOperation.upsert_points(points))
    shard.flush()
    shard.close()


@pytest.fixture
def attached(tmp_path: Path, tiny_encoder: Encoder) -> Path:
    folder = shard(tmp_path / "docs")
    attach(folder, tiny_encoder)
    return folder


def texts(found: Diagnosis, level: str) -> list[str]:
    return [each.text for each in found.findings if each.level == level]


def test_a_collection_with_attached_codes_is_well(attached: Path) -> None:
    found = diagnose(attached)
    assert found.healthy and texts(found, "problem") == []
    numbers = found.metrics
    assert numbers["csr_up"] == 1
    assert numbers["csr_points"] == numbers["csr_points_dense"] == N
    assert numbers["csr_points_coded"] == numbers["csr_sample_codes_compared"]
    assert numbers["csr_sample_codes_different"] == numbers["csr_points_lacking_code"] == 0
    assert (numbers["csr_latents"], numbers["csr_k"], numbers["csr_dimension"]) == (32, 4, 8)


def test_the_balance_is_that_of_the_codes(attached: Path, tiny_encoder: Encoder) -> None:
    unit = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)
    counts = np.bincount(tiny_encoder.encode(unit).indices, minlength=32)
    numbers = diagnose(attached).metrics
    assert numbers["csr_longest_list_ratio"] == pytest.approx(counts.max() / N, abs=0.01)
    assert numbers["csr_query_postings_ratio"] == pytest.approx(
        np.square(counts / N).sum(), rel=0.02
    )
    assert numbers["csr_latents_dead"] == (counts == 0).sum()
    assert numbers["csr_longest_lists_share"] == pytest.approx(
        counts.max() / counts.sum(), abs=0.01
    )


def test_a_long_list_and_dead_latents_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = np.zeros((16, 8), np.float32)
    weight[3] = ROWS[0]
    encoder = Encoder(
        weight=weight,
        latent_bias=np.eye(16, dtype=np.float32)[3] * 9,
        pre_bias=np.zeros(8, np.float32),
        k=2,
    )
    attach(shard(tmp_path / "docs"), encoder)
    few = texts(diagnose(tmp_path / "docs"), "warning")  # in which any list is long
    assert not any("one list" in each or "postings" in each for each in few)
    monkeypatch.setattr(doctor_codes, "FEWEST", 10)
    warnings = texts(diagnose(tmp_path / "docs"), "warning")
    assert any("one list, of latent 3, holds 100 % of the points" in each for each in warnings)
    assert any("15 of 16 latents are in no code of 300 points" in each for each in warnings)
    assert any("touches 1.00 postings a point" in each for each in warnings)


def test_points_written_since_lack_a_code(attached: Path) -> None:
    before = diagnose(attached).metrics["csr_points_lacking_code"]
    upsert(qdrant_edge.EdgeShard.load(str(attached)), ROWS[:100] + 1, N)
    found = diagnose(attached)
    assert found.healthy
    assert found.metrics["csr_points_lacking_code"] == before + 100
    assert any(
        "25 % of the points with a dense vector (100) lack a code" in each
        and "run csr attach again" in each
        for each in texts(found, "warning")
    )


def test_codes_that_no_longer_fit_their_vectors_are_a_problem(attached: Path) -> None:
    made = qdrant_edge.EdgeShard.load(str(attached))
    changed = [qdrant_edge.PointVectors(i, {"": (-ROWS[i]).tolist()}) for i in range(40)]
    made.update(qdrant_edge.UpdateOperation.update_vectors(changed))
    made.flush()
    made.close()
    found = diagnose(attached)
    assert not found.healthy
    assert found.metrics["csr_sample_codes_different"] == 40
    assert any(
        "do not belong to the points' dense vectors" in each for each in texts(found, "problem")
    )


def test_codes_of_others_are_a_problem(attached: Path) -> None:
    made = qdrant_edge.EdgeShard.load(str(attached))
    foreign = qdrant_edge.PointVectors(0, {"csr": qdrant_edge.SparseVector([1, 2], [3.0, 4.0])})
    made.update(qdrant_edge.UpdateOperation.update_vectors([foreign]))
    made.flush()
    made.close()
    found = diagnose(attached)
    assert found.metrics["csr_sample_codes_invalid"] == 1
    assert any("are not csr-qdrant's" in each for each in texts(found, "problem"))


def test_another_encoder_is_a_problem(attached: Path, tiny_encoder: Encoder) -> None:
    other = Encoder(
        weight=tiny_encoder.weight * 2,
        latent_bias=tiny_encoder.latent_bias,
        pre_bias=tiny_encoder.pre_bias,
        k=tiny_encoder.k,
    )
    found = diagnose(attached, other)
    assert not found.healthy
    assert any(other.fingerprint in each for each in texts(found, "problem"))
    shutil.rmtree(attached / "encoder")
    assert any(
        "encoder beside the collection" in each for each in texts(diagnose(attached), "problem")
    )


def test_what_is_no_collection_or_has_no_codes(tmp_path: Path) -> None:
    nothing = diagnose(tmp_path / "nothing")
    assert not nothing.healthy and nothing.metrics["csr_up"] == 0
    assert "there is no collection at" in texts(nothing, "problem")[0]
    bare = diagnose(shard(tmp_path / "bare"))
    assert bare.healthy and "add them with csr attach" in texts(bare, "warning")[0]
    with pytest.raises(ConfigError, match="at least 1 point, got 0"):
        diagnose(tmp_path / "bare", sample=0)


def test_a_server_is_asked_for_its_version(tiny_encoder: Encoder) -> None:
    client = QdrantClient(":memory:")
    with Collection.create_on(client, "docs", tiny_encoder, keep_dense=True) as docs:
        docs.add(range(N), vectors=ROWS)
        found = diagnose_on(client, "docs", tiny_encoder)
        assert found.healthy, found.findings
        assert found.versions["server"] == client.info().version
        assert found.features["named_vector_creation"]
        assert found.metrics["csr_points"] == N
        unknown = diagnose_on(client, "docs")
        assert unknown.healthy and any("pass --encoder" in e for e in texts(unknown, "warning"))
    missing = diagnose_on(client, "missing")
    assert not missing.healthy and "there is no collection 'missing'" in missing.findings[0].text
    client.create_collection("plain", models.VectorParams(size=8, distance=models.Distance.COSINE))
    assert "add them with csr attach" in diagnose_on(client, "plain").findings[0].text


def test_an_old_server_gets_a_sentence(
    tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = QdrantClient(":memory:")
    Collection.create_on(client, "docs", tiny_encoder)
    version = models.VersionInfo(title="qdrant", version="1.17.1")
    monkeypatch.setattr(client, "info", lambda: version)
    found = diagnose_on(client, "docs", tiny_encoder)
    assert found.healthy and found.features["update_mode"]
    assert not found.features["named_vector_creation"]
    assert any(
        "upgrade it, or" in each and "by csr migrate" in each for each in texts(found, "warning")
    )
    version.version = "1.15.0"
    assert not diagnose_on(client, "docs", tiny_encoder).healthy


def test_an_unreachable_server_is_a_problem_without_the_key(
    csr: Csr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", "sesame-9")
    ran = csr("doctor", "--url", "http://localhost:9", "--collection", "docs", "--json")
    assert ran.exit_code == 1
    told = json.loads(ran.stdout)
    assert told["metrics"]["csr_up"] == 0 and not told["healthy"]
    assert "sesame" not in ran.stdout + ran.stderr


def test_nothing_is_written(attached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **named: Any) -> None:
        raise CsrError("a doctor writes nothing")

    def state() -> Any:
        made = qdrant_edge.EdgeShard.load(str(attached))
        points: Any
        points, _ = made.scroll(
            qdrant_edge.ScrollRequest(limit=N, with_payload=True, with_vector=True)
        )
        made.close()
        files = {p.name: p.read_bytes() for p in attached.glob("*.json")}
        return [(p.id, str(sorted(p.vector.items())), p.payload) for p in points], files

    before = state()
    for name in ("upsert", "delete", "write_metadata", "optimise", "_update"):
        monkeypatch.setattr(EdgeStore, name, refuse)
    for name in ("write", "record", "write_metadata", "add_name", "remove_name", "_update"):
        monkeypatch.setattr(EdgeCodeWriter, name, refuse)
    assert diagnose(attached).healthy
    assert state() == before


def test_the_command_exits_with_what_it_found(csr: Csr, attached: Path) -> None:
    well = csr("doctor", "docs")
    assert well.exit_code == 0 and "csr-qdrant" in well.stdout
    told = csr("doctor", "docs", "--json").json
    assert told["healthy"] and set(told) >= {"versions", "features", "findings", "metrics"}
    for name, value in told["metrics"].items():
        assert re.fullmatch(r"csr_[a-z_]+", name) and isinstance(value, int | float)
        assert f"`{name}`" in PAGE, f"docs/doctor.md lacks {name}"
    shutil.rmtree(attached / "encoder")
    assert csr("doctor", "docs").exit_code == 1


def test_the_examples_of_the_docs_run(csr: Csr, attached: Path) -> None:
    shell, python = (
        re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) for language in ("sh", "python")
    )
    commands = [line.split("#")[0].split()[1:] for line in shell[0].strip().splitlines()]
    assert [csr(*words).exit_code for words in commands] == [0, 0]
    exec(compile(python[0], "doctor.md", "exec"), {})


def test_a_vector_of_another_model_under_the_old_name_is_told(tiny_encoder: Encoder) -> None:
    client = QdrantClient(":memory:")
    for name, size in (("old", 8), ("new", 16)):
        metadata = client.get_collection("old").config.metadata if name == "new" else None
        client.create_collection(
            name,
            vectors_config=models.VectorParams(size=size, distance=models.Distance.COSINE),
            sparse_vectors_config={"csr": models.SparseVectorParams()} if metadata else None,
            metadata=metadata,
        )
        vectors = np.random.default_rng(0).normal(size=(5, size)).tolist()
        client.upsert(name, [models.PointStruct(id=i, vector=v) for i, v in enumerate(vectors)])
        if name == "old":
            attach_on(client, "old", tiny_encoder)
    code = models.SparseVector(indices=[1], values=[1.0])
    client.update_vectors("new", [models.PointVectors(id=1, vector={"csr": code})])
    found = diagnose_on(client, "new", tiny_encoder)
    assert any("has 16 dimensions" in each for each in texts(found, "problem"))
    assert found.metrics["csr_sample_codes_compared"] == 0


def test_a_collection_that_is_missing_is_not_up(tiny_encoder: Encoder) -> None:
    found = diagnose_on(QdrantClient(":memory:"), "nothing", tiny_encoder)
    assert not found.healthy and found.metrics["csr_up"] == 0
