"""Attaching while another thread writes to the same collection all the time."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import qdrant_edge as engine
from qdrant_client import QdrantClient, models

from csr_qdrant.client import CsrQdrant
from csr_qdrant.codes import SparseCodes
from csr_qdrant.deployment.attach import AttachConfig, AttachReport, attach
from csr_qdrant.deployment.detach import detach
from csr_qdrant.stores.edge_shared import SharedEdgeWriter
from csr_qdrant.stores.server_writer import ServerCodeWriter

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import (
    QUICK,
    ClientTarget,
    EdgeTarget,
    Vectors,
    check_codes,
    encoder_of,
    vectors_of,
    without_codes,
)

ENCODER = encoder_of()
CONFIG = AttachConfig(vector="text", batch=32, threads=2, device="numpy")
PART = 4  # points that the other thread writes at a time


class Application(Protocol):
    """What writes to a collection while codes are attached to it."""

    def upsert(self, ids: list[int], vectors: Vectors, payloads: list[dict[str, Any]]) -> None:
        """Write whole points without codes."""

    def upsert_coded(self, ids: list[int], vectors: Vectors, row: int) -> None:
        """Write whole points with codes."""

    def change(self, ids: list[int], vectors: Vectors) -> None:
        """Change dense vectors, and leave codes as they are."""

    def set_payload(self, ids: list[int], payload: dict[str, Any]) -> None:
        """Change payloads."""

    def delete(self, ids: list[int]) -> None:
        """Delete points."""

    def writer(self) -> Any:
        """Return what `attach` writes through."""

    def contents(self) -> dict[Any, Any]:
        """Return payload and vectors of each point."""


def image_of(vector: Any) -> list[float]:
    """Return another vector of a point: told from its dense one, so that it can be checked."""
    return [1.0, 0.0, float(vector[0])]


class OnEdge:
    """An application that has a shard open, and lends it to `attach`."""

    def __init__(self, folder: Path, n: int) -> None:
        self.target = EdgeTarget(folder)
        self.folder = folder
        self.shard = engine.EdgeShard.load(str(folder))
        for start in range(0, n, 500):
            ids = list(range(start, min(n, start + 500)))
            vectors = vectors_of(len(ids), seed=start)
            self.upsert(ids, vectors, [{"row": point} for point in ids])
        self.shard.flush()
        self.shard.optimize()  # points that get a code are copied out of what this makes

    def upsert(self, ids: list[int], vectors: Vectors, payloads: list[dict[str, Any]]) -> None:
        rows = zip(ids, vectors.tolist(), payloads, strict=True)
        points = [engine.Point(i, {"text": v, "image": image_of(v)}, p) for i, v, p in rows]
        self.shard.update(engine.UpdateOperation.upsert_points(points))

    def upsert_coded(self, ids: list[int], vectors: Vectors, row: int) -> None:
        codes = ENCODER.encode(vectors, device="numpy").normalised().to_edge()
        points = [
            engine.Point(i, {"text": v, "image": image_of(v), "csr": code}, {"row": row})
            for i, v, code in zip(ids, vectors.tolist(), codes, strict=True)
        ]
        self.shard.update(engine.UpdateOperation.upsert_points(points))

    def change(self, ids: list[int], vectors: Vectors) -> None:
        rows = zip(ids, vectors.tolist(), strict=True)
        points = [engine.PointVectors(i, {"text": v, "image": image_of(v)}) for i, v in rows]
        self.shard.update(engine.UpdateOperation.update_vectors(points))

    def set_payload(self, ids: list[int], payload: dict[str, Any]) -> None:
        self.shard.update(engine.UpdateOperation.set_payload(list(ids), payload))

    def delete(self, ids: list[int]) -> None:
        self.shard.update(engine.UpdateOperation.delete_points(list(ids)))

    def writer(self) -> SharedEdgeWriter:
        return SharedEdgeWriter.of(self.shard, self.folder)

    def contents(self) -> dict[Any, Any]:
        self.shard.flush()
        self.shard.close()
        found = self.target.contents()  # what is there for good
        self.shard = engine.EdgeShard.load(str(self.folder))
        return found


class Locked:
    """A client in local mode that several threads may use, one call at a time."""

    def __init__(self, client: QdrantClient) -> None:
        self._client, self._lock = client, threading.RLock()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **keywords: Any) -> Any:
            with self._lock:
                return found(*arguments, **keywords)

        return call


class OnClient:
    """An application with a `QdrantClient`, and a `CsrQdrant` around it."""

    def __init__(self, n: int) -> None:
        self.client: Any = Locked(QdrantClient(":memory:"))  # which bears no threads by itself
        client: Any = self.client
        self.target = ClientTarget(client, "docs")
        self.csr = CsrQdrant(client, ENCODER, dense_name="text")
        ids = list(range(n))
        self.upsert(ids, vectors_of(n), [{"row": point} for point in ids])

    def _points(self, ids: list[int], vectors: Vectors, payloads: list[Any]) -> list[Any]:
        return [
            models.PointStruct(id=i, vector={"text": v, "image": image_of(v)}, payload=p)
            for i, v, p in zip(ids, vectors.tolist(), payloads, strict=True)
        ]

    def upsert(self, ids: list[int], vectors: Vectors, payloads: list[dict[str, Any]]) -> None:
        self.client.upsert("docs", self._points(ids, vectors, payloads))

    def upsert_coded(self, ids: list[int], vectors: Vectors, row: int) -> None:
        self.csr.upsert("docs", self._points(ids, vectors, [{"row": row}] * len(ids)))

    def change(self, ids: list[int], vectors: Vectors) -> None:
        rows = zip(ids, vectors.tolist(), strict=True)
        named: Any = [(i, {"text": v, "image": image_of(v)}) for i, v in rows]
        points = [models.PointVectors(id=i, vector=vectors) for i, vectors in named]
        self.client.update_vectors("docs", points)

    def set_payload(self, ids: list[int], payload: dict[str, Any]) -> None:
        self.client.set_payload("docs", payload, list(ids))

    def delete(self, ids: list[int]) -> None:
        self.client.delete("docs", models.PointIdsList(points=list(ids)))

    def writer(self) -> ServerCodeWriter:
        return ServerCodeWriter.open(self.client, "docs", retries=QUICK)

    def contents(self) -> dict[Any, Any]:
        return self.target.contents()


@dataclass
class Busy:
    """Writes in a thread, all the time, and knows what each point must hold."""

    application: Application
    n: int  # points at the beginning
    expected: dict[int, tuple[dict[str, Any], list[float]]]  # payload and dense vector
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(3))
    deleted: set[int] = field(default_factory=set)
    coded: set[int] = field(default_factory=set)  # whose dense vector came with its code
    codes_allowed: threading.Event = field(default_factory=threading.Event)
    rounds: int = 0
    error: BaseException | None = None

    def run(self, until: Callable[[], bool]) -> None:
        """Do a little of everything again and again."""
        try:
            while not until():
                self.step()
                self.rounds += 1
                time.sleep(0.001)
        except BaseException as error:
            self.error = error

    def step(self) -> None:
        """Write some new points, change some of any age, and delete some."""
        first = self.n + 2 * PART * self.rounds
        self._upsert(list(range(first, first + PART)))
        if self.codes_allowed.is_set():  # there is no name for them before `attach` has begun
            self._upsert_coded(list(range(first + PART, first + 2 * PART)))
            self._upsert_coded(self._some())
        some = self._some()
        vectors = self._vectors(some)
        self.application.change(some, vectors)
        self.coded -= set(some)
        for point, row in zip(some, vectors.tolist(), strict=True):
            self.expected[point] = (self.expected[point][0], row)
        some = self._some()
        more = {"seen": self.rounds}
        self.application.set_payload(some, more)
        for point in some:
            self.expected[point] = ({**self.expected[point][0], **more}, self.expected[point][1])
        gone = self._some()[:1]
        self.application.delete(gone)
        self.deleted.update(gone)
        self.coded -= set(gone)
        del self.expected[gone[0]]

    def _some(self) -> list[int]:
        known = list(self.expected)
        return [known[place] for place in self.random.choice(len(known), PART, replace=False)]

    def _vectors(self, ids: list[int]) -> Vectors:
        return self.random.normal(size=(len(ids), 8)).astype(np.float32)

    def _upsert(self, ids: list[int]) -> None:
        vectors = self._vectors(ids)
        payloads = [{"row": point} for point in ids]
        self.application.upsert(ids, vectors, payloads)
        self._expect(ids, payloads, vectors)

    def _upsert_coded(self, ids: list[int]) -> None:
        vectors = self._vectors(ids)
        self.application.upsert_coded(ids, vectors, self.rounds)
        self._expect(ids, [{"row": self.rounds}] * len(ids), vectors)
        self.coded |= set(ids)

    def _expect(self, ids: list[int], payloads: list[dict[str, Any]], vectors: Vectors) -> None:
        for point, payload, row in zip(ids, payloads, vectors.tolist(), strict=True):
            self.expected[point] = (payload, row)


@contextmanager
def busy(application: Application, n: int) -> Iterator[Busy]:
    """Let a thread write during the block."""
    found = application.contents()
    expected = {i: (payload, vectors["text"]) for i, (payload, vectors) in found.items()}
    made, stop = Busy(application, n, expected), threading.Event()
    thread = threading.Thread(target=made.run, args=(stop.is_set,))
    thread.start()
    try:
        yield made
    finally:
        stop.set()
        thread.join()
    assert made.error is None, made.error


def attach_beside(
    application: Application, n: int, seconds: float, config: AttachConfig = CONFIG
) -> None:
    """Attach again and again while the other thread writes, then once more, and check all."""
    reports: list[AttachReport] = []
    with busy(application, n) as other, application.writer() as writer:
        until = time.perf_counter() + seconds
        while not reports or time.perf_counter() < until:
            reports.append(attach(writer, ENCODER, config))
            other.codes_allowed.set()
    assert other.rounds > 5 and sum(report.written for report in reports) >= n / 2
    check_untouched(application, other)
    if not any(report.unsettled for report in reports):  # looked at again until it was right
        check_codes(
            {i: each for i, each in application.contents().items() if i in other.coded}, ENCODER
        )
    with application.writer() as writer:
        last = attach(writer, ENCODER, CONFIG)
    assert last.complete and last.coded == last.points == len(other.expected)
    check_untouched(application, other)
    check_codes(application.contents(), ENCODER)


def check_untouched(application: Application, other: Busy) -> None:
    """Raise unless the points are what the other thread made of them, but for codes."""
    found = without_codes(application.contents())
    assert set(found) == set(other.expected)  # what it deleted is gone, and nothing else
    assert not other.deleted & set(found)
    for point, (payload, vectors) in found.items():
        expected, dense = other.expected[point]
        assert payload == expected, point
        np.testing.assert_allclose(vectors["text"], dense, rtol=1e-6)
        image = np.array(image_of(dense), np.float32)
        np.testing.assert_allclose(vectors["image"], image / np.linalg.norm(image), atol=1e-6)


def application_of(kind: str, folder: Path, n: int) -> Application:
    return OnEdge(folder / "shard", n) if kind == "edge" else OnClient(n)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("kind", ["edge", "memory"])
def test_what_others_write_meanwhile_stays(kind: str, verify: bool, tmp_path: Path) -> None:
    config = replace(CONFIG, verify=verify)
    attach_beside(application_of(kind, tmp_path, 300), 300, seconds=1, config=config)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kind", "n"), [("edge", 20_000), ("memory", 1000)])
def test_what_others_write_stays_in_a_longer_run(kind: str, n: int, tmp_path: Path) -> None:
    attach_beside(application_of(kind, tmp_path, n), n, seconds=30)


def test_detaching_from_an_open_shard(tmp_path: Path) -> None:
    application = OnEdge(tmp_path / "shard", 100)
    before = application.contents()
    with application.writer() as writer:
        assert attach(writer, ENCODER, CONFIG).complete
    with application.writer() as writer:
        assert detach(writer).codes == 100
    assert application.contents() == before


def test_a_shared_shard_takes_codes_like_a_server(tmp_path: Path) -> None:
    application = OnEdge(tmp_path / "shard", 3)
    codes = SparseCodes.from_dense(np.eye(4, 32, dtype=np.float32))
    with application.writer() as writer:
        writer.add_name("csr", "f32")
        assert writer.write("csr", [1, 77, 2], codes[:3], only_new=True) == []
        assert writer.write("csr", [0, 1], codes[2:], only_new=True) == []
        found = {point.id: point.code for point in writer.retrieve("text", "csr", [0, 1, 2, 77])}
        assert found == {0: ([2], [1.0]), 1: ([0], [1.0]), 2: ([2], [1.0])}
        assert writer.write("csr", [1], codes[3:], only_new=False) == []
        assert writer.retrieve("text", "csr", [1])[0].code == ([3], [1.0])
        writer.remove("csr", [1, 78])
        assert writer.count("text", "csr") == 1
    assert application.contents()[1][0] == {"row": 1}  # also after an update that failed in part
