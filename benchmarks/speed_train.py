"""How long a training step takes, and how much memory, against others that make the same one.

    python -m csr_qdrant.benchmarks.speed_train

Compared are the trainer's step, the plain reference (`benchmarks.plain`), sentence-transformers on
precomputed vectors, and the two matrix products that every step needs. A step is loss, gradients,
clipping and AdamW; steps alternate, after one of each that is not timed, and medians are compared.
The memory of a step is that of a process of its own. All losses must agree, or nothing is recorded.
"""

import ctypes
import gc
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import torch
import typer

from csr_qdrant.benchmarks.record import RESULTS, report, write_record
from csr_qdrant.benchmarks.speed_train_peers import STEPS, floor, make_case, ours, paper_config
from csr_qdrant.errors import CsrError
from csr_qdrant.trainer import TrainConfig

TOLERANCE = 1e-3  # of losses that should be equal, relative
BUSY = 0.7  # load average of a machine that does something else too
QUICK = ("ours", "floor")  # so they can be timed several times a round


class Ratio(NamedTuple):
    """One figure over another."""

    of: str  # "step_s" or "peak_mb"
    above: str
    below: str


RATIOS = {
    "plain / ours": Ratio("step_s", "plain", "ours"),
    "ours / floor": Ratio("step_s", "ours", "floor"),
    "sentence-transformers / ours": Ratio("step_s", "sentence-transformers", "ours"),
    "memory, ours / plain": Ratio("peak_mb", "ours", "plain"),
}
GOALS = {
    "all alive": {
        "plain / ours": {"goal_at_least": 8.0},
        "ours / floor": {"goal_at_most": 2.5},
        "sentence-transformers / ours": {"goal_at_least": 4.0},
        "memory, ours / plain": {"goal_at_most": 1 / 3},
    },
    "some dead": {
        "sentence-transformers / ours": {"goal_at_least": 2.0},
        "memory, ours / plain": {"goal_at_most": 1 / 3},
    },
}


class Sizes(NamedTuple):
    """Of a batch and a model."""

    rows: int
    d: int
    h: int
    k: int


def interleaved(
    calls: Mapping[str, Callable[[], object]], rounds: int, repeats: Mapping[str, int]
) -> dict[str, float]:
    """Return the median duration of each call in seconds.

    A round makes each call once, or as often as `repeats` says, in random order.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    turns = [name for name in calls for _ in range(repeats.get(name, 1))]
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(turns, len(turns)):
            started = time.perf_counter()
            calls[name]()
            times[name].append(time.perf_counter() - started)
    return {name: median(seconds) for name, seconds in times.items()}


def measure_steps(sizes: Sizes, dead: float, rounds: int, repeats: int) -> dict[str, Any]:
    """Return seconds a step and the loss of the first step of each system.

    Raises CsrError if the systems' losses differ.
    """
    case = make_case(paper_config(sizes.k), sizes.rows, sizes.d, sizes.h, dead)
    steps = {name: make(case) for name, make in STEPS.items()}
    losses = {name: float(step()) for name, step in steps.items()}  # and all is compiled
    if max(losses.values()) - min(losses.values()) > TOLERANCE * abs(losses["plain"]):
        raise CsrError(f"the systems' losses differ, so their times say nothing: {losses}")
    products = floor(case)
    products()
    calls: dict[str, Callable[[], object]] = {**steps, "floor": products}
    return {
        "step_s": interleaved(calls, rounds, dict.fromkeys(QUICK, repeats)),
        "loss": losses,
    }


def measure_default(sizes: Sizes, rounds: int) -> dict[str, Any]:
    """Return the seconds of a step in default settings, distillation and all, a mean over its k."""
    case = make_case(TrainConfig(), sizes.rows, sizes.d, sizes.h, 0.0)
    step, products = ours(case), floor(case)
    ks = case.config.k

    def each_k() -> None:
        for _ in ks:
            step()

    each_k()
    products()
    found = interleaved({"ours": each_k, "floor": products}, rounds, {})
    return {"step_s": {**found, "ours": found["ours"] / len(ks)}, "k": list(ks)}


# --- memory -----------------------------------------------------------------------------------


def peak_bytes(system: str, sizes: Sizes, dead: float, threads: int) -> int:
    """Return what a step of `system` takes beyond what is resident before, in its own process.

    Raises CsrError if the process fails.
    """
    options = {**sizes._asdict(), "dead": dead, "threads": threads, "run": system}
    command = [sys.executable, "-m", __spec__.name]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise CsrError(f"{system} ended with status {done.returncode}: see its message above")
    found: int = json.loads(done.stdout)
    return found


def own_peak_bytes(system: str, sizes: Sizes, dead: float) -> int:
    """Return the peak of this process in two steps of `system` beyond what was resident before.

    A step of a small batch comes first: what it compiles and loads is no memory of a step.
    """
    config = paper_config(sizes.k)
    STEPS[system](make_case(config, min(sizes.rows, 64), sizes.d, sizes.h, dead))()
    step = STEPS[system](make_case(config, sizes.rows, sizes.d, sizes.h, dead))
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc keeps freed memory, and would use it again
        ctypes.CDLL(None).malloc_trim(0)
    # Linux then forgets the peak so far (man 5 proc_pid_clear_refs).
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_bytes("VmRSS")
    step()
    step()  # with AdamW's averages, which the first one makes
    return _status_bytes("VmHWM") - before


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


# --- the command ------------------------------------------------------------------------------


def ratios(found: Mapping[str, Any], goals: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Return the ratios of what was measured, with their goals."""
    return {
        name: {"ratio": found[r.of][r.above] / found[r.of][r.below], **goals.get(name, {})}
        for name, r in RATIOS.items()
        if r.of in found
    }


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Give torch so many threads in the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def main(
    rows: Annotated[int, typer.Option(help="Rows of the batch.")] = 4096,
    d: Annotated[int, typer.Option(help="Dimensions.")] = 768,
    h: Annotated[int, typer.Option(help="Latents.")] = 3072,
    k: Annotated[int, typer.Option(help="Active latents.")] = 32,
    dead: Annotated[float, typer.Option(help="Share of dead latents, where there are some.")] = 0.2,
    threads: Annotated[int, typer.Option(help="Threads of every system.")] = 2,
    rounds: Annotated[int, typer.Option(help="Rounds over all systems.")] = 3,
    repeats: Annotated[int, typer.Option(help="Steps of the quick systems a round.")] = 5,
    default_rows: Annotated[int, typer.Option(help="Rows in default settings.")] = 512,
    default_d: Annotated[int, typer.Option(help="Dimensions in default settings.")] = 256,
    default_h: Annotated[int, typer.Option(help="Latents in default settings.")] = 8192,
    memory: Annotated[bool, typer.Option(help="Measure memory too (Linux only).")] = True,
    output: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    run: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Time training steps, and sample the memory that they take."""
    sizes, small = Sizes(rows, d, h, k), Sizes(default_rows, default_d, default_h, 0)
    if run is not None:
        with torch_threads(threads):
            typer.echo(json.dumps(own_peak_bytes(run, sizes, dead)))
        return
    busy = _load()
    with torch_threads(threads):
        shares = dict(zip(GOALS, (0.0, dead), strict=True))
        states = {
            name: measure_steps(sizes, share, rounds, repeats) for name, share in shares.items()
        }
        default = measure_default(small, rounds * repeats)
    for name, share in shares.items():
        if memory:
            peaks = {each: peak_bytes(each, sizes, share, threads) / 1e6 for each in STEPS}
            states[name]["peak_mb"] = peaks
        states[name]["ratios"] = ratios(states[name], GOALS[name])
    lines = {name: _summary(found["ratios"]) for name, found in states.items()}
    lines["default settings"] = f"{1000 * default['step_s']['ours']:.1f} ms a step"
    peers = {"sentence-transformers": metadata.version("sentence-transformers")}
    results = {"states": states, "default": default, "peers": peers, "load_before": busy}
    params = {**sizes._asdict(), "dead": dead, "threads": threads}
    params |= {"rounds": rounds, "repeats": repeats}
    params |= {f"default_{name}": getattr(small, name) for name in ("rows", "d", "h")}
    report("speed_train", lines, write_record("speed_train", params, results, output))


def _load() -> float:
    """Return how many processes want a core; say so where they would spoil the times.

    Threads of torch's wait for each other at every product, so a busy core slows the systems that
    compute by many products more than ours.
    """
    load = os.getloadavg()[0]
    if load > BUSY:
        typer.echo(f"speed_train: the machine is busy (load {load:.1f}): no fair times", err=True)
    return load


def _summary(found: Mapping[str, Mapping[str, float]]) -> str:
    return ", ".join(f"{name} {each['ratio']:.2f}{goal_of(each)}" for name, each in found.items())


def goal_of(found: Mapping[str, float]) -> str:
    """Return the goal of a ratio in brackets, if it has one."""
    goals = ((f"goal_at_{word}", word) for word in ("least", "most"))
    return "".join(f" (goal: at {word} {found[key]:.2f})" for key, word in goals if key in found)


if __name__ == "__main__":
    typer.run(main)
