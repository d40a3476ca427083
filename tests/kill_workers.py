"""What tests share that kill runs: programs whose runs are processes of their own."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class Worker:
    """Runs of a program like `indexing_worker.py`, each in a process of its own."""

    def __init__(self, program: Path) -> None:
        command = [sys.executable, str(program)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def run(self, arguments: dict[str, Any], kill_after_s: float | None = None) -> str:
        """Return `done`, or `killed` if the run took longer than that."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({**arguments, "kill_after_s": kill_after_s}) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


def worker_fixture(program: Path) -> Any:
    """Return a fixture that gives all tests of a module one worker."""

    @pytest.fixture(scope="module")
    def worker() -> Iterator[Worker]:
        made = Worker(program)
        yield made
        assert made.process.stdin is not None
        made.process.stdin.close()
        assert made.process.wait(60) == 0

    return worker


def seconds(worker: Worker, arguments: dict[str, Any]) -> float:
    """Return how long a run takes from its beginning to its end."""
    started = time.perf_counter()
    assert worker.run(arguments) == "done"
    return time.perf_counter() - started


def killed_often(worker: Worker, arguments: dict[str, Any], kills: int, within_s: float) -> None:
    """Kill runs at random moments of their first `within_s` seconds, then let one end."""
    moments = random.Random(kills)
    ends = [worker.run(arguments, moments.uniform(0, within_s)) for _ in range(kills)]
    assert set(ends) <= {"killed", "done"} and "killed" in ends
    assert worker.run(arguments) == "done"
