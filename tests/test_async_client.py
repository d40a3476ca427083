"""AsyncCsrQdrant: the same requests as CsrQdrant's, without blocking the loop."""

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from csr_qdrant import AsyncCsrQdrant, Collection, CsrQdrant
from csr_qdrant.codes import SparseCodes
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError

sys.path.insert(0, str(Path(__file__).parent))
from client_world import Calls, D, N, Words, configs, dense_vectors, points

ROW = dense_vectors()[11]
MEMORY: dict[str, Any] = {"location": ":memory:"}
OTHER = {"other": [1.0, 0.0]}


async def opened(
    encoder: Encoder, reach: dict[str, Any] = MEMORY, **settings: Any
) -> tuple[Calls, AsyncCsrQdrant]:
    """Return a collection with 40 points, written through AsyncCsrQdrant."""
    calls = Calls(AsyncQdrantClient(**reach, check_compatibility=False))
    client: Any = calls
    await client.create_collection("c", **configs("text"))
    ours = AsyncCsrQdrant(
        client, encoder, dense_name="text", embedder=Words(dense_vectors()), **settings
    )
    rows = points("text", dense_vectors())
    await asyncio.gather(*(ours.upsert("c", rows[i : i + 4]) for i in range(0, N, 4)))
    calls.made.clear()
    return calls, ours


def synchronous(encoder: Encoder, reach: dict[str, Any]) -> CsrQdrant:
    raw = QdrantClient(**reach, check_compatibility=False)
    raw.delete_collection("c")
    raw.create_collection("c", **configs("text"))
    ours = CsrQdrant(raw, encoder, dense_name="text", embedder=Words(dense_vectors()))
    ours.upsert("c", points("text", dense_vectors()))
    return ours


@pytest.mark.parametrize("kind", ["memory", "rest", "grpc"])
@pytest.mark.parametrize(
    ("ask", "call"),
    [
        (lambda ours: ours.query("c", ROW, limit=5, rescore=12), "query_points"),
        (lambda ours: ours.query("c", "row 11", limit=5, k=2), "query_points"),
        (lambda ours: ours.query("c", ROW, fuse=OTHER, fusion="dbsf"), "query_points"),
        (lambda ours: ours.query_batch("c", ["row 1", "row 2"]), "query_batch_points"),
        (lambda ours: ours.query_batch("c", np.zeros((2, D))), None),
        (lambda ours: ours.query("c", np.zeros(D)), None),
        (lambda ours: ours.query_groups("c", np.zeros(D), "group"), None),
        (lambda ours: ours.query_groups("c", ROW, "group", group_size=2), "query_points_groups"),
        (
            lambda ours: ours.update_vectors(
                "c", [models.PointVectors(id=5, vector={"text": ROW.tolist()})]
            ),
            "update_vectors",
        ),
    ],
)
def test_answers_are_those_of_the_synchronous_client(
    tiny_encoder: Encoder,
    ask: Callable[[Any], Any],
    call: str | None,
    kind: str,
    request: pytest.FixtureRequest,
) -> None:
    reach = MEMORY
    if kind != "memory":
        url, port = request.getfixturevalue("grpc_at")
        reach = {"url": url, "grpc_port": port, "prefer_grpc": kind == "grpc"}

    async def answered() -> Any:
        calls, ours = await opened(tiny_encoder, reach)
        found = await ask(ours)
        assert calls.made == ([call] if call else [])
        return found, (await ours.client.retrieve("c", [5], with_vectors=True))

    found, stored = asyncio.run(answered())
    expected = synchronous(tiny_encoder, reach)
    wanted = ask(expected)
    if call == "update_vectors":  # each engine counts its own writes
        assert found.status == wanted.status
    else:
        assert found == wanted
    assert stored == expected.client.retrieve("c", [5], with_vectors=True)


def test_bad_input_is_refused_before_anything_is_sent(tiny_encoder: Encoder) -> None:
    async def refused() -> None:
        calls, ours = await opened(tiny_encoder)
        with pytest.raises(CsrError, match="point 7 must be 8 numbers"):
            await ours.upsert("c", [models.PointStruct(id=7, vector={"text": [1.0]})])
        with pytest.raises(ConfigError, match="limit must be at least 1"):
            await ours.query("c", ROW, limit=0)
        with pytest.raises(ConfigError, match="texts need an embedder"):
            await AsyncCsrQdrant(ours.client, tiny_encoder).query("c", "a text")
        assert calls.made == []

    asyncio.run(refused())
    client: Any = None
    with pytest.raises(ConfigError, match="concurrency must be at least 1, got 0"):
        AsyncCsrQdrant(client, tiny_encoder, concurrency=0)


def test_check(tiny_encoder: Encoder) -> None:
    async def checked() -> None:
        _, ours = await opened(tiny_encoder)
        with pytest.raises(CsrError, match="collection 'c' in local mode"):
            await ours.check("c")
        raw = QdrantClient(":memory:")
        Collection.create_on(raw, "own", tiny_encoder, keep_dense=True)
        info = raw.get_collection("own")

        async def own(name: str) -> Any:
            assert name == "own"
            return info

        vars(ours.client)["get_collection"] = own
        with pytest.raises(CsrError, match="under the name 'dense', got 'text'"):
            await ours.check("own")
        await AsyncCsrQdrant(ours.client, tiny_encoder, dense_name="dense").check("own")

    asyncio.run(checked())


class Slow:
    """A client whose writes take a while, and that knows how many are under way."""

    def __init__(self) -> None:
        self.now = self.most = self.done = 0

    async def upsert(self, *arguments: Any, **options: Any) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.005)
        self.now -= 1
        self.done += 1


@pytest.mark.parametrize("concurrency", [1, 3])
def test_writes_are_bounded(tiny_encoder: Encoder, concurrency: int) -> None:
    slow: Any = Slow()

    async def write() -> None:
        ours = AsyncCsrQdrant(slow, tiny_encoder, dense_name="text", concurrency=concurrency)
        rows = points("text", dense_vectors())
        await asyncio.gather(*(ours.upsert("c", [row]) for row in rows))

    asyncio.run(write())
    assert (slow.most, slow.done) == (concurrency, N)


def test_a_failed_or_cancelled_write_makes_room_again(tiny_encoder: Encoder) -> None:
    class Failing(Slow):
        async def upsert(self, *arguments: Any, **options: Any) -> None:
            await super().upsert()
            raise OSError("no")

    failing: Any = Failing()

    async def write() -> None:
        ours = AsyncCsrQdrant(failing, tiny_encoder, dense_name="text", concurrency=1)
        rows = points("text", dense_vectors()[:1])
        for _ in range(3):
            with pytest.raises(OSError, match="no"):
                await asyncio.wait_for(ours.upsert("c", rows), 5)
        task = asyncio.create_task(ours.upsert("c", rows))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(OSError, match="no"):
            await asyncio.wait_for(ours.upsert("c", rows), 5)

    asyncio.run(write())


def test_the_loop_goes_on_while_vectors_are_encoded(
    tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, threads = Encoder.encode, set()

    def slowly(self: Encoder, *arguments: Any, **options: Any) -> SparseCodes:
        threads.add(threading.current_thread())
        time.sleep(0.1)
        return encode(self, *arguments, **options)

    async def beats(work: Awaitable[Any]) -> int:
        task, count = asyncio.ensure_future(work), 0
        while not task.done():
            await asyncio.sleep(0.005)
            count += 1
        await task
        return count

    async def watched() -> list[int]:
        _, ours = await opened(tiny_encoder)
        monkeypatch.setattr(Encoder, "encode", slowly)
        rows = points("text", dense_vectors()[:2])
        return [await beats(ours.upsert("c", rows)), await beats(ours.query("c", "row 1"))]

    assert min(asyncio.run(watched())) >= 3
    assert threading.main_thread() not in threads


def test_an_embedder_is_asked_by_one_thread_at_a_time(tiny_encoder: Encoder) -> None:
    class Delicate(Words):
        def __init__(self) -> None:
            super().__init__(dense_vectors())
            self.busy = threading.Lock()

        def embed_queries(self, texts: Any) -> Any:
            assert self.busy.acquire(blocking=False), "asked by two threads at once"
            time.sleep(0.005)
            self.busy.release()
            return super().embed_queries(texts)

    async def ask() -> list[Any]:
        _, first = await opened(tiny_encoder)
        ours = AsyncCsrQdrant(first.client, tiny_encoder, dense_name="text", embedder=Delicate())
        found = await asyncio.gather(*(ours.query("c", f"row {i}", limit=1) for i in range(8)))
        return [answer.points[0].id for answer in found]

    assert asyncio.run(ask()) == list(range(8))
