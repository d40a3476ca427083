"""Quality of what `csr train` makes in a few minutes, on the shipped data set's test topics.

    python -m csr_qdrant.benchmarks.quality

For each seed two encoders are trained with the default settings: on the verses alone, and with
the train pairs. The pairs have nothing to do with the test topics, but some of their verses; so
supervised figures stand beside those of a dense linear adapter learned from the same pairs, and
everything is given once more on the judged verses that no train pair names.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer

from csr_qdrant.benchmarks.compare import Task
from csr_qdrant.benchmarks.csr_system import CsrSystem
from csr_qdrant.benchmarks.metrics import mean_ndcg, run_of, unseen_judgements, unseen_results
from csr_qdrant.benchmarks.nave import Nave
from csr_qdrant.benchmarks.nave_task import EMBEDDER, embed, nave_task, train_pairs
from csr_qdrant.benchmarks.neighbours import Matrix, exact_neighbours
from csr_qdrant.benchmarks.record import RESULTS, report, write_record
from csr_qdrant.embedders import load_embedder
from csr_qdrant.encoder import Encoder
from csr_qdrant.trainer import TrainConfig, fit
from csr_qdrant.trainer.adapter import adapt, learn_adapter

KS = (8, 16, 32)
DEPTH = 200  # results a query: verses seen in training are taken out of them
GOALS = {"alone": {8: 0.070, 32: 0.090}, "pairs": {32: 0.120}}


def measure_codes(encoder: Encoder, task: Task, seen: frozenset[str], k: int) -> dict[str, Any]:
    """Return nDCG@10, the same on unseen verses, and postings a query in multiples of N."""
    system = CsrSystem(name=f"k={k}", encode=encoder.encode, k=k)
    with tempfile.TemporaryDirectory() as folder:
        system.build(task.vectors, Path(folder) / "shard")
        found = system.search(task.queries, DEPTH)
        postings = float(system.postings(task.queries).mean())
        system.close()
    return {**_ndcg(task, seen, found.rows, found.scores), "postings": postings}


def measure_dense(
    task: Task, seen: frozenset[str], vectors: Matrix, queries: Matrix
) -> dict[str, float]:
    """Return nDCG@10 of exact search, and the same on unseen verses."""
    return _ndcg(task, seen, *exact_neighbours(queries, vectors, DEPTH))


def _ndcg(task: Task, seen: frozenset[str], rows: Any, scores: Any) -> dict[str, float]:
    run = run_of(task.query_ids, task.doc_ids, rows, scores)
    unseen = unseen_judgements(task.qrels, seen)
    return {
        "ndcg": mean_ndcg(run, task.qrels),
        "ndcg_unseen": mean_ndcg(unseen_results(run, seen), unseen),
    }


def train_and_measure(
    minutes: float, seeds: list[int], split: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (kind, result) of each run, and the dense figures first."""
    data = Nave()
    embedded = embed(data, load_embedder(EMBEDDER))
    task, seen = nave_task(data, embedded, split), data.seen_in_training
    pairs = train_pairs(data, embedded.queries["train"])
    yield "dense", measure_dense(task, seen, task.vectors, task.queries)
    for seed in seeds:
        config = TrainConfig(minutes=minutes, seed=seed)
        matrix = learn_adapter(task.vectors, pairs, config, torch.device("cpu"))
        adapted = adapt(matrix, task.vectors), adapt(matrix, task.queries)
        yield "dense adapter", {"seed": seed, **measure_dense(task, seen, *adapted)}
        for kind, supervision in (("alone", None), ("pairs", pairs)):
            encoder = fit(task.vectors, config, pairs=supervision, device="cpu")
            at = {str(k): measure_codes(encoder, task, seen, k) for k in KS}
            made = {name: encoder.info[name] for name in ("steps", "seconds")}
            dead = encoder.info["validations"][-1]["dead"]
            yield kind, {"seed": seed, **made, "dead": dead, "at": at}


def summary(results: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """Return a line for each kind and k: medians over the seeds."""
    lines = {"dense": _line(results["dense"]), "dense adapter": _line(results["dense adapter"])}
    for kind, runs in results.items():
        if "at" not in runs[0]:
            continue
        for k in KS:
            goal = GOALS[kind].get(k)
            wanted = "" if goal is None else f" (goal: at least {goal:.3f})"
            found = [run["at"][str(k)] for run in runs]
            postings = median(each["postings"] for each in found)
            lines[f"{kind}, k={k}"] = f"{_line(found)}, {postings:.2f} N postings a query{wanted}"
    return lines


def _line(runs: list[dict[str, Any]]) -> str:
    whole, unseen = (median(run[name] for run in runs) for name in ("ndcg", "ndcg_unseen"))
    return f"nDCG@10 {whole:.4f}, on unseen verses {unseen:.4f}"


def main(
    minutes: Annotated[float, typer.Option(help="Training time of each encoder.")] = 3.0,
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 3,
    split: Annotated[str, typer.Option(help="Split to measure on.")] = "test",
    output: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Train and measure with several seeds."""
    results: dict[str, list[dict[str, Any]]] = {}
    for kind, result in train_and_measure(minutes, list(range(seeds)), split):
        typer.echo(f"quality: {kind}: {result}", err=True)
        results.setdefault(kind, []).append(result)
    params = {"minutes": minutes, "seeds": seeds, "split": split, "embedder": EMBEDDER}
    path = write_record("quality", params, results, output)
    report("quality", summary(results), path)


if __name__ == "__main__":
    typer.run(main)
