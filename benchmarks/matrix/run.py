"""A benchmark from plan to report: indexes built one by one, then all timed together."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from csr_qdrant.atomic import write_json
from csr_qdrant.benchmarks.csr_system import CsrSystem
from csr_qdrant.benchmarks.faiss_exact import ground_truth
from csr_qdrant.benchmarks.matrix.cells import Cell, Cells, read_json
from csr_qdrant.benchmarks.matrix.config import BenchConfig
from csr_qdrant.benchmarks.matrix.models import Models, Watch
from csr_qdrant.benchmarks.matrix.plans import BASELINE, Plan, plans
from csr_qdrant.benchmarks.matrix.statistics import compared, holm, mean_interval
from csr_qdrant.benchmarks.matrix.task import BenchTask, limited
from csr_qdrant.benchmarks.matrix.timing import measured_together
from csr_qdrant.benchmarks.measure import commit, machine, rss_anon_bytes, versions
from csr_qdrant.benchmarks.metrics import Floats, recall
from csr_qdrant.benchmarks.neighbours import Matrix, Neighbours
from csr_qdrant.benchmarks.systems import EdgeSystem
from csr_qdrant.errors import CsrError

FORMAT = "csr-bench/1"
REPORT = "report.json"
LEARNED = {"pca", "mrl", "adapter", "csr"}
READ_ROWS = 16_384

Tell = Callable[[str], None]


def run_benchmark(
    task: BenchTask,
    config: BenchConfig,
    folder: Path,
    tell: Tell,
    watch: Watch,
    command: str | None = None,
) -> dict[str, Any]:
    """Measure a task's systems in `folder`, write `report.json` there, and return it.

    Cells that a killed or an earlier run with the same settings finished are not measured again;
    latencies are, since only those taken together can be compared.

    Args:
        task: vectors, queries, measures.
        config: systems and settings.
        folder: takes models, indexes and cells; new, or that of an earlier run.
        tell: told what begins.
        watch: gives the listeners of a training, by its name.
        command: the command line, for the report.

    Raises CsrError if the folder holds something else, and whatever training and building raise.
    """
    task = limited(task, config.max_queries)
    _check_directions(task, config)
    cells = Cells.of(folder, task)
    tell(f"{task.name}: {len(task.vectors):,} vectors, {len(task.queries):,} queries")
    truth = _truth(task, folder, tell)
    cells.judged_by(task.judge(truth))
    listed = plans(Models(task, config, folder / "models", watch, tell), task.vectors.shape[1])
    for _, group in groupby(listed, key=lambda plan: plan.index):
        _measure_index(list(group), cells, task, truth, tell)
    tell("latencies and throughput of all in turn")
    timed = _timed(listed, cells, task, config)
    report = _report(listed, cells, task, config, timed)
    if command is not None:
        report["params"] = {"command": command, **report["params"]}
    write_json(folder / REPORT, report)
    return report


def _check_directions(task: BenchTask, config: BenchConfig) -> None:
    """Raise CsrError for rows without a direction, where something is to learn from all rows."""
    learned = LEARNED.intersection(config.systems) - ({"csr"} if config.encoder else set())
    if not learned:
        return
    for start in range(0, len(task.vectors), READ_ROWS):
        zero = ~np.asarray(task.vectors[start : start + READ_ROWS]).any(axis=1)
        if zero.any():
            raise CsrError(
                f"row {start + int(zero.argmax())} of {task.name} is all zeros, which nothing is "
                f"learned from: remove such rows, or leave {', '.join(sorted(learned))} out of "
                "--systems"
            )


def _truth(task: BenchTask, folder: Path, tell: Tell) -> Neighbours:
    path = folder / "neighbours.npz"
    if path.exists():
        with np.load(path) as saved:
            return Neighbours(saved["rows"], saved["scores"])
    tell("exact neighbours")
    found = ground_truth(task.queries, task.vectors, task.depth)
    partial = path.with_suffix(".part.npz")
    np.savez(partial, rows=found.rows, scores=found.scores)
    partial.replace(path)
    return found


# --- one index --------------------------------------------------------------------------------


def _measure_index(
    group: Sequence[Plan], cells: Cells, task: BenchTask, truth: Neighbours, tell: Tell
) -> None:
    """Build the index of `group`, whose systems search it, and keep a cell of each."""
    missing = [plan for plan in group if cells.read(plan) is None]
    if not missing:
        return
    folder = cells.index_folder(group[0])
    built = folder.with_name(f"{folder.name}.built.json")
    first = group[0].make()
    if folder.exists() and built.exists():
        seconds = read_json(built)
        first.open(folder, len(task.vectors))
    else:
        tell(f"building {group[0].name}")
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed while it built
        made = first.build(task.vectors, folder)
        seconds = {"encode": made.encode_s, "upload": made.upload_s, "optimise": made.optimise_s}
        write_json(built, seconds)
    try:
        for plan in missing:
            tell(f"measuring {plan.name}")
            system = plan.make()
            system.sharing(first)
            cell, judged = _cell(plan, system, task, truth)
            cell["build_s"] = {"train": plan.train_s, **seconds}
            cells.write(plan, cell, judged)
    finally:
        first.close()


def _cell(
    plan: Plan, system: EdgeSystem, task: BenchTask, truth: Neighbours
) -> tuple[Cell, Mapping[str, Floats]]:
    found = system.search(task.queries, task.depth)
    judged = dict(task.judge(Neighbours(found.rows, found.scores)))
    fidelity = recall(found.rows, task.queries, task.vectors, task.depth, truth)
    footprint = system.footprint()._asdict()
    cell: Cell = {
        "quality": {
            name: mean_interval(values, task.clusters)._asdict() for name, values in judged.items()
        },
        "fidelity": {f"recall@{task.depth}": float(fidelity.mean())},
        "bytes_per_vector": footprint,
        "postings": _postings(system, task.queries),
    }
    return cell, {**judged, "recall": fidelity}


def _postings(system: EdgeSystem, queries: Matrix) -> dict[str, float] | None:
    if not isinstance(system, CsrSystem):
        return None
    lists, rows = system.lists, system.rows
    used = np.sort(lists[lists > 0])
    return {
        "per_query_n": float(system.postings(queries).mean()),
        "nonzeros": float(lists.sum() / rows),
        "longest": float(lists.max()),
        "median": float(np.median(used)) if len(used) else 0.0,
        "dead": float((lists == 0).mean()),
    }


# --- all together -----------------------------------------------------------------------------


def _timed(
    listed: Sequence[Plan], cells: Cells, task: BenchTask, config: BenchConfig
) -> dict[str, dict[str, Any]]:
    count = min(config.timed, len(task.queries))
    queries = task.queries[np.linspace(0, len(task.queries) - 1, count, dtype=np.int64)]
    opened: dict[str, EdgeSystem] = {}  # by index
    systems: dict[str, EdgeSystem] = {}
    memory: dict[str, float | None] = {}
    try:
        for plan in listed:
            system = plan.make()
            if plan.index in opened:
                system.sharing(opened[plan.index])
            else:
                before = _anonymous()
                system.open(cells.index_folder(plan), len(task.vectors))
                opened[plan.index] = system
                system.search(queries[:20], task.depth)
                after = _anonymous()
                memory[plan.index] = (
                    None if before is None or after is None else max(0, after - before) / 1e6
                )
            systems[plan.name] = system
        timed = measured_together(listed, systems, queries, task.depth, config.clients)
    finally:
        for system in opened.values():
            system.close()
    return {plan.name: {**timed[plan.name], "rss_anon_mb": memory[plan.index]} for plan in listed}


def _anonymous() -> int | None:
    """Return the process's anonymous memory, None where the system does not tell it."""
    try:
        return rss_anon_bytes()
    except OSError:
        return None


def _report(
    listed: Sequence[Plan],
    cells: Cells,
    task: BenchTask,
    config: BenchConfig,
    timed: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    found = {plan.name: cells.read(plan) or {} for plan in listed}
    return {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "task": {
            "name": task.name,
            "kind": task.kind,
            "documents": len(task.vectors),
            "queries": len(task.queries),
            "d": task.vectors.shape[1],
            "embedder": task.embedder,
            "measure": task.measure or f"recall@{task.depth}",
        },
        "params": {**asdict(config), "encoder": [str(path) for path in config.encoder]},
        "systems": [
            {
                "name": plan.name,
                "family": plan.family,
                "rescored": plan.rescored,
                "settings": dict(plan.settings),
                **{name: value for name, value in found[plan.name].items() if name != "key"},
                **timed[plan.name],
            }
            for plan in listed
        ],
        "comparisons": _comparisons(listed, cells, task),
    }


def _comparisons(listed: Sequence[Plan], cells: Cells, task: BenchTask) -> list[dict[str, Any]]:
    """Hold each system against exact dense search; Holm over all of them."""
    measure = task.measure or "recall"
    baseline = next(plan for plan in listed if plan.name == BASELINE)
    expected = cells.judged(baseline, measure)
    results = {
        plan.name: compared(cells.judged(plan, measure), expected, task.clusters)
        for plan in listed
        if plan is not baseline
    }
    adjusted = holm({name: result.p for name, result in results.items()})
    return [
        {
            "baseline": BASELINE,
            "system": name,
            "measure": task.measure or f"recall@{task.depth}",
            "difference": result.difference.mean,
            "low": result.difference.low,
            "high": result.difference.high,
            "p": result.p,
            "p_holm": adjusted[name],
            "wins": result.wins,
            "losses": result.losses,
            "ties": result.ties,
            "d_z": result.d_z,
        }
        for name, result in results.items()
    ]
