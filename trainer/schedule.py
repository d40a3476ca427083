"""How learning rates fall."""

import math

import torch


def falling(peak: float, progress: float) -> float:
    """Return the rate at `progress` (0..1) of a half cosine from `peak` down to nothing."""
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Let `optimiser` take its next step at `rate`."""
    for group in optimiser.param_groups:
        group["lr"] = rate
