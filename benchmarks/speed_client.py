"""What `CsrQdrant.query` adds to encoding and to the client's own call.

    OMP_NUM_THREADS=1 python -m csr_qdrant.benchmarks.speed_client

The raw call is the user's own `QdrantClient.query_points`, with a code made beforehand; the
comparison is encoding followed by that call, and the time of encoding alone is taken off both. It
is made in local mode at a small size (pure Python, so the engine's share is not a server's), and
over HTTP against a stub on this machine that answers at once with ten hits: with no engine behind
it, about the least that a server can cost, and so the most that the wrapper's share can be. With
one thread, since on few cores the threads of the matrix product spin where the stub should run,
and latencies then lie in two heaps.
"""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from qdrant_client import QdrantClient, models

from csr_qdrant.benchmarks.measure import Latency, latencies
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.benchmarks.record import RESULTS, report, write_record
from csr_qdrant.benchmarks.synthetic import random_encoder
from csr_qdrant.client import CsrQdrant
from csr_qdrant.encoder import Encoder

GOAL = 1.1  # times the raw call's p50, at most, beyond encoding
LIMIT = 10
RESCORE = 100
NAME = "c"


class Found(NamedTuple):
    """Latencies of one way to ask, and their ratio."""

    encode: Latency
    encode_then_raw: Latency
    query: Latency

    @property
    def ratio(self) -> float:
        """Our p50 over the raw call's, both less that of encoding."""
        encode = self.encode.p50_ms
        return (self.query.p50_ms - encode) / (self.encode_then_raw.p50_ms - encode)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        both = {name: each._asdict() for name, each in self._asdict().items()}
        return both | {"ratio_beyond_encoding": self.ratio}


@contextmanager
def stub() -> Iterator[str]:
    """Give the address of a server that answers every query with ten hits, without looking.

    It is a process of its own, as a server is: a thread would compete for the interpreter lock.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    server = context.Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    theirs.close()  # or a server that fails at its start would be waited for
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        server.terminate()
        server.join()


def _serve(port: Connection) -> None:
    hit = {"version": 0, "score": 0.5, "payload": {"title": "row"}}
    hits = [{"id": i, **hit} for i in range(LIMIT)]
    answer = json.dumps({"result": {"points": hits}, "status": "ok", "time": 0.0}).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections stay open, as with a server
        disable_nagle_algorithm = True
        wbufsize = -1  # headers and body in one packet

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    port.send(server.server_address[1])
    server.serve_forever()


def filled(encoder: Encoder, rows: Matrix) -> QdrantClient:
    """Return a client in local mode with a collection of `rows`."""
    client = QdrantClient(":memory:")
    client.create_collection(
        NAME,
        vectors_config=models.VectorParams(size=encoder.d, distance=models.Distance.COSINE),
        sparse_vectors_config={"csr": models.SparseVectorParams()},
    )
    points = [
        models.PointStruct(id=i, vector=row.tolist(), payload={"title": f"row {i}"})
        for i, row in enumerate(rows)
    ]
    CsrQdrant(client, encoder).upsert(NAME, points)
    return client


def measure(
    client: QdrantClient, encoder: Encoder, queries: Matrix, repeats: int, rescore: int
) -> Found:
    """Time queries through CsrQdrant and without it, in turn."""
    ours = CsrQdrant(client, encoder)
    found = latencies(
        {
            "encode": [partial(encoder.encode, queries[i : i + 1]) for i in range(len(queries))],
            "encode_then_raw": raw_calls(client, encoder, queries, rescore),
            "query": [
                partial(ours.query, NAME, query, limit=LIMIT, rescore=rescore) for query in queries
            ],
        },
        repeats=repeats,
    )
    return Found(**found)


def raw_calls(
    client: QdrantClient, encoder: Encoder, queries: Matrix, rescore: int
) -> list[Callable[[], Any]]:
    """Return one call a query that encodes it and asks the client what was prepared beforehand."""
    codes = encoder.encode(queries).normalised().to_qdrant()

    def ask(row: Matrix, **arguments: Any) -> Any:
        encoder.encode(row)
        return client.query_points(NAME, limit=LIMIT, **arguments)

    calls: list[Callable[[], Any]] = []
    for i, code in enumerate(codes):
        arguments: dict[str, Any] = {"query": code, "using": "csr"}
        if rescore:
            prefetch = models.Prefetch(query=code, using="csr", limit=rescore)
            arguments = {"prefetch": prefetch, "query": queries[i].tolist()}
        calls.append(partial(ask, queries[i : i + 1], **arguments))
    return calls


def main(
    rows: Annotated[int, typer.Option(help="Points of the collection in local mode.")] = 1000,
    d: Annotated[int, typer.Option(help="Dimensions.")] = 768,
    h: Annotated[int, typer.Option(help="Latents.")] = 3072,
    k: Annotated[int, typer.Option(help="Active latents.")] = 32,
    queries: Annotated[int, typer.Option(help="Different queries.")] = 100,
    repeats: Annotated[int, typer.Option(help="Times that each is asked.")] = 10,
    output: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Time queries through CsrQdrant against encoding and the client's own call."""
    encoder, random = random_encoder(d=d, h=h, k=k), np.random.default_rng(1)
    asked = random.standard_normal((queries, d)).astype(np.float32)
    local = filled(encoder, random.standard_normal((rows, d)).astype(np.float32))
    with stub() as url:
        remote = QdrantClient(url=url, check_compatibility=False)
        found = {
            f"{where}, {how}": measure(client, encoder, asked, repeats, rescore)
            for where, client in (("http stub", remote), ("local mode", local))
            for how, rescore in (("by code", 0), ("rescored", RESCORE))
        }
        remote.close()
    results = {name: each.to_json() for name, each in found.items()} | {"goal_at_most": GOAL}
    params = {"rows": rows, "d": d, "h": h, "k": k, "queries": queries, "repeats": repeats}
    params["threads"] = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    path = write_record("speed_client", params, results, output)
    lines = {
        name: f"p50 {each.query.p50_ms:.3f} ms, encoding and raw call "
        f"{each.encode_then_raw.p50_ms:.3f} ms, encoding {each.encode.p50_ms:.3f} ms, ratio beyond "
        f"encoding {each.ratio:.3f} (goal: at most {GOAL})"
        for name, each in found.items()
    }
    report("speed_client", lines, path)


if __name__ == "__main__":
    typer.run(main)
