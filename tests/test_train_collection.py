"""`csr train` from a collection: the same encoder as from a file of the same rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge
from qdrant_client import QdrantClient, models

from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.sources import CollectionVectors, download_files, download_vectors
from csr_qdrant.trainer import TrainConfig, fit

Csr = Callable[..., Any]

N, D = 300, 16
RNG = np.random.default_rng(0)
TOPICS = RNG.integers(5, size=N)
X = (RNG.normal(size=(5, D))[TOPICS] + 0.3 * RNG.normal(size=(N, D))).astype(np.float32)
OPTIONS = ("--steps", 10, "--h", 64, "--held-out", 20, "--batch-size", 64)
CONFIG = TrainConfig(steps=10, h=64, held_out=20, batch_size=64)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    torch.set_num_threads(1)
    monkeypatch.setattr("csr_qdrant.sources.collection_download.BLOCK_ROWS", 32)


def payload(i: int) -> dict[str, Any]:
    return {"topic": f"t{TOPICS[i]}", "number": int(TOPICS[i]), "part": [0], "some": None} | (
        {"some": int(TOPICS[i])} if i % 3 else {}
    )


def edge(folder: Path, names: dict[str, str], rows: Any = X, multi: bool = False) -> Path:
    distances = {"Cosine": qdrant_edge.Distance.Cosine, "Dot": qdrant_edge.Distance.Dot}
    vectors = {
        name: qdrant_edge.EdgeVectorParams(size=D, distance=distances[of])
        for name, of in names.items()
    }
    if multi:
        config = qdrant_edge.MultiVectorConfig(qdrant_edge.MultiVectorComparator.MaxSim)
        vectors["rows"] = qdrant_edge.EdgeVectorParams(
            size=D, distance=distances["Dot"], multivector_config=config
        )
    folder.mkdir(parents=True)
    shard = qdrant_edge.EdgeShard.create(str(folder), qdrant_edge.EdgeConfig(vectors=vectors))
    points = [
        qdrant_edge.Point(i, {name: row.tolist() for name in names}, payload(i))
        for i, row in enumerate(rows)
    ]
    shard.update(qdrant_edge.UpdateOperation.upsert_points(points))
    shard.flush()
    shard.close()
    return folder


def memory(rows: Any = X, name: str = "docs", url: str = ":memory:") -> QdrantClient:
    client = QdrantClient(url, check_compatibility=False)
    vectors = models.VectorParams(size=D, distance=models.Distance.DOT)
    client.create_collection(name, vectors_config={"text": vectors})
    client.upsert(
        name,
        [
            models.PointStruct(id=i, vector={"text": row.tolist()}, payload=payload(i))
            for i, row in enumerate(rows)
        ],
    )
    return client


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Have commands find a collection at any URL; keeps what they connect with."""
    client, asked = memory(), []

    def connect(url: str, **options: Any) -> QdrantClient:
        asked.append((url, options))
        return client

    monkeypatch.setattr(client, "close", lambda: None)
    monkeypatch.setattr("csr_qdrant.stores.server.connect", connect)
    return asked


def test_a_folder_gives_the_encoder_of_a_file_with_its_rows(csr: Csr, tmp_path: Path) -> None:
    edge(tmp_path / "docs", {"": "Dot"})
    np.save("x.npy", X)
    ran = csr("train", "docs", "-o", "enc", *OPTIONS, "--seed", 3, "--json")
    csr("train", "x.npy", "-o", "from_file", *OPTIONS, "--seed", 3)
    assert ran.json["fingerprint"] == Encoder.load("from_file").fingerprint
    assert ran.json["data"]["source"] == "docs" and ran.json["data"]["rows"] == N
    assert not Path("enc.partial").exists()


@pytest.mark.parametrize("language", ["rest", "grpc"])
def test_a_server_gives_it(
    csr: Csr, grpc_at: tuple[str, int], monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    url, port = grpc_at
    memory(url=url).close()
    monkeypatch.setenv("QDRANT_GRPC_PORT", str(port))
    at = ("--url", url, "--collection", "docs", "--vector", "text")
    ran = csr("train", *at, f"--{'' if language == 'grpc' else 'no-'}grpc", "-o", "enc", *OPTIONS)
    assert ran.exit_code == 0, ran.stderr
    assert Encoder.load("enc").fingerprint == fit(X, CONFIG).fingerprint


def test_a_server_gives_it_too_and_keeps_the_key_to_itself(
    csr: Csr, server: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", "sesame-9")
    at = ("--url", "https://qdrant.example", "--collection", "docs", "--vector", "text")
    ran = csr("train", *at, "-o", "enc", *OPTIONS)
    assert ran.exit_code == 0, ran.stderr
    assert Encoder.load("enc").fingerprint == fit(X, CONFIG).fingerprint
    assert server[0][1]["api_key"] == "sesame-9"
    written = ran.stdout + ran.stderr + Path("enc/csr.json").read_text("utf-8")
    assert "sesame" not in written


def test_cosine_collections_give_unit_vectors_and_say_so(csr: Csr, tmp_path: Path) -> None:
    edge(tmp_path / "docs", {"": "Cosine"})
    ran = csr("train", "docs", "-o", "enc", *OPTIONS)
    assert "compares by cosine, so its vectors have L2 norm 1" in ran.stderr
    with CollectionVectors.open("docs") as points:
        rows = download_vectors(points, "down").vectors
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert Encoder.load("enc").fingerprint == fit(rows, CONFIG).fingerprint


def test_labels_of_the_payload_are_those_of_a_file(csr: Csr, tmp_path: Path) -> None:
    edge(tmp_path / "docs", {"": "Dot"})
    for field in ("topic", "number"):
        ran = csr("train", "docs", "-o", field, *OPTIONS, "--label", field)
        assert ran.exit_code == 0, ran.stderr
        numbers: dict[int, int] = {}
        labels = [numbers.setdefault(int(topic), len(numbers)) for topic in TOPICS]
        expected = fit(X, CONFIG, labels=np.array(labels))
        assert Encoder.load(field).fingerprint == expected.fingerprint
        assert expected.fingerprint != fit(X, CONFIG).fingerprint


def test_missing_labels_are_counted_and_wrong_ones_refused(csr: Csr, tmp_path: Path) -> None:
    edge(tmp_path / "docs", {"": "Dot"})
    ran = csr("train", "docs", "-o", "enc", *OPTIONS, "--label", "some")
    assert ran.exit_code == 0
    assert "100 of 300 points have no label in 'some'" in ran.stderr
    none = csr("train", "docs", "-o", "none", *OPTIONS, "--label", "nothing")
    assert none.exit_code == 1
    assert "none of 300 points of docs has a label in the payload field 'nothing'" in none.stderr
    wrong = csr("train", "docs", "-o", "wrong", *OPTIONS, "--label", "part")
    assert wrong.exit_code == 1
    assert "point 0 of docs has [0] in 'part', labels are integers or texts" in wrong.stderr


def test_a_sample_is_drawn_by_the_seed_and_stands_in_order(tmp_path: Path) -> None:
    client = memory()
    with CollectionVectors.open_on(client, "docs") as points:
        drawn = sorted(map(int, points.sample_ids(100, 4)))
        found = download_vectors(points, tmp_path / "a", sample=100, seed=4)
        other = download_vectors(points, tmp_path / "b", sample=100, seed=5)
        every = download_vectors(points, tmp_path / "c", sample=N)
    np.testing.assert_array_equal(found.vectors, X[drawn])
    assert not np.array_equal(found.vectors, other.vectors)
    np.testing.assert_array_equal(every.vectors, X)


@pytest.mark.parametrize("sample", [None, 150])
def test_a_killed_download_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample: int | None
) -> None:
    client, record = memory(), download_files.DownloadFiles.record
    with CollectionVectors.open_on(client, "docs") as points:
        whole = download_vectors(points, tmp_path / "whole", sample=sample, label="topic")
        for stop in (0, 1, 3, 4):
            folder = tmp_path / f"stopped-{stop}"
            read: list[int] = []

            def killed(files: Any, state: Any, stop: int = stop) -> None:
                if state.rows > 32 * stop:  # the vectors are written, the journal is not
                    raise KeyboardInterrupt
                record(files, state)

            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(download_files.DownloadFiles, "record", killed)
                download_vectors(points, folder, sample=sample, label="topic")
            again = download_vectors(
                points, folder, sample=sample, label="topic", on_rows=read.append
            )
            assert read[0] == 32 * stop
            np.testing.assert_array_equal(again.vectors, whole.vectors)
            np.testing.assert_array_equal(again.labels, whole.labels)


def test_a_finished_download_is_not_read_again_and_another_replaces_it(tmp_path: Path) -> None:
    client = memory()
    with CollectionVectors.open_on(client, "docs") as points:
        download_vectors(points, tmp_path)
        client.delete("docs", [0, 1, 2])
        again: list[int] = []
        kept = download_vectors(points, tmp_path, on_rows=again.append)
        assert (len(kept.vectors), again) == (N, [N])
        other = download_vectors(points, tmp_path, label="topic")
        assert len(other.vectors) == N - 3


def test_points_that_are_zero_or_gone_are_left_out_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = X.copy()
    rows[[5, 290]] = 0
    client = memory(rows)
    with CollectionVectors.open_on(client, "docs") as points:
        ids = list(range(250, 300))
        monkeypatch.setattr(points, "sample_ids", lambda n, seed: ids)
        client.delete("docs", [251, 252, 253])
        found = download_vectors(points, tmp_path / "a", sample=50, label="topic")
    assert (found.zero, found.gone, len(found.vectors)) == (1, 3, 46)
    kept = [i for i in ids if i not in (251, 252, 253, 290)]
    np.testing.assert_array_equal(found.vectors, rows[kept])
    assert found.labels is not None
    assert len(set(zip(found.labels, TOPICS[kept], strict=True))) == len(set(TOPICS[kept]))


def test_only_zeros_are_nothing_to_learn_from(tmp_path: Path) -> None:
    with (
        CollectionVectors.open_on(memory(np.zeros((3, D))), "docs") as points,
        pytest.raises(CsrError, match=r"no vector to learn from \(3 are all zeros\)"),
    ):
        download_vectors(points, tmp_path)
    with (
        CollectionVectors.open_on(memory(X[:3]), "docs") as points,
        pytest.raises(ConfigError, match="at least 1 point, got 0"),
    ):
        download_vectors(points, tmp_path, sample=0)


def test_several_vectors_and_multivectors_are_told_apart(csr: Csr, tmp_path: Path) -> None:
    edge(tmp_path / "docs", {"a": "Dot", "b": "Dot"}, X, multi=True)
    several = csr("train", "docs", "-o", "enc", *OPTIONS)
    assert several.exit_code == 2 and "has several dense vectors (a, b)" in several.stderr
    multi = csr("train", "docs", "-o", "enc", *OPTIONS, "--vector", "rows")
    assert multi.exit_code == 2 and "is a multivector" in multi.stderr
    assert csr("train", "docs", "-o", "enc", *OPTIONS, "--vector", "b").exit_code == 0
    assert json.loads(Path("enc/csr.json").read_text("utf-8"))["data"]["vector"] == "b"


def test_a_dry_run_counts_and_writes_nothing(csr: Csr, tmp_path: Path) -> None:
    edge(tmp_path / "docs", {"": "Dot"})
    plan = csr("train", "docs", "-o", "enc", *OPTIONS, "--dry-run", "--json", "--sample", 120).json
    assert (plan["rows"], plan["d"], plan["kind"]) == (120, D, "vectors")
    assert not Path("enc").exists() and not Path("enc.partial").exists()


def test_an_adapter_learns_from_a_collection_too(csr: Csr, tmp_path: Path) -> None:
    edge(tmp_path / "docs", {"": "Dot"})
    np.save("x.npy", X)
    common = ("--method", "mrl", "--steps", 5, "--dims", "4,8,16")
    assert csr("train", "docs", "-o", "a", *common).exit_code == 0
    assert csr("train", "x.npy", "-o", "b", *common).exit_code == 0
    shown = [csr("info", name, "--json").json["fingerprint"] for name in ("a", "b")]
    assert shown[0] == shown[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to learn from"),
        (("docs", "--labels", "topic"), "--labels is for files"),
        (("docs", "--pairs", "p.tsv", "--queries", "q.npy"), "--pairs is for files"),
        (("docs", "--id-field", "x"), "--id-field is for files"),
        (("docs", "--sweep", "seed=0,1"), "--sweep is for files"),
        (("docs", "--sample", "0"), "at least 1 point, got 0"),
        (("docs", "--url", "http://x", "--collection", "c"), "both a folder (docs) and a server"),
        (("x.npy", "--label", "topic"), "--label is for vectors of a collection"),
        (("x.npy", "--sample", "10"), "--sample is for vectors of a collection"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    csr: Csr, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    edge(tmp_path / "docs", {"": "Dot"}, X[:20])
    np.save("x.npy", X)
    ran = csr("train", *arguments, "-o", "enc", *OPTIONS)
    assert ran.exit_code == 2 and message in ran.stderr
    assert not Path("enc").exists()
