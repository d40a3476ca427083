"""A report as Markdown."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from csr_qdrant.atomic import replaced_file
from csr_qdrant.benchmarks.report.figures import Figure, by_bytes, detail_figures, main_figures
from csr_qdrant.benchmarks.report.format import Comparison, Report
from csr_qdrant.benchmarks.report.header import header
from csr_qdrant.benchmarks.report.names import plain
from csr_qdrant.benchmarks.report.numbers import NONE
from csr_qdrant.benchmarks.report.phrases import (
    grouped,
    interval,
    probability,
    signed,
    tally,
    unmeasured,
    verdict,
)

_SPECIAL = re.compile(r"([\\`*_\[\]<>|&#~$])")
_COMPARISON = (
    "system",
    "difference",
    "95 % interval",
    "p (Holm)",
    "wins / losses / ties",
    "d_z",
    "verdict",
)


def write_markdown(path: Path, report: Report) -> None:
    """Write the report as Markdown to `path`, whole or not at all."""
    with replaced_file(path) as temporary:
        temporary.write_text(markdown(report), "utf-8")


def markdown(report: Report) -> str:
    """Return the report as Markdown: facts, all systems by bytes, comparisons, what is missing."""
    parts = [
        f"# csr bench: {escaped(report.task.name)}",
        "\n".join(f"- {name}: {escaped(fact)}" for name, fact in header(report).items()),
        "## Systems",
        "By bytes that a search reads, fewest first. In brackets: 95 % bootstrap intervals.",
        _systems(report, main_figures(report)),
        *_details(report),
        *_comparisons(report),
        "## Not measured, or no part of the system",
        "\n".join(f"- {escaped(line)}" for line in unmeasured(report)) or "Nothing is missing.",
    ]
    return "\n\n".join(parts) + "\n"


def summary(report: Report) -> str:
    """Return the table of all systems, and one line on where its figures come from."""
    facts = "; ".join(f"{name}: {escaped(fact)}" for name, fact in header(report).items())
    return f"{_systems(report, main_figures(report))}\n\n{facts}."


def escaped(text: str) -> str:
    """Return any text so that Markdown shows it as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", plain(text))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown already; the first column stands left."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _systems(report: Report, figures: Sequence[Figure]) -> str:
    return table(
        ["system", *(escaped(figure.short) for figure in figures)],
        [
            [escaped(system.name), *(escaped(f.cell(system, interval=True)) for f in figures)]
            for system in by_bytes(report)
        ],
    )


def _details(report: Report) -> list[str]:
    figures = detail_figures(report)
    return ["### More figures", _systems(report, figures)] if figures else []


def _comparisons(report: Report) -> list[str]:
    if not report.comparisons:
        return []
    columns = [escaped(column) for column in _COMPARISON]
    return [
        "## Against the baseline",
        "Differences are paired by query. “Better” and “worse” stand only where the 95 % interval "
        "of the difference excludes 0; p is that of a sign-flip test after Holm's correction.",
        *(
            part
            for rows in grouped(report)
            for part in (escaped(tally(rows)), table(columns, map(_comparison, rows)))
        ),
    ]


def _comparison(row: Comparison) -> list[str]:
    counts = (row.wins, row.losses, row.ties)
    cells = [
        row.system,
        signed(row.difference),
        interval(row),
        probability(row.p_holm),
        " / ".join(NONE if each is None else f"{each:,.0f}" for each in counts),
        NONE if row.d_z is None else f"{row.d_z:+.2f}".replace("-", "−"),
        verdict(row),
    ]
    return [escaped(cell) for cell in cells]
