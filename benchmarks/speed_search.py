"""What `Collection.search` adds to the engine's own time.

    python -m csr_qdrant.benchmarks.speed_search

The raw call is made on the collection's own engine handle, with a request built beforehand that
asks for the same hits and payloads. A search by codes is compared with it directly. A search by a
dense vector is compared with encoding followed by the raw call, and the time of encoding alone is
taken off both. Each comparison is a run of its own, for encoding leaves caches and threads in
another state; within a run the calls take turns, query by query.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import qdrant_edge
import typer

from csr_qdrant.benchmarks.measure import Latency, latencies
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.benchmarks.record import RESULTS, report, write_record
from csr_qdrant.benchmarks.synthetic import random_codes, random_encoder, random_vectors
from csr_qdrant.collection import Collection
from csr_qdrant.encoder import Encoder

GOAL = 1.2  # times the raw call's p50, at most, beyond encoding
LIMIT = 10
BATCH = 10_000


def filled(folder: Path, encoder: Encoder, n: int) -> Collection:
    """Return an optimised collection of `n` made-up codes with a small payload each."""
    collection = Collection.create(folder, encoder)
    codes = random_codes(n, h=encoder.h, k=encoder.k)
    for start in range(0, n, BATCH):
        part = codes[start : start + BATCH]
        payloads = [{"title": f"row {start + i}"} for i in range(len(part))]
        collection.add(range(start, start + len(part)), codes=part, payloads=payloads)
    collection.flush()
    collection.optimise()
    return collection


def raw_calls(collection: Collection, queries: Matrix) -> list[Callable[[], Any]]:
    """Return one call a query to the engine that `collection` holds open."""
    shard: Any = vars(collection.store)["_handle"]  # a folder can be open only once
    codes = collection.encoder.encode(queries).normalised()
    nearest = [
        qdrant_edge.Query.Nearest(code, using=collection.store.schema.code_name)
        for code in codes.to_edge()
    ]
    return [
        partial(shard.query, qdrant_edge.QueryRequest(limit=LIMIT, query=query, with_payload=True))
        for query in nearest
    ]


def our_calls(collection: Collection, queries: Matrix) -> dict[str, list[Callable[[], Any]]]:
    """Return the calls of both ways to search, one a query each."""
    encoder = collection.encoder
    codes = [encoder.encode(queries[i : i + 1]) for i in range(len(queries))]
    return {
        "search_codes": [partial(collection.search, code, limit=LIMIT) for code in codes],
        "search_vector": [partial(collection.search, query, limit=LIMIT) for query in queries],
    }


def encoding_calls(
    encoder: Encoder, queries: Matrix, raw: list[Callable[[], Any]]
) -> dict[str, list[Callable[[], Any]]]:
    """Return the calls that encode, and that encode before each of the `raw` ones."""
    encode = [partial(encoder.encode, queries[i : i + 1]) for i in range(len(queries))]

    def both(first: Callable[[], Any], then: Callable[[], Any]) -> Any:
        first()
        return then()

    pairs = zip(encode, raw, strict=True)
    return {
        "encode": list(encode),
        "encode_then_raw": [partial(both, first, then) for first, then in pairs],
    }


def measure(collection: Collection, queries: Matrix, repeats: int) -> dict[str, Latency]:
    """Return the latencies of all calls, of each comparison in a run of its own."""
    raw, ours = raw_calls(collection, queries), our_calls(collection, queries)
    beside = encoding_calls(collection.encoder, queries, raw)
    by_codes = {"raw": raw, "search_codes": ours["search_codes"]}
    by_vector = {**beside, "search_vector": ours["search_vector"]}
    return latencies(by_codes, repeats=repeats) | latencies(by_vector, repeats=repeats)


def main(
    rows: Annotated[int, typer.Option(help="Points of the collection.")] = 100_000,
    d: Annotated[int, typer.Option(help="Dimensions.")] = 768,
    h: Annotated[int, typer.Option(help="Latents.")] = 3072,
    k: Annotated[int, typer.Option(help="Active latents.")] = 32,
    queries: Annotated[int, typer.Option(help="Different queries.")] = 500,
    repeats: Annotated[int, typer.Option(help="Times that each is asked.")] = 4,
    output: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Time searches through a collection against raw calls to its engine."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        asked = np.array(random_vectors(folder / "queries.npy", queries, d, seed=1))
        with filled(folder / "collection", random_encoder(d=d, h=h, k=k), rows) as collection:
            found = measure(collection, asked, repeats)
    p50 = {name: latency.p50_ms for name, latency in found.items()}
    by_codes = p50["search_codes"] / p50["raw"]
    by_vector = (p50["search_vector"] - p50["encode"]) / (p50["encode_then_raw"] - p50["encode"])
    results = {
        **{name: latency._asdict() for name, latency in found.items()},
        "ratio_by_codes": by_codes,
        "ratio_by_vector_beyond_encoding": by_vector,
        "goal_at_most": GOAL,
    }
    params = {"rows": rows, "d": d, "h": h, "k": k, "queries": queries, "repeats": repeats}
    path = write_record("speed_search", params, results, output)
    times = ", ".join(f"{name} {each:.3f}" for name, each in p50.items())
    ratios = f"by codes {by_codes:.2f}, by vector {by_vector:.2f} (goal: at most {GOAL})"
    report("speed_search", {"p50 in ms": times, "ratio beyond encoding": ratios}, path)


if __name__ == "__main__":
    typer.run(main)
