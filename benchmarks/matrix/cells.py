"""What was measured of each system, kept as soon as it is known: a killed run loses one cell."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from csr_qdrant.atomic import replaced_file, write_json
from csr_qdrant.benchmarks.engine import Engine, Place
from csr_qdrant.benchmarks.matrix.config import WORK
from csr_qdrant.benchmarks.matrix.plans import Plan
from csr_qdrant.benchmarks.matrix.task import BenchTask
from csr_qdrant.benchmarks.metrics import Floats
from csr_qdrant.errors import CsrError

Cell = dict[str, Any]


@dataclass(frozen=True)
class Cells:
    """The folder of one benchmark: `cells/`, and the indexes that they were measured on."""

    folder: Path
    engine: Engine

    @classmethod
    def of(cls, folder: Path, task: BenchTask, engine: Engine) -> "Cells":
        """Take up the benchmark in `folder`, or begin one there.

        Raises CsrError if it holds another task's, or something else.
        """
        about = folder / "benchmark.json"
        told = {
            "task": task.name,
            "fingerprint": task.fingerprint,
            "queries": task.query_fingerprint,
            "depth": task.depth,
            "engine": engine.identity,
        }
        if about.exists():
            found = read_json(about)
            if changed := [name for name, value in told.items() if found.get(name) != value]:
                raise CsrError(
                    f"{folder} holds another benchmark (other {', '.join(changed)}): choose "
                    "another --output, or remove it"
                )
        elif folder.exists() and {path.name for path in folder.iterdir()} - {WORK}:
            raise CsrError(f"{folder} holds something else: choose an empty --output")
        else:
            write_json(about, told)
        return cls(folder, engine)

    def judged_by(self, values: Mapping[str, Floats]) -> None:
        """Take note of what exact results are worth, by which judgements are told apart.

        Raises CsrError if an earlier run here had other measures or judgements.
        """
        digest = hashlib.sha256()
        for name, array in values.items():
            digest.update(name.encode() + np.asarray(array, np.float64).tobytes())
        about = self.folder / "benchmark.json"
        told = read_json(about)
        if told.setdefault("judged", digest.hexdigest()[:16]) != digest.hexdigest()[:16]:
            raise CsrError(
                f"{self.folder} holds figures by other measures or judgements: choose another "
                "--output, or remove it"
            )
        write_json(about, told)

    def place(self, plan: Plan) -> Place:
        """Return where the index that `plan` searches is."""
        return self.engine.place(self.folder / "indexes" / _file_name(plan.index))

    def read(self, plan: Plan) -> Cell | None:
        """Return what was measured of a system with these very settings, or None."""
        path = self._path(plan)
        if not path.exists() or not self.place(plan).exists():
            return None
        cell = read_json(path)
        return cell if cell.get("key") == plan.key else None

    def write(self, plan: Plan, cell: Mapping[str, Any], judged: Mapping[str, Floats]) -> None:
        """Keep a cell, and each query's measures beside it."""
        arrays: dict[str, Any] = {_array_name(name): each for name, each in judged.items()}
        with replaced_file(self._path(plan, ".npz")) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
        write_json(self._path(plan), {"key": plan.key, **cell})

    def judged(self, plan: Plan, measure: str) -> Floats:
        """Return each query's value of a measure, (m,)."""
        with np.load(self._path(plan, ".npz")) as saved:
            return np.asarray(saved[_array_name(measure)], np.float64)

    def _path(self, plan: Plan, ending: str = ".json") -> Path:
        folder = self.folder / "cells"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{_file_name(plan.name)}{ending}"


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.=-]+", "-", text).strip("-")


def _array_name(measure: str) -> str:
    return measure.replace("@", "_at_")


def read_json(path: Path) -> Any:
    """Return a JSON file's value; raises CsrError if it is none."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CsrError(
            f"{path} cannot be read as JSON ({error}): remove it, and run again"
        ) from None
