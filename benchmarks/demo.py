"""The demonstration: real verses and topics, two encoders, every way to shrink, one table."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from csr_qdrant.benchmarks.compare import Measured, compare
from csr_qdrant.benchmarks.csr_system import CsrSystem
from csr_qdrant.benchmarks.demo_config import KS, DemoConfig
from csr_qdrant.benchmarks.nave import Nave
from csr_qdrant.benchmarks.nave_task import EMBEDDER, embed, nave_task, train_pairs
from csr_qdrant.benchmarks.record import RESULTS, report, write_record
from csr_qdrant.benchmarks.systems import DenseSystem, System, truncated
from csr_qdrant.collection import Collection
from csr_qdrant.embedders import Embedder, load_embedder
from csr_qdrant.encoder import Encoder
from csr_qdrant.indexing import IndexConfig, Indexed, index_source
from csr_qdrant.sources import open_source
from csr_qdrant.stores.base import Hit
from csr_qdrant.trainer import Listeners, fit
from csr_qdrant.trainer.adapter import adapt, learn_adapter

EXAMPLES = (
    "faith that moves mountains",
    "be kind to strangers and travellers",
    "the wisdom of Solomon",
)
CANDIDATES = 100

Step = Callable[[str], None]


class Answer(NamedTuple):
    """An example query and its hits."""

    query: str
    hits: list[Hit]


class DemoResult(NamedTuple):
    """Everything that the demonstration shows."""

    indexed: Indexed
    answers: list[Answer]
    measured: list[Measured]


def dense_systems(adapter: Any | None = None) -> Iterator[System]:
    """Yield what codes are compared with; `adapter` is a (d, d) matrix learned from the pairs."""
    yield DenseSystem(name="dense float32, exact", m=0)
    yield DenseSystem(name="dense float32, HNSW")
    if adapter is not None:
        yield DenseSystem(
            name="dense adapter (pairs), exact", m=0, transform=lambda rows: adapt(adapter, rows)
        )
    for dims in (8, 16, 32, 64):
        yield truncated(dims, name=f"MRL {dims} dims")
    for dims in (32, 64):
        yield truncated(dims, candidates=CANDIDATES, name=f"MRL {dims} dims, rescored")
    yield DenseSystem(name="binary", m=0, quantisation="binary")
    yield DenseSystem(name="binary, rescored", m=0, quantisation="binary", candidates=CANDIDATES)
    yield DenseSystem(name="binary, HNSW, rescored", quantisation="binary", candidates=CANDIDATES)


def code_systems(label: str, encoder: Encoder) -> Iterator[System]:
    """Yield the codes of one encoder, with and without rescoring."""
    for k in KS:
        yield CsrSystem(name=f"CSR {label} k={k}", encode=encoder.encode, k=k)
    yield CsrSystem(
        name=f"CSR {label} k={KS[-1]}, u8", encode=encoder.encode, k=KS[-1], datatype="u8"
    )
    for k in KS:
        yield CsrSystem(
            name=f"CSR {label} k={k}, rescored", encode=encoder.encode, k=k, candidates=CANDIDATES
        )


def run_demo(
    folder: Path, config: DemoConfig, step: Step, listeners: Callable[[str], Any]
) -> DemoResult:
    """Run the demonstration in `folder`, which must not exist.

    Args:
        folder: takes two encoders, a collection and the systems under test.
        config: settings.
        step: told what begins.
        listeners: gives a context manager of `Listeners` for a training of the given name.
    """
    data = Nave()
    step(f"embedding {len(data.ids):,} verses and their topics with {EMBEDDER}")
    embedder = load_embedder(EMBEDDER)
    embedded = embed(data, embedder)
    pairs = train_pairs(data, embedded.queries["train"])
    settings, info = config.training(), {"embedder": EMBEDDER}
    with listeners("training on the verses alone") as heard:
        alone = fit(embedded.corpus, settings, listeners=heard, info=info)
    with listeners("training with the train pairs") as heard:
        paired = fit(embedded.corpus, settings, pairs=pairs, listeners=heard, info=info)
    alone.save(folder / "encoder")
    paired.save(folder / "encoder-pairs")
    step("indexing the verses into Qdrant Edge")
    indexed, answers = _index_and_ask(data, folder, alone, embedder)
    step("learning the dense adapter from the same pairs")
    adapter = learn_adapter(embedded.corpus, pairs, settings, _cpu())
    systems = [
        *dense_systems(adapter),
        *code_systems("alone", alone),
        *code_systems("pairs", paired),
    ]
    task = nave_task(data, embedded, limit=config.queries)
    started = time.perf_counter()

    def told(name: str) -> None:
        step(f"measuring {name} ({time.perf_counter() - started:.0f} s)")

    measured = compare(systems, task, folder / "systems", progress=told)
    for system in systems:
        system.close()
    return DemoResult(indexed, answers, measured)


def _index_and_ask(
    data: Nave, folder: Path, encoder: Encoder, embedder: Embedder
) -> tuple[Indexed, list[Answer]]:
    target = folder / "verses"
    with Collection.create(target, encoder, keep_dense=True, embedder=embedder) as verses:
        indexed = index_source(open_source(data.folder), verses, IndexConfig())
        answers = [
            Answer(query, verses.search(query, limit=3, rescore=CANDIDATES)) for query in EXAMPLES
        ]
    return indexed, answers


def _cpu() -> Any:
    import torch

    return torch.device("cpu")


def plain_row(measured: Measured) -> dict[str, Any]:
    """Return one system's figures as plain values."""
    return {
        "system": measured.name,
        "ndcg@10": float(measured.ndcg.mean()),
        "recall@10": float(measured.recall.mean()),
        "bytes_per_vector": measured.footprint.searched,
        "bytes_per_vector_for_rescoring": measured.footprint.rescoring,
        "p50_ms": measured.latency.p50_ms,
        "build_seconds": measured.build.total_s,
        "postings_per_query": measured.postings,
    }


COLUMNS = ("system", "nDCG@10", "recall@10", "B/vector", "p50 ms", "build s", "postings/query")


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return the texts of a `plain_row`, for a table under `COLUMNS`."""
    postings = row["postings_per_query"]
    return [
        str(row["system"]),
        f"{row['ndcg@10']:.3f}",
        f"{row['recall@10']:.3f}",
        f"{row['bytes_per_vector']:.0f}",
        f"{row['p50_ms']:.2f}",
        f"{row['build_seconds']:.1f}",
        "–" if postings is None else f"{postings:.2f} N",
    ]


def main(
    minutes: Annotated[
        float, typer.Option(help="Training time of each encoder.")
    ] = DemoConfig.minutes,
    quick: Annotated[bool, typer.Option(help="A few steps and queries only.")] = False,
    output: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Run the demonstration and keep its figures."""
    config = DemoConfig(minutes=minutes, quick=quick)
    with tempfile.TemporaryDirectory() as folder:
        step = partial(typer.echo, err=True)
        result = run_demo(Path(folder), config, step, lambda name: nullcontext(Listeners()))
    rows = [plain_row(measured) for measured in result.measured]
    path = write_record("demo", asdict(config), {"systems": rows}, output)
    report("demo", {row["system"]: ", ".join(cells(row)[1:]) for row in rows}, path)


if __name__ == "__main__":
    typer.run(main)
