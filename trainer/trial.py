"""Which of two implementations of a step to train with: found out on the device itself."""

import logging
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from csr_qdrant.trainer.ops import Ops

ROUNDS = 3
SAME = 0.02  # relative distance of gradients; a wrong kernel is far off, bf16 products are not

log = logging.getLogger(__name__)


def faster(
    trusted: Ops, rival: Ops, gradient: Callable[[Ops], Tensor], device: torch.device
) -> Ops:
    """Return `rival` if it finds the same gradient as `trusted`, and sooner; else `trusted`.

    A rival that fails costs the run nothing but a warning. `gradient` computes a step with the
    operations that it is given; both alternate, and medians are compared.
    """
    name = type(rival).__name__
    try:
        expected, found = gradient(trusted), gradient(rival)  # and all is compiled
        distance = float((found - expected).norm() / expected.norm().clamp(min=1e-12))
        if not distance <= SAME:
            log.warning("%s is left out: its gradient is off by %.2g", name, distance)
            return trusted
        times: dict[Ops, list[float]] = {trusted: [], rival: []}
        for _ in range(ROUNDS):
            for ops, seconds in times.items():
                seconds.append(_seconds(ops, gradient, device))
    except Exception as error:  # whatever a compiler or a driver raises
        log.warning("%s is left out: it fails here (%s)", name, error)
        return trusted
    taken = {ops: median(seconds) for ops, seconds in times.items()}
    log.info("a step takes %s", {type(ops).__name__: round(s, 5) for ops, s in taken.items()})
    return min(taken, key=lambda ops: taken[ops])


def _seconds(ops: Ops, gradient: Callable[[Ops], Tensor], device: torch.device) -> float:
    _finish(device)
    started = time.perf_counter()
    gradient(ops)
    _finish(device)
    return time.perf_counter() - started


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
