"""CSR with rescoring against HNSW in the same engine: latency at equal recall, time to searchable.

    python -m csr_qdrant.benchmarks.equal_recall FILE.npy --name NAME

Real vectors are resampled to a collection (see `resampled`), an encoder is trained on it, and one
index of each kind is built. HNSW is searched at several ef, codes at several numbers of query
latents and of candidates that are scored anew by their float32 vectors, all timed in turn. For each
ef, the fastest codes of at least that recall@10 of the exact dense neighbours are held against it.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from csr_qdrant.benchmarks.csr_system import CsrSystem
from csr_qdrant.benchmarks.engine import BuildReport
from csr_qdrant.benchmarks.faiss_exact import ground_truth
from csr_qdrant.benchmarks.measure import latencies
from csr_qdrant.benchmarks.metrics import recall
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.benchmarks.record import RESULTS, report, write_record
from csr_qdrant.benchmarks.resampled import Resampler, real_vectors, write_resampled
from csr_qdrant.benchmarks.systems import DenseSystem, IndexSystem
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError

LIMIT = 10


@dataclass(frozen=True, kw_only=True)
class EqualRecallConfig:
    """Settings. Raises ConfigError for those that cannot work."""

    rows: int = 100_000
    h: int = 8192
    k: int = 32
    minutes: float = 3.0  # of training, unless its steps are given
    steps: int | None = None
    m: int = 16
    ef_construct: int = 100
    efs: tuple[int, ...] = (16, 32, 64, 128, 256)
    query_ks: tuple[int, ...] = (4, 8, 16, 32)
    candidates: tuple[int, ...] = (20, 50, 100, 200, 400)
    queries: int = 200
    repeats: int = 3

    def __post_init__(self) -> None:
        """Check the settings."""
        if max(self.query_ks, default=0) > self.k:
            raise ConfigError(f"query latents are {self.k} (k) at most, got {self.query_ks}")
        if not (self.efs and self.query_ks and self.candidates):
            raise ConfigError("ef, query latents and candidates each need a value")


class Point(NamedTuple):
    """What one way to search was found to do."""

    name: str
    recall: float  # recall@10 of the exact dense neighbours, mean over queries
    p50_ms: float
    p95_ms: float
    postings: float | None  # touched a query, in multiples of the rows; None without codes


class Equal(NamedTuple):
    """A setting of HNSW, and the fastest codes of at least its recall."""

    hnsw: Point
    codes: Point | None  # None: no setting reaches it

    @property
    def ratio(self) -> float | None:
        """Codes' p50 over HNSW's."""
        return None if self.codes is None else self.codes.p50_ms / self.hnsw.p50_ms


def equals(graphs: Sequence[Point], codes: Sequence[Point]) -> list[Equal]:
    """Return for each point of HNSW the fastest of `codes` with at least its recall."""
    found = []
    for graph in graphs:
        enough = [each for each in codes if each.recall >= graph.recall]
        found.append(Equal(graph, min(enough, key=lambda each: each.p50_ms, default=None)))
    return found


def measured(
    systems: Mapping[str, IndexSystem], vectors: Matrix, queries: Matrix, repeats: int
) -> list[Point]:
    """Return recall and latency of each system, all of them timed in turn."""
    truth = ground_truth(queries, vectors, LIMIT)
    timed = latencies(
        {name: each.calls(queries, LIMIT) for name, each in systems.items()}, repeats=repeats
    )
    points = []
    for name, system in systems.items():
        found = system.search(queries, LIMIT)
        kept = float(recall(found.rows, queries, vectors, LIMIT, truth).mean())
        touched = float(system.postings(queries).mean()) if isinstance(system, CsrSystem) else None
        points.append(Point(name, kept, timed[name].p50_ms, timed[name].p95_ms, touched))
    return points


def compared(
    vectors: Matrix, queries: Matrix, encoder: Encoder, config: EqualRecallConfig, folder: Path
) -> tuple[dict[str, BuildReport], list[Point], list[Point]]:
    """Build both indexes in `folder`; return seconds, points of HNSW and points of codes."""
    queries = queries[: config.queries]
    graph = partial(DenseSystem, m=config.m, ef_construct=config.ef_construct)
    dense = {f"HNSW, ef {ef}": graph(name=f"ef {ef}", ef=ef) for ef in config.efs}
    coded = {
        f"codes, {query_k} query latents, {candidates} candidates": CsrSystem(
            name="codes",
            encode=partial(encoder.encode, k=config.k),
            k=config.k,
            query_k=query_k,
            candidates=candidates,
        )
        for query_k in config.query_ks
        for candidates in config.candidates
    }
    builds = {
        kind: _built(list(systems.values()), vectors, folder / kind)
        for kind, systems in (("hnsw", dense), ("codes", coded))
    }
    try:
        points = measured({**dense, **coded}, vectors, queries, config.repeats)
    finally:
        for systems in (dense, coded):
            next(iter(systems.values())).close()
    return builds, points[: len(dense)], points[len(dense) :]


def _built(systems: Sequence[IndexSystem], vectors: Matrix, folder: Path) -> BuildReport:
    first, *others = systems
    made = first.build(vectors, folder)
    for other in others:
        other.sharing(first)
    return made


def to_json(
    builds: Mapping[str, BuildReport], graphs: Sequence[Point], codes: Sequence[Point]
) -> dict[str, Any]:
    """Return plain values."""
    return {
        "build_s": {kind: made._asdict() for kind, made in builds.items()},
        "optimise_ratio": builds["hnsw"].optimise_s / builds["codes"].optimise_s,
        "points": [each._asdict() for each in (*graphs, *codes)],
        "equal": [
            {
                "hnsw": each.hnsw.name,
                "codes": each.codes.name if each.codes else None,
                "ratio": each.ratio,
            }
            for each in equals(graphs, codes)
        ],
    }


def lines(
    builds: Mapping[str, BuildReport], graphs: Sequence[Point], codes: Sequence[Point]
) -> dict[str, str]:
    """Return what to print."""
    hnsw, ours = builds["hnsw"], builds["codes"]
    said = {
        "optimise": f"HNSW {hnsw.optimise_s:.1f} s, codes {ours.optimise_s:.1f} s, "
        f"{hnsw.optimise_s / ours.optimise_s:.0f} times faster",
        "to searchable": f"HNSW {hnsw.total_s:.1f} s, codes {ours.total_s:.1f} s with encoding",
    }
    for graph, fastest in equals(graphs, codes):
        if fastest is None:
            best = max(each.recall for each in codes)
            said[graph.name] = f"recall {graph.recall:.3f}: no codes reach it, best {best:.3f}"
        else:
            said[graph.name] = (
                f"recall {graph.recall:.3f}, {graph.p50_ms:.3f} ms; {fastest.name}: recall "
                f"{fastest.recall:.3f}, {fastest.p50_ms:.3f} ms, "
                f"{fastest.p50_ms / graph.p50_ms:.2f} times"
            )
    return said


def main(
    vectors: Annotated[
        Path | None, typer.Argument(help="Real vectors, .npy; default: the shipped data set's.")
    ] = None,
    name: Annotated[str, typer.Option(help="Of the record: equal_recall-NAME.json.")] = "nave",
    rows: Annotated[int, typer.Option(help="Rows of the collection.")] = EqualRecallConfig.rows,
    h: Annotated[int, typer.Option(help="Latents.")] = EqualRecallConfig.h,
    k: Annotated[int, typer.Option(help="Active latents of documents.")] = EqualRecallConfig.k,
    minutes: Annotated[float, typer.Option(help="Of training.")] = EqualRecallConfig.minutes,
    steps: Annotated[int | None, typer.Option(help="Of training, instead of minutes.")] = None,
    queries: Annotated[int, typer.Option(help="Queries.")] = EqualRecallConfig.queries,
    output: Annotated[Path, typer.Option(help="Folder for the record.")] = RESULTS,
) -> None:
    """Hold codes against HNSW at equal recall."""
    from csr_qdrant.trainer import TrainConfig, fit

    config = EqualRecallConfig(rows=rows, h=h, k=k, minutes=minutes, steps=steps, queries=queries)
    real = real_vectors(vectors)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        collection = write_resampled(
            folder / "vectors.npy", Resampler.fitted_to(real.vectors), config.rows
        )
        ks = tuple(sorted({*config.query_ks, config.k}))
        length: Any = {"steps": steps} if steps else {"minutes": config.minutes}
        encoder = fit(collection, TrainConfig(k=ks, h=config.h, **length))
        wanted = np.asarray(real.queries[: config.queries])
        builds, graphs, codes = compared(collection, wanted, encoder, config, folder)
    lists = {key: value for key, value in asdict(config).items() if isinstance(value, int | float)}
    params = {"vectors": name, "d": encoder.d, **lists}
    path = write_record(f"equal_recall-{name}", params, to_json(builds, graphs, codes), output)
    report("equal_recall", lines(builds, graphs, codes), path)


if __name__ == "__main__":
    typer.run(main)
