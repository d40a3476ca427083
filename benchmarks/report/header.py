"""The facts above a report's tables: task, machine, versions, commit, command, parameters."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from csr_qdrant.benchmarks.report.format import EngineInfo, Report, TaskInfo
from csr_qdrant.benchmarks.report.numbers import measure_name


def header(report: Report) -> dict[str, str]:
    """Return the facts that are known, by name and in order; nothing is made up."""
    task = report.task
    facts = {
        "task": f"{task.name} ({task.kind}), measured by {measure_name(task.measure)}",
        "data": ", ".join(_data(task)),
        "engine": _engine(report.engine),
        "left out": "; ".join(f"{each.system}: {each.why}" for each in report.skipped),
        "machine": _machine(report.machine),
        "versions": ", ".join(f"{n} {_text(v)}" for n, v in report.versions.items() if v),
        "commit": report.commit,
        "created": report.created,
        "command": _command(report.params),
        "parameters": ", ".join(
            f"{name} = {_text(value)}" for name, value in report.params.items() if name != "command"
        ),
    }
    return {name: fact for name, fact in facts.items() if fact}


def settings(mapping: Mapping[str, Any]) -> str:
    """Return a system's settings as `k = 32, query_k = 16`; those that are null are left out."""
    return ", ".join(
        f"{name} = {_text(value)}" for name, value in mapping.items() if value is not None
    )


def _command(params: Mapping[str, Any]) -> str | None:
    command = params.get("command")
    return command if isinstance(command, str) else None


def _data(task: TaskInfo) -> Iterator[str]:
    if task.documents is not None:
        yield f"{task.documents:,.0f} documents"
    if task.queries is not None:
        yield f"{task.queries:,.0f} queries"
    if task.d is not None:
        yield f"{task.d:,.0f} dimensions"
    if task.embedder:
        yield f"embedded by {task.embedder}"


def _engine(engine: EngineInfo | None) -> str:
    if engine is None:
        return ""
    named = f"{engine.name} {engine.version}"
    if engine.embedded:
        return named
    memory = [f"{size / 1e6:,.0f} MB {what}" for what, size in engine.memory_bytes.items() if size]
    whole = f"; the whole server had {' and '.join(memory)} in the end" if memory else ""
    return f"{named}, whose bytes and memory by index are not known{whole}"


def _machine(machine: Mapping[str, Any]) -> str:
    parts = [
        f"{_text(machine['cores'])} cores of" if machine.get("cores") else "",
        _text(machine.get("cpu") or ""),
    ]
    memory = machine.get("memory_gib")
    rest = [
        f"{memory:.0f} GiB" if isinstance(memory, int | float) else "",
        _text(machine.get("gpu") or ""),
    ]
    return ", ".join(filter(None, [" ".join(filter(None, parts)), *rest]))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
