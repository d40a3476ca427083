"""What a run found, as the document of its report."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from csr_qdrant.benchmarks.engine import Engine
from csr_qdrant.benchmarks.matrix.cells import Cells
from csr_qdrant.benchmarks.matrix.config import BenchConfig
from csr_qdrant.benchmarks.matrix.plans import BASELINE, Plan
from csr_qdrant.benchmarks.matrix.statistics import compared, holm
from csr_qdrant.benchmarks.matrix.task import BenchTask
from csr_qdrant.benchmarks.measure import commit, machine, versions
from csr_qdrant.benchmarks.report.format import FORMAT


def outcome(
    listed: Sequence[Plan],
    cells: Cells,
    task: BenchTask,
    config: BenchConfig,
    timed: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the report of a run: what `cells` keeps, and what was `timed` of each system."""
    found = {plan.name: cells.read(plan) or {} for plan in listed}
    return {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "engine": _engine(cells.engine),
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


def _engine(engine: Engine) -> dict[str, Any]:
    memory = engine.memory_bytes()
    told: dict[str, Any] = {
        "name": engine.name,
        "version": engine.version,
        "embedded": engine.embedded,
    }
    return told | ({"memory_bytes": dict(memory)} if memory else {})
