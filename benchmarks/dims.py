"""Codes of k active latents against vectors of m dimensions, by exact search on one task.

    python -m csr_qdrant.benchmarks.dims FOLDER --name fashion

FOLDER holds what `extract_fashion` writes (nearest-neighbour classification), or vectors of the
shipped data set (nDCG@10), which `--embedder` makes. Beside the dense vectors stand their first
dimensions, principal components, one bit a dimension, linear adapters (one trained at all sizes, as
in Matryoshka representation learning, arXiv 2205.13147, and one at full size) and codes; what can
learn from labels or pairs is trained without and with them. Nothing is trained on queries that are
measured. `--tune` measures on dev queries, so that settings are never chosen by the test's.
"""

import ast
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from csr_qdrant.benchmarks.dims_gaps import gaps
from csr_qdrant.benchmarks.dims_systems import nearest
from csr_qdrant.benchmarks.dims_task import DimsTask, load_task
from csr_qdrant.benchmarks.dims_trained import KINDS, DimsConfig, made_by
from csr_qdrant.benchmarks.metrics import Floats, bootstrap_difference
from csr_qdrant.benchmarks.record import RESULTS, write_record
from csr_qdrant.errors import ConfigError


@dataclass(kw_only=True)
class Measured:
    """One line of the table; seeds are added as they come."""

    name: str
    supervision: str | None
    active: int
    bytes: float
    values: list[Floats]  # of each seed, (m,) in the order of the queries
    about: list[dict[str, Any]]  # of each seed: postings, steps, seconds

    @property
    def mean(self) -> Floats:
        """Mean over seeds of each query's value, (m,)."""
        return np.asarray(np.mean(self.values, axis=0), np.float64)

    def to_json(self) -> dict[str, Any]:
        """Return means and the bootstrap interval over queries."""
        pairs = zip(self.values, self.about, strict=True)
        value, low, high = bootstrap_difference(self.mean, np.zeros_like(self.mean))
        return {
            "name": self.name,
            "supervision": self.supervision,
            "active": self.active,
            "bytes": self.bytes,
            "value": value,
            "low": low,
            "high": high,
            "seeds": [{"value": float(v.mean()), **a} for v, a in pairs],
        }


def measure(task: DimsTask, config: DimsConfig) -> dict[tuple[str, int], Measured]:
    """Train and measure every system; the keys are its name and active dimensions."""
    table: dict[tuple[str, int], Measured] = {}
    for made, about in made_by(task, config):
        started = time.perf_counter()
        values = task.judge(nearest(made, task.depth))
        line = table.setdefault(
            (made.name, made.active),
            Measured(
                name=made.name,
                supervision=made.supervision,
                active=made.active,
                bytes=made.bytes,
                values=[],
                about=[],
            ),
        )
        line.values.append(values)
        line.about.append(about)
        took = time.perf_counter() - started
        typer.echo(
            f"dims: {made.name}, {made.active} active: {task.measure} {values.mean():.4f} "
            f"{about or ''} (searched in {took:.0f} s)",
            err=True,
        )
    return table


# --- the command ------------------------------------------------------------------------------

COLUMNS = ("", "active", "bytes", "value", "95 % interval", "postings/query")


def cells(system: Mapping[str, Any]) -> list[str]:
    """Return the cells of one recorded system; postings are in multiples of the gallery's size."""
    touched = [seed["postings"] for seed in system["seeds"] if "postings" in seed]
    return [
        system["name"],
        str(system["active"]),
        f"{system['bytes']:g}",
        f"{system['value']:.4f}",
        f"{system['low']:.4f}–{system['high']:.4f}",
        f"{np.mean(touched):.3f} N" if touched else "–",
    ]


def gap_line(gap: Mapping[str, Any]) -> str:
    """Return one recorded comparison as a sentence."""
    (ours, k), (theirs, m) = gap["ours"], gap["theirs"]
    verdict = ("goal reached" if gap["reached"] else "goal missed") if gap["goal"] else "no goal"
    interval = f"{gap['low']:+.4f} to {gap['high']:+.4f}"
    return f"{ours}, k={k} − {theirs}, {m}: {gap['gap']:+.4f} ({interval}), {verdict}"


def _settings(given: Sequence[str]) -> dict[str, Any]:
    """Return NAME=VALUE settings; values are Python literals, or else strings."""
    found: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals:
            raise ConfigError(f"settings are written NAME=VALUE, got {each!r}")
        try:
            found[name.strip()] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            found[name.strip()] = value
    return found


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of vectors, see above.")],
    name: Annotated[str, typer.Option(help="Name of the record, dims-NAME.json.")],
    minutes: Annotated[float, typer.Option(help="Training time of each encoder.")] = 5.0,
    steps: Annotated[int | None, typer.Option(help="Steps instead of minutes.")] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each kind.")] = 3,
    k: Annotated[str, typer.Option(help="Active latents.")] = "2,4,8,16,32",
    each_k: Annotated[bool, typer.Option("--each-k", help="An encoder for each k.")] = False,
    kinds: Annotated[str, typer.Option(help="Which systems.")] = ",".join(KINDS),
    supervision: Annotated[str, typer.Option(help="without, with, or both.")] = "both",
    setting: Annotated[
        list[str], typer.Option("--set", metavar="NAME=VALUE", help="Setting of the training.")
    ] = [],  # noqa: B006
    adapter_setting: Annotated[
        list[str], typer.Option("--set-adapter", metavar="NAME=VALUE", help="Of the adapters'.")
    ] = [],  # noqa: B006
    tune: Annotated[bool, typer.Option("--tune", help="Measure on dev queries.")] = False,
    embedder: Annotated[
        str | None, typer.Option(help="Embed the shipped data set where FOLDER lacks it.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of torch.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, …; default: the best.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of the record.")] = RESULTS,
) -> None:
    """Train, measure, print a table, and write a record."""
    if threads is not None:
        torch.set_num_threads(threads)
    if supervision not in SUPERVISION:
        raise ConfigError(f"supervision is without, with or both, got {supervision!r}")
    length: dict[str, Any] = {"minutes": minutes} if steps is None else {"steps": steps}
    config = DimsConfig(
        ks=tuple(int(each) for each in _names(k)),
        kinds=_names(kinds),
        supervised=SUPERVISION[supervision],
        seeds=seeds,
        nested=not each_k,
        training={**length, **_settings(setting)},
        adapter=_settings(adapter_setting),
        device=device,
    )
    task = load_task(folder, tune=tune, embedder=embedder)
    params = {
        "name": name,
        "tune": tune,
        "k": k,
        "nested": config.nested,
        "seeds": seeds,
        "threads": torch.get_num_threads(),
        "training": dict(config.training),
        "adapter": dict(config.adapter),
    }
    results = run(task, config)
    path = write_record(f"dims-{name}", params, results, output)
    show(results)
    typer.echo(f"dims: written to {path}")


SUPERVISION = {"without": (False,), "with": (True,), "both": (False, True)}


def run(task: DimsTask, config: DimsConfig) -> dict[str, Any]:
    """Return what the record holds: the task's sizes, each system's values, the comparisons."""
    n, d = task.gallery.shape
    lines = measure(task, config)
    return {
        "measure": task.measure,
        "gallery": n,
        "queries": len(task.queries),
        "d": d,
        "systems": [line.to_json() for line in lines.values()],
        "gaps": gaps(lines, task.supervision, d),
    }


def show(results: Mapping[str, Any]) -> None:
    """Print the table and the comparisons."""
    table = Table(*COLUMNS, title=f"{results['measure']}, {results['queries']:,} queries")
    for system in results["systems"]:
        table.add_row(*cells(system))
    Console(width=100).print(table)
    for gap in results["gaps"]:
        typer.echo(gap_line(gap))


if __name__ == "__main__":
    typer.run(main)
