"""Collections of somebody else's, over each engine, as tests of `attach` need them; no test itself.

Each holds a dense vector `text` of 8 dimensions, another one `image` of 3, and payloads.
"""

import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pytest
import qdrant_edge as engine
from qdrant_client import QdrantClient, models

from csr_qdrant.encoder import Encoder
from csr_qdrant.stores.edge_writer import EdgeCodeWriter
from csr_qdrant.stores.server_errors import RetryPolicy
from csr_qdrant.stores.server_writer import ServerCodeWriter
from csr_qdrant.stores.writing import CodeWriter

sys.path.insert(0, str(Path(__file__).parent))
from engines import ENGINES, open_client

D, H, K = 8, 32, 4
QUICK = RetryPolicy(attempts=20, first_s=0.001, longest_s=0.01)
Vectors = npt.NDArray[np.float32]


def encoder_of(seed: int = 7, d: int = D) -> Encoder:
    rng = np.random.default_rng(seed)
    return Encoder(
        weight=rng.normal(size=(H, d)).astype(np.float32),
        latent_bias=np.zeros(H, np.float32),
        pre_bias=np.zeros(d, np.float32),
        k=K,
    )


def vectors_of(n: int, seed: int = 0) -> Vectors:
    return np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)


class Target(Protocol):
    """A collection under test."""

    def writer(self) -> Any:
        """Return an open writer, closed at the end of a `with` block."""

    def upsert(self, ids: Iterable[int], vectors: Vectors) -> None:
        """Write whole points without codes."""

    def change(self, ids: Iterable[int], vectors: Vectors) -> None:
        """Change the dense vectors of points, and nothing else."""

    def delete(self, ids: list[int]) -> None:
        """Delete points."""

    def drop_dense(self, ids: list[int]) -> None:
        """Take the dense vectors of points away, and nothing else."""

    def contents(self) -> dict[Any, tuple[Any, dict[str, Any]]]:
        """Return payload and vectors of each point; sparse ones as pairs of lists."""


class EdgeTarget:
    """A bare shard in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        size, distance = engine.EdgeVectorParams, engine.Distance
        vectors = {"text": size(size=D, distance=distance.Dot)}
        vectors["image"] = size(size=3, distance=distance.Cosine)
        engine.EdgeShard.create(str(folder), engine.EdgeConfig(vectors=vectors)).close()

    @contextmanager
    def shard(self) -> Iterator[Any]:
        opened = engine.EdgeShard.load(str(self.folder))
        try:
            yield opened
        finally:
            opened.flush()
            opened.close()

    def writer(self) -> EdgeCodeWriter:
        return EdgeCodeWriter.open(self.folder)

    def upsert(self, ids: Iterable[int], vectors: Vectors) -> None:
        points = [engine.Point(i, v, p) for i, v, p in _rows(ids, vectors)]
        with self.shard() as shard:
            shard.update(engine.UpdateOperation.upsert_points(points))
            shard.optimize()

    def change(self, ids: Iterable[int], vectors: Vectors) -> None:
        pairs = zip(ids, vectors.tolist(), strict=True)
        points = [engine.PointVectors(i, {"text": v}) for i, v in pairs]
        with self.shard() as shard:
            shard.update(engine.UpdateOperation.update_vectors(points))

    def delete(self, ids: list[int]) -> None:
        with self.shard() as shard:
            shard.update(engine.UpdateOperation.delete_points(list(ids)))

    def drop_dense(self, ids: list[int]) -> None:
        with self.shard() as shard:
            shard.update(engine.UpdateOperation.delete_vectors(list(ids), ["text"]))

    def contents(self) -> dict[Any, tuple[Any, dict[str, Any]]]:
        request = engine.ScrollRequest(limit=10**6, with_payload=True, with_vector=True)
        with self.shard() as shard:
            return _contents(shard.scroll(request)[0])


class ClientTarget:
    """A collection behind a client."""

    def __init__(self, client: QdrantClient, name: str) -> None:
        self.client, self.name = client, name
        client.create_collection(
            name,
            vectors_config={
                "text": models.VectorParams(size=D, distance=models.Distance.DOT),
                "image": models.VectorParams(size=3, distance=models.Distance.COSINE),
            },
            metadata={"owner": "somebody else"},
        )

    def writer(self) -> ServerCodeWriter:
        return ServerCodeWriter.open(self.client, self.name, retries=QUICK)

    def upsert(self, ids: Iterable[int], vectors: Vectors) -> None:
        rows = _rows(ids, vectors)
        points = [models.PointStruct(id=i, vector=v, payload=p) for i, v, p in rows]
        self.client.upsert(self.name, points, wait=True)

    def change(self, ids: Iterable[int], vectors: Vectors) -> None:
        pairs = zip(ids, vectors.tolist(), strict=True)
        points = [models.PointVectors(id=i, vector={"text": v}) for i, v in pairs]
        self.client.update_vectors(self.name, points, wait=True)

    def delete(self, ids: list[int]) -> None:
        self.client.delete(self.name, models.PointIdsList(points=list(ids)), wait=True)

    def drop_dense(self, ids: list[int]) -> None:
        self.client.delete_vectors(self.name, ["text"], list(ids), wait=True)

    def contents(self) -> dict[Any, tuple[Any, dict[str, Any]]]:
        found, _ = self.client.scroll(self.name, limit=10**6, with_payload=True, with_vectors=True)
        return _contents(found)


def _rows(ids: Iterable[int], vectors: Vectors) -> Iterator[tuple[int, Any, dict[str, Any]]]:
    for point, vector in zip(ids, vectors.tolist(), strict=True):
        yield point, {"text": vector, "image": [1.0, 0.0, float(point)]}, {"row": point}


def _contents(records: Iterable[Any]) -> dict[Any, tuple[Any, dict[str, Any]]]:
    return {
        record.id: (
            record.payload,
            {
                name: (list(v.indices), list(v.values)) if hasattr(v, "indices") else list(v)
                for name, v in record.vector.items()
            },
        )
        for record in records
    }


def without_codes(contents: dict[Any, Any], name: str = "csr") -> dict[Any, Any]:
    """Return the contents without the vector `name`."""
    return {
        point: (payload, {key: v for key, v in vectors.items() if key != name})
        for point, (payload, vectors) in contents.items()
    }


def check_codes(contents: dict[Any, Any], encoder: Encoder, k: int = K, name: str = "csr") -> None:
    """Raise unless each point has the code of its dense vector, or none if that is zero."""
    assert contents
    points = list(contents)
    dense = np.array([contents[point][1]["text"] for point in points], np.float32)
    codes = encoder.encode(dense, k).normalised().to_lists()
    for point, row, (indices, values) in zip(points, dense, codes, strict=True):
        stored = contents[point][1].get(name)
        if not row.any() or not indices:
            assert stored is None, point
            continue
        assert stored is not None, point
        assert stored[0] == indices, point
        np.testing.assert_allclose(stored[1], values, atol=1e-5)


def target_fixture(n: int) -> Any:
    """Return a fixture that gives a collection of `n` points, over every engine in turn."""

    @pytest.fixture(params=ENGINES)
    def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
        made: Target
        if request.param == "edge":
            made = EdgeTarget(tmp_path / "shard")
            made.upsert(range(n), vectors_of(n))
            yield made
            return
        client = open_client(request.param, request)
        name = f"csr-qdrant-test-{uuid.uuid4().hex}"
        made = ClientTarget(client, name)
        made.upsert(range(n), vectors_of(n))
        yield made
        client.delete_collection(name)  # only what this test made
        client.close()

    return target


class Stop(Exception):
    """What ends a run in the middle, see `Meddled`."""


class Meddled:
    """A writer that calls `meddle(method, count)` before each method; the rest is the writer's.

    Whoever meddles may write to the collection meanwhile.
    """

    exclusive = False

    def __init__(self, writer: CodeWriter, meddle: Any) -> None:
        self._writer, self._meddle = writer, meddle
        self._counts: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._writer, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **keywords: Any) -> Any:
            self._counts[name] = self._counts.get(name, 0) + 1
            self._meddle(name, self._counts[name])
            return found(*arguments, **keywords)

        return call
