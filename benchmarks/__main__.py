"""All measurements, one after the other, and the tables of the documentation from them.

    python -m csr_qdrant.benchmarks [NAME ...]

Each is a module of its own with options (`python -m csr_qdrant.benchmarks.speed_encode --help`);
here they run as the documentation shows them. Without names, all run: about three hours.
"""

import subprocess
import sys
from typing import Annotated

import typer

from csr_qdrant.benchmarks.render import render
from csr_qdrant.errors import ConfigError

NAMES = (
    "speed_train",
    "speed_encode",
    "speed_index",
    "speed_search",
    "speed_attach",
    "memory_index",
    "memory_attach",
    "memory_migrate",
    "demo",
    "quality",
    "equal_time",
)


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Some of them; default: all.")] = None,
) -> None:
    """Run measurements in processes of their own, then render the tables."""
    if unknown := set(names or ()) - set(NAMES):
        raise ConfigError(f"no measurement is called {sorted(unknown)}: there are {NAMES}")
    for name in names or NAMES:
        command = [sys.executable, "-m", f"csr_qdrant.benchmarks.{name}"]
        subprocess.run(command, check=True)
    render()


if __name__ == "__main__":
    typer.run(main)
