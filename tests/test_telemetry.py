"""Spans of OpenTelemetry: what is in them, and that they cost nothing where nobody wants them."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from csr_qdrant import AsyncCsrQdrant, Collection, CsrQdrant, telemetry
from csr_qdrant.deployment.attach import AttachConfig, attach_on
from csr_qdrant.deployment.migrate import MigrateConfig, migrate
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import CsrError
from csr_qdrant.indexing import index_source
from csr_qdrant.sources import ArraySource

sdk = pytest.importorskip("opentelemetry.sdk.trace")

ROWS = np.random.default_rng(0).normal(size=(5000, 8)).astype(np.float32)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give an exporter that keeps the spans; the process' own provider stays as it is."""
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "_tracer", lambda: provider.get_tracer("csr_qdrant"))
    yield exporter
    provider.shutdown()


def named(exporter: Any, name: str) -> list[Any]:
    return [each for each in exporter.get_finished_spans() if each.name == f"csr_qdrant.{name}"]


def test_adding_and_searching_are_spans(tmp_path: Path, tiny_encoder: Encoder, spans: Any) -> None:
    with Collection.create(tmp_path / "docs", tiny_encoder, keep_dense=True) as docs:
        docs.add(range(20), vectors=ROWS[:20])
        docs.search_batch(ROWS[:3], limit=4, rescore=10)
    assert [each.name for each in spans.get_finished_spans()] == [
        f"csr_qdrant.{name}" for name in ("encode", "upsert", "encode", "search")
    ]
    [search] = named(spans, "search")
    assert dict(search.attributes) == {
        "csr_qdrant.queries": 3,
        "csr_qdrant.limit": 4,
        "csr_qdrant.rescore": 10,
    }
    assert [dict(each.attributes) for each in named(spans, "encode")] == [
        {"csr_qdrant.rows": 20},
        {"csr_qdrant.rows": 3},
    ]


def names(exporter: Any) -> list[str]:
    return [each.name.removeprefix("csr_qdrant.") for each in exporter.get_finished_spans()]


def test_an_applications_writes_and_queries_are_spans(tiny_encoder: Encoder, spans: Any) -> None:
    client = QdrantClient(":memory:")
    params = models.VectorParams(size=8, distance=models.Distance.DOT)
    sparse = {"csr": models.SparseVectorParams()}
    client.create_collection("docs", params, sparse_vectors_config=sparse)
    points = [models.PointStruct(id=i, vector=ROWS[i].tolist()) for i in range(9)]
    csr = CsrQdrant(client, tiny_encoder)
    csr.upsert("docs", points)
    csr.query("docs", ROWS[0], limit=4, rescore=5)
    csr.query_batch("docs", ROWS[:3])
    csr.query_groups("docs", ROWS[0], "topic")
    assert names(spans) == ["encode", "upsert", *["encode", "search"] * 3]
    found = [tuple((each.attributes or {}).values()) for each in named(spans, "search")]
    assert found == [(1, 4, 5), (3, 10, 0), (1, 10, 0)]
    assert dict(named(spans, "upsert")[0].attributes) == {"csr_qdrant.points": 9}


def test_the_asynchronous_ones_are_spans_too(tiny_encoder: Encoder, spans: Any) -> None:
    async def work() -> None:
        client = AsyncQdrantClient(":memory:")
        params = models.VectorParams(size=8, distance=models.Distance.DOT)
        sparse = {"csr": models.SparseVectorParams()}
        await client.create_collection("docs", params, sparse_vectors_config=sparse)
        csr = AsyncCsrQdrant(client, tiny_encoder)
        await csr.upsert("docs", [models.PointStruct(id=1, vector=ROWS[1].tolist())])
        await csr.query("docs", ROWS[0])
        await csr.query_batch("docs", ROWS[:2])

    asyncio.run(work())
    assert names(spans) == ["encode", "upsert", *["encode", "search"] * 2]


def test_attaching_and_migrating_are_spans(tiny_encoder: Encoder, spans: Any) -> None:
    client = QdrantClient(":memory:")
    params = models.VectorParams(size=8, distance=models.Distance.DOT)
    client.create_collection("docs", params)
    points = [models.PointStruct(id=i, vector=ROWS[i].tolist()) for i in range(9)]
    client.upsert("docs", points)
    migrate((client, "docs"), (client, "copy"), tiny_encoder, MigrateConfig(device="numpy"))
    attach_on(client, "docs", tiny_encoder, AttachConfig(device="numpy"))
    assert [dict(each.attributes) for each in named(spans, "migrate") + named(spans, "attach")] == [
        {"csr_qdrant.points": 9},
        {"csr_qdrant.points": 9, "csr_qdrant.lacking": 9},
    ]


def test_an_indexing_run_is_one_trace(tmp_path: Path, tiny_encoder: Encoder, spans: Any) -> None:
    with Collection.create(tmp_path / "docs", tiny_encoder) as docs:
        index_source(ArraySource(ROWS), docs)
    [index] = named(spans, "index")
    assert dict(index.attributes) == {"csr_qdrant.rows": 5000, "csr_qdrant.kind": "vectors"}
    parts = [*named(spans, "encode"), *named(spans, "upsert"), *named(spans, "optimise")]
    assert len(parts) == 2 + 2 + 1  # two blocks, the codes of which another thread makes
    assert {each.parent.span_id for each in parts} == {index.context.span_id}
    assert sum(each.attributes["csr_qdrant.points"] for each in named(spans, "upsert")) == 5000


def test_a_span_tells_an_errors_type_and_not_its_text(spans: Any) -> None:
    with pytest.raises(CsrError), telemetry.span("search", queries=1):
        raise CsrError("a secret place")
    [span] = named(spans, "search")
    assert (span.status.is_ok, span.status.description) == (False, "CsrError")
    assert span.events == () and "secret" not in span.to_json()


def test_without_opentelemetry_a_span_does_nothing() -> None:
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from csr_qdrant.telemetry import span\n"
        "with span('search', queries=1) as opened: assert opened is None\n"
        "print('well')"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout == "well\n", ran.stderr


def test_a_provider_may_be_set_up_at_any_time() -> None:
    program = (
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import SimpleSpanProcessor\n"
        "from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter\n"
        "from csr_qdrant.telemetry import span\n"
        "with span('search', queries=1) as opened: assert opened is None\n"
        "exporter, provider = InMemorySpanExporter(), TracerProvider()\n"
        "provider.add_span_processor(SimpleSpanProcessor(exporter))\n"
        "trace.set_tracer_provider(provider)\n"
        "with span('search', queries=2): pass\n"
        "print([each.name for each in exporter.get_finished_spans()])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout == "['csr_qdrant.search']\n", ran.stderr


def test_the_package_does_not_import_it() -> None:
    program = "import csr_qdrant.telemetry, sys; print('opentelemetry' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout == "False\n", ran.stderr


def test_a_span_that_nobody_wants_takes_microseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "_tracer", lambda: None)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(1000):
            with telemetry.span("search", queries=1, limit=10):
                pass
        best = min(best, time.perf_counter() - started)
    assert best / 1000 < 20e-6  # measured: below one
