"""Quality of what `csr train` makes in a few minutes, on the shipped data set's test topics.

    python -m csr_qdrant.benchmarks.quality

For each seed two encoders are trained with the default settings: on the verses alone, and with
the train pairs. The pairs have nothing to do with the test topics, but some of their verses; so
supervised figures stand beside those of a dense linear adapter learned from the same pairs, and
everything is given once more on the judged verses that no train pair names.

Trainings run beside each other on one thread each; alone, on all threads, one makes more steps.
"""

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

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

# Active latents of documents and of queries.
KS = ((8, 8), (16, 16), (32, 8), (32, 16), (32, 32))
DEPTH = 200  # results a query: verses seen in training are taken out of them
FEW = 0.6  # postings a query, in N, at most for the goals of `CHEAP_GOALS`
GOALS = {"alone": {"8": 0.085, "32": 0.105}, "pairs": {"8": 0.110}}
CHEAP_GOALS = {"alone": 0.098, "pairs": 0.140}  # for the best at 32 latents a document


def measure_codes(
    encoder: Encoder, task: Task, seen: frozenset[str], k: int, query_k: int
) -> dict[str, Any]:
    """Return nDCG@10, the same on unseen verses, and postings a query in multiples of N."""
    system = CsrSystem(name=f"k={k}", encode=encoder.encode, k=k, query_k=query_k)
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


class Job(NamedTuple):
    """One training, or the dense vectors' own figures."""

    kind: str  # dense, dense adapter, alone or pairs
    seed: int
    minutes: float
    split: str


def run_job(job: Job) -> dict[str, Any]:
    """Train and measure; needs nothing but the installed package."""
    data = Nave()
    embedded = embed(data, load_embedder(EMBEDDER), ("train", job.split))
    task, seen = nave_task(data, embedded, job.split), data.seen_in_training
    if job.kind == "dense":
        return measure_dense(task, seen, task.vectors, task.queries)
    pairs = train_pairs(data, embedded.queries["train"])
    config = TrainConfig(minutes=job.minutes, seed=job.seed)
    if job.kind == "dense adapter":
        matrix = learn_adapter(task.vectors, pairs, config, torch.device("cpu"))
        adapted = adapt(matrix, task.vectors), adapt(matrix, task.queries)
        return {"seed": job.seed, **measure_dense(task, seen, *adapted)}
    supervision = pairs if job.kind == "pairs" else None
    encoder = fit(task.vectors, config, pairs=supervision, device="cpu")
    made = {name: encoder.info[name] for name in ("steps", "seconds")}
    dead = encoder.info["validations"][-1]["dead"]
    at = {_label(*ks): measure_codes(encoder, task, seen, *ks) for ks in KS}
    return {"seed": job.seed, **made, "dead": dead, "at": at}


def _label(k: int, query_k: int) -> str:
    return str(k) if k == query_k else f"{k}, queries {query_k}"


def run_jobs(jobs: list[Job]) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Yield each job's result; as many run at once as there are cores, on one thread each."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # read by the processes that start now
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        yield from zip(jobs, pool.map(run_job, jobs), strict=True)


def summary(results: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """Return a line for each kind and k: medians over the seeds."""
    lines = {"dense": _line(results["dense"]), "dense adapter": _line(results["dense adapter"])}
    for kind, runs in results.items():
        if "at" not in runs[0]:
            continue
        for k in runs[0]["at"]:
            found = [run["at"][k] for run in runs]
            postings = median(each["postings"] for each in found)
            goal = wanted(kind, k, postings)
            lines[f"{kind}, k={k}"] = f"{_line(found)}, {postings:.2f} N postings a query{goal}"
    return lines


def wanted(kind: str, k: str, postings: float) -> str:
    """Return the goal of a row in words, or nothing."""
    goals = [GOALS[kind][k]] if k in GOALS[kind] else []
    if k.startswith("32") and postings <= FEW:
        goals.append(CHEAP_GOALS[kind])
    return f" (goal: at least {max(goals):.3f})" if goals else ""


def _line(runs: list[dict[str, Any]]) -> str:
    whole, unseen = (median(run[name] for run in runs) for name in ("ndcg", "ndcg_unseen"))
    return f"nDCG@10 {whole:.4f}, on unseen verses {unseen:.4f}"


def main(
    minutes: Annotated[float, typer.Option(help="Training time of each encoder.")] = 5.0,
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 3,
    split: Annotated[str, typer.Option(help="Split to measure on.")] = "test",
    output: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Train and measure with several seeds."""
    results: dict[str, list[dict[str, Any]]] = {}
    jobs = [Job("dense", 0, minutes, split)]
    for kind in ("dense adapter", "alone", "pairs"):
        jobs += [Job(kind, seed, minutes, split) for seed in range(seeds)]
    for job, result in run_jobs(jobs):
        typer.echo(f"quality: {job.kind}: {result}", err=True)
        results.setdefault(job.kind, []).append(result)
    params = {"minutes": minutes, "seeds": seeds, "split": split, "embedder": EMBEDDER}
    path = write_record("quality", params, results, output)
    report("quality", summary(results), path)


if __name__ == "__main__":
    typer.run(main)
