"""One JSON file a run: what was asked, what came out, and where."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from csr_qdrant.atomic import write_json
from csr_qdrant.benchmarks.measure import commit, machine, versions

RESULTS = Path("benchmarks") / "results"


def write_record(
    name: str, params: Mapping[str, Any], results: Mapping[str, Any], folder: Path = RESULTS
) -> Path:
    """Write `FOLDER/NAME.json`, replacing an earlier run's, and return its path."""
    path = folder / f"{name}.json"
    origin = {"versions": versions(), "machine": machine(), "commit": commit()}
    write_json(path, {"benchmark": name, "params": params, "results": results, **origin})
    return path


def report(name: str, lines: Mapping[str, str], path: Path) -> None:
    """Write one line a measurement, and where all of it stands, to stdout."""
    for what, finding in lines.items():
        typer.echo(f"{name}: {what}: {finding}")
    typer.echo(f"{name}: written to {path}")
