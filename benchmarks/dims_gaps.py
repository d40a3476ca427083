"""What the figures of `dims` are held against: codes beside vectors of more dimensions."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from csr_qdrant.benchmarks.metrics import Floats, bootstrap_difference

KS = (4, 8, 16)  # that the goals name


class Line(Protocol):
    """One system's values."""

    @property
    def mean(self) -> Floats:
        """Value of each query, (m,)."""


Lines = Mapping[tuple[str, int], Line]  # by name and active dimensions


def gaps(lines: Lines, supervision: str | None, d: int) -> list[dict[str, Any]]:
    """Return how far codes are above what they are held against, with bootstrap intervals.

    Comparisons that a system is missing for are left out.
    """
    found = [
        _gap(lines, goal, ours, list(theirs)) for goal, ours, theirs in comparisons(supervision, d)
    ]
    return [gap for gap in found if gap is not None]


def comparisons(
    supervision: str | None, d: int
) -> Iterator[tuple[bool, tuple[str, int], tuple[tuple[str, int], ...]]]:
    """Yield whether it is a goal, the codes, and the systems whose best they are held against."""
    rivals = ("MRL adapter", "PCA", "PCA, not centred")
    for k in KS:
        yield True, ("CSR", k), (("truncation", 8 * k),)
        yield True, ("CSR", k), tuple((name, 2 * k) for name in rivals)
    if supervision is None:
        return
    ours = f"CSR, {supervision}"
    for k in KS:
        learned = (f"MRL adapter, {supervision}", *rivals)
        yield False, (ours, k), tuple((name, 2 * k) for name in learned)
    labels = supervision == "labels"  # with pairs there is a goal of its own, see `quality`
    yield labels, (ours, 4), (("dense", d),)
    yield labels, (ours, 8), ((f"dense adapter, {supervision}", d),)


def _gap(
    lines: Lines, goal: bool, ours: tuple[str, int], theirs: list[tuple[str, int]]
) -> dict[str, Any] | None:
    rivals = [key for key in theirs if key in lines]
    if ours not in lines or not rivals:
        return None
    best = max(rivals, key=lambda key: float(lines[key].mean.mean()))
    gap, low, high = bootstrap_difference(lines[ours].mean, lines[best].mean)
    return {
        "ours": list(ours),
        "theirs": list(best),
        "among": [name for name, _ in rivals],
        "goal": goal,
        "gap": gap,
        "low": low,
        "high": high,
        "reached": gap >= 0,
    }
