"""Benchmarks on a server: the same hits as the embedded engine's, and nothing left behind."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from csr_qdrant.benchmarks import server_types
from csr_qdrant.benchmarks.csr_system import CsrSystem
from csr_qdrant.benchmarks.edge_engine import EdgeEngine
from csr_qdrant.benchmarks.engine import Asked, DenseVectors, Engine, SparseVectors
from csr_qdrant.benchmarks.image_bench import labelled_bench
from csr_qdrant.benchmarks.labelled_task import LabelledData, LabelledRows
from csr_qdrant.benchmarks.matrix.config import BenchConfig
from csr_qdrant.benchmarks.matrix.run import run_benchmark
from csr_qdrant.benchmarks.report.format import parse_report
from csr_qdrant.benchmarks.report.header import header
from csr_qdrant.benchmarks.server_engine import ServerEngine
from csr_qdrant.benchmarks.server_index import ServerIndex, Waiting
from csr_qdrant.benchmarks.systems import DenseSystem, IndexSystem, truncated
from csr_qdrant.codes import SparseCodes
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import CsrError
from csr_qdrant.stores.server import connect

N, M, D, H = 300, 20, 16, 64
QUICK = Waiting(first_s=0.01, longest_s=0.01, rest_s=0.02, settled_s=0.05, still_s=0.2)
RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((N, D)).astype(np.float32)
QUERIES = RNG.standard_normal((M, D)).astype(np.float32)
LABELS = RNG.integers(0, 4, N + M)
TASK = labelled_bench(
    "made up",
    LabelledData(
        gallery=LabelledRows(name="gallery", vectors=VECTORS, labels=LABELS[:N]),
        queries=LabelledRows(name="queries", vectors=QUERIES, labels=LABELS[N:]),
    ),
)


def encode(rows: Any) -> SparseCodes:
    """Return the 8 largest of a random projection; of a zero row nothing."""
    weights = np.random.default_rng(1).standard_normal((H, D)).astype(np.float32)
    projected = np.asarray(rows) @ weights.T
    latents = np.argsort(-projected, axis=1)[:, :8]
    return SparseCodes.from_topk(latents, np.take_along_axis(projected, latents, axis=1), H)


@pytest.fixture(params=["memory", pytest.param("server", marks=pytest.mark.server)])
def client(request: pytest.FixtureRequest) -> Iterator[QdrantClient]:
    made = QdrantClient(":memory:")
    if request.param == "server":
        if not (url := os.environ.get("QDRANT_URL")):
            pytest.skip("QDRANT_URL is not set")
        made = connect(url, api_key=os.environ.get("QDRANT_API_KEY"))
    yield made
    made.close()


def names(client: QdrantClient) -> set[str]:
    """Return all collections but those that other tests make on the same server meanwhile."""
    found = {each.name for each in client.get_collections().collections}
    return {name for name in found if not name.startswith("csr-qdrant-test-")}


SYSTEMS: dict[str, Callable[[], IndexSystem]] = {
    "exact": lambda: DenseSystem(name="x", m=0),
    "truncated": lambda: truncated(4),
    "truncated, rescored": lambda: truncated(4, candidates=30),
    "codes": lambda: CsrSystem(name="x", encode=encode, k=8),
    "fewer latents": lambda: CsrSystem(name="x", encode=encode, k=8, query_k=3),
    "codes, rescored": lambda: CsrSystem(name="x", encode=encode, k=4, candidates=30),
}


@pytest.mark.parametrize("kind", SYSTEMS)
def test_both_engines_find_the_same(kind: str, client: QdrantClient, tmp_path: Path) -> None:
    vectors = VECTORS.copy()
    if "codes" in kind:
        vectors[7] = 0  # a row without a code
    queries = np.vstack([QUERIES, np.zeros((1, D), np.float32)])[: M + ("latents" in kind)]
    found = []
    with ServerEngine(client, tmp_path, lambda said: None) as engine:
        for each in (EdgeEngine(), engine):
            place = each.place(tmp_path / each.name / "index")
            system = SYSTEMS[kind]()
            made = system.build(vectors, place)
            assert min(made.upload_s, made.optimise_s) > 0
            found.append(system.search(queries, 10))
            calls = system.calls(queries[:5], 10)
            assert [[hit.id for hit in call()] for call in calls] == [
                [row for row in rows if row >= 0] for rows in found[-1].rows[:5].tolist()
            ]
            system.close()
            again = SYSTEMS[kind]()
            again.open(place, N)
            np.testing.assert_array_equal(again.search(queries, 10).rows, found[-1].rows)
            again.close()
        engine.finished()
    np.testing.assert_array_equal(found[0].rows, found[1].rows)
    np.testing.assert_allclose(found[0].scores, found[1].scores, atol=1e-5)


def measured(
    folder: Path, encoder: Path, engine: Engine, **settings: Any
) -> tuple[dict[str, Any], list[str]]:
    told: list[str] = []
    given: dict[str, Any] = {
        "systems": ("exact", "hnsw", "truncated", "turbo", "csr"),
        "k": (2, 4),
        "query_k": (2,),
        "ef": (8,),
        "dims": (4,),
        "candidates": 30,
        "clients": (1,),
        "timed": 5,
        "encoder": (encoder,),
        **settings,
    }
    config = BenchConfig(**given)
    return run_benchmark(TASK, config, folder, told.append, None, None, engine), told  # type: ignore[arg-type]


@pytest.fixture
def encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("csr_qdrant.benchmarks.matrix.timing.SECONDS", 0.02)
    Encoder(
        weight=np.random.default_rng(2).standard_normal((H, D)).astype(np.float32),
        latent_bias=np.zeros(H, np.float32),
        pre_bias=np.zeros(D, np.float32),
        k=4,
    ).save(tmp_path / "enc")
    return tmp_path / "enc"


def test_a_run_on_a_server_measures_the_same_and_leaves_nothing(
    client: QdrantClient, encoder: Path, tmp_path: Path
) -> None:
    vectors = models.VectorParams(size=2, distance=models.Distance.DOT)
    for name in ("docs-of-a-user", "csr-bench-ffffffff-other"):
        client.delete_collection(name)
        client.create_collection(name, vectors_config=vectors)
    before, said = names(client), list[str]()
    with ServerEngine(client, tmp_path / "server", said.append) as engine:
        engine.version = "1.17.3"
        report, told = measured(tmp_path / "server", encoder, engine)
    assert names(client) == before
    assert said == [sentence for sentence in said if "belong to other runs and stay" in sentence]
    assert "csr-bench-ffffffff-other" in said[0] and "docs-of-a-user" not in said[0]
    # Everything but bytes, and what the server is too old for, is measured.
    own, _ = measured(tmp_path / "edge", encoder, EdgeEngine())
    here = {each["name"]: each for each in own["systems"]}
    there = {each["name"]: each for each in report["systems"]}
    left_out = {name for name in here if name.startswith("TurboQuant")}
    assert left_out and set(there) == set(here) - left_out
    for name, each in there.items():
        if each["settings"].get("datatype") != "u8" and each["family"] != "HNSW":
            assert each["quality"] == here[name]["quality"], name
            assert each["fidelity"] == here[name]["fidelity"], name
        assert each["postings"] == here[name]["postings"]
        assert each["latency_ms"]["search"]["p50"] > 0 and each["qps"]["1"] > 0
        assert (each["bytes_per_vector"], each["rss_anon_mb"]) == ({}, None)
    parsed = parse_report(report)
    assert {each.system for each in parsed.skipped} == left_out
    facts = header(parsed)
    assert facts["engine"].startswith("Qdrant server 1.17.3, whose bytes and memory by index are")
    assert "the server has version 1.17.3, TurboQuant came with 1.18" in facts["left out"]
    assert any("is left out: the server has version 1.17.3" in each for each in told)
    assert header(parse_report(own))["engine"] == f"Qdrant Edge {EdgeEngine().version}"
    for name in before:
        client.delete_collection(name)


def test_a_run_that_stopped_is_named_gone_on_with_and_cleaned_up(
    client: QdrantClient, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, said = names(client), list[str]()
    folder, build = tmp_path / "server", CsrSystem.build

    def killed(self: CsrSystem, vectors: Any, place: Any) -> Any:
        build(self, vectors[: N // 2], place)
        raise KeyboardInterrupt

    systems = ("exact", "csr")
    with monkeypatch.context() as patch:
        patch.setattr(CsrSystem, "build", killed)
        with (
            pytest.raises(KeyboardInterrupt),
            ServerEngine(client, folder, said.append) as engine,
        ):
            measured(folder, encoder, engine, systems=systems)
    left = names(client) - before
    assert len(left) == 2 and all(name.startswith("csr-bench-") for name in left)
    assert "the run stopped, and left collections " in said[-1]
    assert all(name in said[-1] for name in left)
    said.clear()
    with ServerEngine(client, folder, said.append) as engine:
        assert said[0].startswith("going on with collections csr-bench-")
        report, told = measured(folder, encoder, engine, systems=systems)
    assert names(client) == before
    assert "building dense float32, exact" not in told and "building CSR k=2" in told
    assert report["systems"][0]["fidelity"]["recall@10"] == 1
    # Finished once, its indexes are gone: another run builds them again.
    with ServerEngine(client, folder, said.append) as engine:
        _, told = measured(folder, encoder, engine, systems=("exact",))
    assert "building dense float32, exact" in told
    assert names(client) == before


def test_collections_of_others_are_never_touched(
    client: QdrantClient, encoder: Path, tmp_path: Path
) -> None:
    vectors = models.VectorParams(size=2, distance=models.Distance.DOT)
    engine = ServerEngine(client, tmp_path, lambda said: None)
    place = engine.place(tmp_path / "index")
    client.create_collection(place.collection, vectors_config=vectors)
    with pytest.raises(CsrError, match="exists already: it is left alone"):
        DenseSystem(name="x").build(VECTORS, place)
    place.clear()  # nothing of this run's
    assert place.collection in names(client)
    # A record that claims it is not believed.
    engine._names.append(place.collection)
    for step in (place.clear, place.exists, engine.finished, lambda: place.open(N)):
        with pytest.raises(CsrError, match="was made by somebody else"):
            step()
    assert place.collection in names(client)
    client.delete_collection(place.collection)
    record = tmp_path / "collections.json"
    record.write_text('{"run": "0123abcd", "collections": ["production"]}')
    with pytest.raises(CsrError, match="names collections that no benchmark made"):
        ServerEngine(client, tmp_path, lambda said: None)
    record.write_text("{")
    with pytest.raises(CsrError, match="is damaged"):
        ServerEngine(client, tmp_path, lambda said: None)


def test_figures_of_two_engines_do_not_meet(
    client: QdrantClient, encoder: Path, tmp_path: Path
) -> None:
    measured(tmp_path / "b", encoder, EdgeEngine(), systems=("exact",))
    engine = ServerEngine(client, tmp_path / "b", lambda said: None)
    with pytest.raises(CsrError, match=r"holds another benchmark \(other engine\)"):
        measured(tmp_path / "b", encoder, engine, systems=("exact",))


# --- what is sent, and what is waited for -------------------------------------------------------


def test_how_collections_are_made() -> None:
    turbo = DenseVectors(size=8, quantisation="turbo2", on_disk=True)
    settings = server_types.collection_settings({"a": turbo, "b": SparseVectors(datatype="u8")})
    made = settings["vectors_config"]["a"].model_dump(exclude_none=True, mode="json")
    assert made == {
        "size": 8,
        "distance": "Cosine",
        "on_disk": True,
        "hnsw_config": {"m": 0, "ef_construct": 100, "full_scan_threshold": 10},
        "quantization_config": {"turbo": {"bits": "bits2", "always_ram": True}},
    }
    sparse = settings["sparse_vectors_config"]["b"].model_dump(exclude_none=True, mode="json")
    assert sparse == {"index": {"datatype": "uint8"}}
    assert settings["optimizers_config"].indexing_threshold == 0  # until all is uploaded
    for kind, key in (("binary", "binary"), ("int8", "scalar"), ("turbo4", "turbo")):
        given: Any = kind
        vectors = DenseVectors(size=8, quantisation=given)
        config = server_types.collection_settings({"a": vectors})["vectors_config"]["a"]
        assert list(config.quantization_config.model_dump()) == [key]


def test_how_a_search_is_asked_for() -> None:
    rows = np.eye(2, dtype=np.float32)

    def params(**options: Any) -> Any:
        (first, _) = server_types.requests(Asked(queries=rows, limit=10, **options))
        assert first is not None
        return first.params and first.params.model_dump(exclude_unset=True)

    assert params() is None
    assert params(exact=True, ef=7) == {"exact": True}
    assert params(ef=7) == {"hnsw_ef": 7}
    assert params(ef=7, rescore=True, oversampling=4.0) == {
        "hnsw_ef": 7,
        "quantization": {"rescore": True, "oversampling": 4.0},
    }
    (first, _) = server_types.requests(Asked(queries=rows, limit=10, full=rows, depth=40))
    assert first is not None and isinstance(first.prefetch, models.Prefetch)
    assert (first.using, first.limit, first.prefetch.limit) == ("full", 10, 40)


def waited(*states: tuple[str, int], graph: bool = True) -> float:
    """Wait for a server that goes through (status, indexed vectors), the last one for good."""
    left = list(states)

    def get_collection(name: str) -> Any:
        status, indexed = left.pop(0) if len(left) > 1 else left[0]
        return SimpleNamespace(
            status=models.CollectionStatus(status),
            indexed_vectors_count=indexed,
            points_count=10,
            segments_count=1,
            optimizer_status=models.OptimizersStatusOneOf.OK,
        )

    fake: Any = SimpleNamespace(
        init_options={"url": "http://x"},
        get_collection=get_collection,
        update_collection=lambda name, optimizers_config: True,
    )
    index = ServerIndex(fake, "c", QUICK, graph=graph)
    index._vectors = 10
    return index._optimise()


def test_the_optimiser_is_waited_for() -> None:
    assert waited(("green", 10)) < 0.02
    working = [("yellow", 0)] * 5
    # Green for a moment, as before it has begun, is not yet the end.
    assert 0.06 < waited(("green", 0), *working, ("green", 10)) < 0.5
    assert waited(("green", 0), graph=False) < 0.02  # nothing that would count is to be built
    with pytest.raises(CsrError, match="has come to rest with 4 of 10 vectors indexed"):
        waited(*working, ("green", 4))
    with pytest.raises(CsrError, match="has been yellow for 0 s without any change"):
        waited(("yellow", 4))
    with pytest.raises(CsrError, match="cannot index it"):
        waited(("red", 4))


def test_batches_stay_below_the_limit_of_a_request() -> None:
    fake: Any = SimpleNamespace(init_options={"url": "http://x"})
    for wide, batch in ((256, 256), (4096, 64), (10**7, 1)):
        index = ServerIndex(fake, "c", QUICK, wide=wide)
        assert index.batch == batch


# --- the command --------------------------------------------------------------------------------


def test_the_command_measures_a_server(
    csr: Callable[..., Any], encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = QdrantClient(":memory:")
    seen: list[dict[str, Any]] = []

    def connected(url: str, **options: Any) -> QdrantClient:
        seen.append({"url": url, **options})
        return client

    monkeypatch.setattr("csr_qdrant.stores.server.connect", connected)
    monkeypatch.setenv("QDRANT_API_KEY", "s3cr3t")
    np.savez("gallery.npz", data=VECTORS, label=LABELS[:N])
    np.savez("val.npz", data=QUERIES, label=LABELS[N:])
    command = ("bench", "labels", "gallery.npz", "val.npz", "-o", "out", "--encoder", encoder)
    small = ("--systems", "csr", "--k", 4, "--timed", 5, "--candidates", 0, "--json")
    ran = csr(*command, *small, "--url", "https://q.example:6333", "--timeout", 7)
    assert ran.json["engine"]["name"] == "Qdrant server" and not ran.json["engine"]["embedded"]
    assert seen == [
        {
            "url": "https://q.example:6333",
            "api_key": "s3cr3t",
            "prefer_grpc": False,
            "timeout_s": 7,
        }
    ]
    assert "s3cr3t" not in "".join(p.read_text() for p in Path("out").glob("*.[jmh]*"))
    assert "Qdrant server" in Path("out/report.md").read_text()


def test_a_server_that_is_not_there_is_one_sentence(csr: Callable[..., Any], encoder: Path) -> None:
    np.savez("gallery.npz", data=VECTORS, label=LABELS[:N])
    command = ("bench", "labels", "gallery.npz", "gallery.npz", "--url", "http://127.0.0.1:1")
    ran = csr(*command, "--encoder", encoder)
    assert ran.exit_code == 1 and "cannot reach the server" in ran.stderr
    ran = csr("bench", "collection", "folder", "--on-server")
    assert ran.exit_code == 2 and "--on-server needs a server" in ran.stderr
