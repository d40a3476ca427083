"""A benchmark from plan to report: indexes built one by one, then all timed together."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from csr_qdrant.atomic import write_json
from csr_qdrant.benchmarks.csr_system import CsrSystem
from csr_qdrant.benchmarks.edge_engine import EdgeEngine
from csr_qdrant.benchmarks.engine import Engine
from csr_qdrant.benchmarks.faiss_exact import ground_truth
from csr_qdrant.benchmarks.matrix.cells import Cell, Cells, read_json
from csr_qdrant.benchmarks.matrix.config import BenchConfig
from csr_qdrant.benchmarks.matrix.models import Models, Watch
from csr_qdrant.benchmarks.matrix.outcome import outcome
from csr_qdrant.benchmarks.matrix.plans import Plan, plans
from csr_qdrant.benchmarks.matrix.statistics import mean_interval
from csr_qdrant.benchmarks.matrix.task import BenchTask, limited
from csr_qdrant.benchmarks.matrix.timing import measured_together
from csr_qdrant.benchmarks.measure import rss_anon_bytes
from csr_qdrant.benchmarks.metrics import Floats, recall
from csr_qdrant.benchmarks.neighbours import Matrix, Neighbours
from csr_qdrant.benchmarks.systems import IndexSystem
from csr_qdrant.errors import CsrError

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
    engine: Engine | None = None,
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
        engine: takes the indexes; None: the embedded one.

    Raises CsrError if the folder holds something else, and whatever training and building raise.
    """
    task = limited(task, config.max_queries)
    _check_directions(task, config)
    engine = engine or EdgeEngine()
    cells = Cells.of(folder, task, engine)
    tell(f"{task.name}: {len(task.vectors):,} vectors, {len(task.queries):,} queries")
    truth = _truth(task, folder, tell)
    cells.judged_by(task.judge(truth))
    models = Models(task, config, folder / "models", watch, tell)
    listed, skipped = _possible(plans(models, task.vectors.shape[1]), engine, tell)
    for _, group in groupby(listed, key=lambda plan: plan.index):
        _measure_index(list(group), cells, task, truth, tell)
    tell("latencies and throughput of all in turn")
    timed = _timed(listed, cells, task, config)
    report = outcome(listed, cells, task, config, timed)
    if skipped:
        report["skipped"] = skipped
    if command is not None:
        report["params"] = {"command": command, **report["params"]}
    write_json(folder / REPORT, report)
    engine.finished()
    return report


def _possible(
    listed: Sequence[Plan], engine: Engine, tell: Tell
) -> tuple[list[Plan], list[dict[str, str]]]:
    """Return the plans that the engine can build, and the others' names with the reason."""
    lacking = {
        plan.name: engine.lacks(str(plan.settings.get("quantisation") or "")) for plan in listed
    }
    skipped = [{"system": name, "why": why} for name, why in lacking.items() if why]
    for each in skipped:
        tell(f"{each['system']} is left out: {each['why']}")
    return [plan for plan in listed if not lacking[plan.name]], skipped


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
    place, first = cells.place(group[0]), group[0].make()
    built = place.beside(".built.json")
    if place.exists() and built.exists():
        seconds = read_json(built)
        first.open(place, len(task.vectors))
    else:
        tell(f"building {group[0].name}")
        place.clear()  # of what a run left that was killed while it built
        built.unlink(missing_ok=True)
        made = first.build(task.vectors, place)
        seconds = {"encode": made.encode_s, "upload": made.upload_s, "optimise": made.optimise_s}
        write_json(built, seconds)
    try:
        for plan in missing:
            tell(f"measuring {plan.name}")
            system = plan.make()
            system.sharing(first)
            cell, judged = _cell(system, task, truth, weighed=cells.engine.embedded)
            cell["build_s"] = {"train": plan.train_s, **seconds}
            cells.write(plan, cell, judged)
    finally:
        first.close()


def _cell(
    system: IndexSystem, task: BenchTask, truth: Neighbours, *, weighed: bool
) -> tuple[Cell, Mapping[str, Floats]]:
    found = system.search(task.queries, task.depth)
    judged = dict(task.judge(Neighbours(found.rows, found.scores)))
    fidelity = recall(found.rows, task.queries, task.vectors, task.depth, truth)
    footprint = system.footprint()._asdict() if weighed else {}
    cell: Cell = {
        "quality": {
            name: mean_interval(values, task.clusters)._asdict() for name, values in judged.items()
        },
        "fidelity": {f"recall@{task.depth}": float(fidelity.mean())},
        "bytes_per_vector": footprint,
        "postings": _postings(system, task.queries),
    }
    return cell, {**judged, "recall": fidelity}


def _postings(system: IndexSystem, queries: Matrix) -> dict[str, float] | None:
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
    opened: dict[str, IndexSystem] = {}  # by index
    systems: dict[str, IndexSystem] = {}
    memory: dict[str, float | None] = {}
    try:
        for plan in listed:
            system = plan.make()
            if plan.index in opened:
                system.sharing(opened[plan.index])
            else:
                before = _anonymous()
                system.open(cells.place(plan), len(task.vectors))
                opened[plan.index] = system
                system.search(queries[:20], task.depth)
                after = _anonymous() if cells.engine.embedded else None
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
