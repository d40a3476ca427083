"""Numbers of a report as texts, and which of several points no other one beats."""

import math
from collections.abc import Sequence
from typing import Literal

NONE = "–"  # not measured
Better = Literal["higher", "lower"]
_NAMES = {"ndcg": "nDCG", "map": "mAP", "mrr": "MRR", "p": "P", "r": "R"}


def significant(value: float, digits: int = 3) -> str:
    """Return `value` with at least `digits` significant digits: 1,234, 12.3, 0.0123, 0."""
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:,.{min(max(decimals, 0), 9)}f}"


def measure_name(measure: str) -> str:
    """Return a measure as papers write it: `ndcg@10` is nDCG@10."""
    name, at, depth = measure.partition("@")
    return f"{_NAMES.get(name.lower(), name)}{at}{depth}"


def frontier(
    points: Sequence[tuple[float, float]], x_better: Better, y_better: Better
) -> list[int]:
    """Return the positions of the (x, y) that no other dominates, from the best x to the worst.

    Of equal points the first stands for all.
    """
    x_sign, y_sign = (1 if each == "lower" else -1 for each in (x_better, y_better))
    order = sorted(range(len(points)), key=lambda i: (x_sign * points[i][0], y_sign * points[i][1]))
    kept: list[int] = []
    for i in order:
        if not kept or y_sign * points[i][1] < y_sign * points[kept[-1]][1]:
            kept.append(i)
    return kept
