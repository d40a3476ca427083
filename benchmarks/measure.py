"""Measurements: latencies interleaved over systems, resident memory, the machine."""

import contextlib
import os
import platform
import random
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from csr_qdrant.errors import ConfigError

Call = Callable[[], Any]
PACKAGES = (
    "csr-qdrant",
    "numba",
    "numpy",
    "qdrant-client",
    "qdrant-edge-py",
    "torch",
    "wordllama",
)


class Latency(NamedTuple):
    """Percentiles of the time that one call takes, in milliseconds."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


def latencies(
    calls: Mapping[str, Sequence[Call]], *, warm_up: int = 20, repeats: int = 1
) -> dict[str, Latency]:
    """Time each system's calls one at a time, in turn: call i of every system, then i + 1.

    So whatever else the machine does hits all systems alike. Each turn has a random order, since a
    call finds caches and threads as the one before left them. The first `warm_up` turns are made
    once more beforehand, untimed. All systems need the same number of calls.
    """
    counts = {name: len(own) for name, own in calls.items()}
    if len(set(counts.values())) != 1 or not all(counts.values()) or repeats < 1:
        raise ConfigError(f"systems are timed in turn over equally many calls, got {counts}")
    turns = next(iter(counts.values()))
    for turn in range(min(warm_up, turns)):
        for own in calls.values():
            own[turn]()
    times: dict[str, list[float]] = {name: [] for name in calls}
    names, order = list(calls), random.Random(0)
    for turn in range(turns * repeats):
        for name in order.sample(names, len(names)):
            call = calls[name][turn % turns]
            started = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - started)
    return {name: latency_of(seconds) for name, seconds in times.items()}


def latency_of(seconds: Sequence[float]) -> Latency:
    """Return the percentiles of some durations in seconds."""
    p50, p95, p99 = np.percentile(np.asarray(seconds) * 1000, [50, 95, 99]).tolist()
    return Latency(p50, p95, p99)


def interleaved_medians(calls: Mapping[str, Call], rounds: int) -> dict[str, float]:
    """Return the median duration of each call in seconds, over `rounds` in turn, after one more."""
    repeated = {name: [call] * rounds for name, call in calls.items()}
    found = latencies(repeated, warm_up=1)
    return {name: latency.p50_ms / 1000 for name, latency in found.items()}


def rss_anon_bytes(pid: int | None = None) -> int:
    """Return the anonymous resident memory of a process (None: this one); Linux only.

    Unlike RSS it leaves out pages of mapped files, which the system drops when it needs room.
    """
    status = Path("/proc", "self" if pid is None else str(pid), "status").read_text()
    for line in status.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise ConfigError(f"process {pid or os.getpid()} reports no RssAnon: it has ended")


def machine() -> dict[str, Any]:
    """Describe processor, memory and system, without names that identify the host."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "architecture": platform.machine(),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that matter to a measurement."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def commit() -> str | None:
    """Return the commit that this code was checked out at, with `+` if it has been changed."""
    here = Path(__file__).resolve()
    changes = ["status", "--porcelain", "--untracked-files=no", ":/"]
    try:
        _git(here.parent, "ls-files", "--error-unmatch", here.name)  # or it is someone else's
        name = _git(here.parent, "rev-parse", "--short=12", "HEAD")
        changed = _git(here.parent, *changes, ":!/docs", ":!/benchmarks/results")
    except (OSError, subprocess.CalledProcessError):
        return None
    return name + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on this system
        return 0
