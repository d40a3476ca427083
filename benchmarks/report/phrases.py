"""What a report says in sentences; nothing is called better unless its interval excludes 0."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from csr_qdrant.benchmarks.report.figures import detail_figures, main_figures
from csr_qdrant.benchmarks.report.format import Comparison, Report
from csr_qdrant.benchmarks.report.numbers import NONE, measure_name

Verdict = Literal["better", "worse", "not distinguished", "no interval"]
LEVEL = 0.05  # of p after Holm's correction
_NAMED = 4  # so many systems are named before the rest is counted


def verdict(row: Comparison) -> Verdict:
    """Return what the interval of a difference allows to say; 0 at its edge counts as within."""
    if row.difference is None or row.low is None or row.high is None:
        return "no interval"
    if row.low > 0:
        return "better"
    return "worse" if row.high < 0 else "not distinguished"


def sentence(row: Comparison) -> str:
    """Return a comparison as one sentence: who, by how much, with which certainty."""
    measure, found = measure_name(row.measure), verdict(row)
    if found == "no interval":
        known = "no difference was measured"
        if row.difference is not None:
            known = f"{signed(row.difference)} {measure}, but no interval was measured"
        return f"{row.system} against {row.baseline}: {known}, so nothing follows."
    assert row.difference is not None  # or there would be no verdict
    evidence = "; ".join([f"95 % interval {interval(row)}", *_significance(row), *_counts(row)])
    if found == "not distinguished":
        return (
            f"{row.system} and {row.baseline} are not distinguished in {measure}: "
            f"{signed(row.difference)} ({evidence})."
        )
    doubt = ", but not after Holm's correction," if _lost_by_correction(row) else ""
    return (
        f"{row.system} is {found} than {row.baseline}{doubt} by {abs(row.difference):.4f} "
        f"{measure} ({evidence})."
    )


def grouped(report: Report) -> list[list[Comparison]]:
    """Return the comparisons of each baseline and measure, the largest difference first."""
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for row in report.comparisons:
        groups.setdefault((row.baseline, row.measure), []).append(row)

    def rank(row: Comparison) -> float:
        return math.inf if row.difference is None else -row.difference

    return [sorted(rows, key=rank) for rows in groups.values()]


def tally(rows: Sequence[Comparison]) -> str:
    """Return how many of one of the groups of `grouped` got which verdict, as a sentence."""
    counts = Counter(verdict(row) for row in rows)
    lacking = counts["no interval"]
    return (
        f"Against {rows[0].baseline}, in {measure_name(rows[0].measure)}: of {len(rows)} systems "
        f"{counts['better']} better, {counts['worse']} worse, "
        f"{counts['not distinguished']} not distinguished"
        + (f", {lacking} without an interval." if lacking else ".")
    )


def unmeasured(report: Report) -> list[str]:
    """Return what the report lacks, figures of the same systems together."""
    figures = [*main_figures(report), *detail_figures(report)]
    groups: dict[tuple[str, ...], list[str]] = {}
    for figure in figures:
        lacking = tuple(each.name for each in report.systems if figure.value(each) is None)
        if lacking:
            groups.setdefault(lacking, []).append(figure.title)
    lines = [
        f"none for {_listed(lacking, len(report.systems))}: {'; '.join(titles)}"
        for lacking, titles in groups.items()
    ]
    kinds = {figure.key.partition(":")[0] for figure in figures}
    lines += [f"none for any system: {name}" for key, name in _KINDS.items() if key not in kinds]
    if not report.comparisons:
        lines.append("no comparisons to a baseline, so no system is called better or worse")
    return lines


_KINDS = {
    "quality": "quality on the task",
    "fidelity": "fidelity to exact dense search",
    "bytes": "bytes a vector",
    "search": "latency of searching",
    "encode": "latency of encoding",
    "qps": "queries a second",
    "build": "seconds of building",
    "rss": "resident memory",
    "postings": "postings",
}


def interval(row: Comparison) -> str:
    """Return `[-0.0300, -0.0100]`, or a dash if there is none."""
    if row.low is None or row.high is None:
        return NONE
    return f"[{signed(row.low)}, {signed(row.high)}]"


def signed(value: float | None) -> str:
    """Return a difference with its sign and four decimals."""
    return NONE if value is None else f"{value:+.4f}".replace("-", "−")


def probability(value: float | None) -> str:
    """Return p as text; a sign-flip test cannot say less than 1/(flips + 1), so none is 0."""
    if value is None:
        return NONE
    return f"{value:.4f}" if value >= 0.0001 else f"{value:.1e}"


def _significance(row: Comparison) -> list[str]:
    return [] if row.p_holm is None else [f"p = {probability(row.p_holm)} after Holm"]


def _counts(row: Comparison) -> list[str]:
    if row.wins is None or row.losses is None or row.ties is None:
        return []
    return [f"{row.wins:,.0f} wins, {row.losses:,.0f} losses, {row.ties:,.0f} ties"]


def _lost_by_correction(row: Comparison) -> bool:
    return row.p_holm is not None and row.p_holm >= LEVEL


def _listed(names: Sequence[str], total: int) -> str:
    named = ", ".join(f"“{name}”" for name in names[:_NAMED])
    return named if len(names) <= _NAMED else f"{len(names)} of {total} systems ({named}, …)"
