"""A report as a table for the terminal, as wide as it may be."""

from typing import TYPE_CHECKING

from csr_qdrant.benchmarks.report.figures import Figure, by_bytes, main_figures
from csr_qdrant.benchmarks.report.format import Report
from csr_qdrant.benchmarks.report.names import plain
from csr_qdrant.benchmarks.report.phrases import grouped, sentence, tally

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 100
_NAME = 24  # columns that a system's name gets at least; longer ones wrap
_BETWEEN = 3  # columns between two cells
_FEW = 8  # comparisons that are told one by one; the other reports list all of them


def terminal_table(report: Report, width: int = WIDTH) -> "Table":
    """Return a rich table of all systems by bytes, at most `width` columns wide.

    It has as many of the measured figures as fit, the most telling first; figures that no system
    has take no room.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    systems = by_bytes(report)
    figures = fitting(report, width)
    made = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    made.add_column("system", overflow="fold", min_width=_NAME, max_width=_room(report, width))
    for figure in figures:
        made.add_column(_head(figure), justify="right", no_wrap=True)
    for system in systems:
        cells = [figure.cell(system) for figure in figures]
        made.add_row(Text(plain(system.name)), *map(Text, cells))
    return made


def terminal_sentences(report: Report) -> list[str]:
    """Return how the systems stand to each baseline; one by one where there are few of them."""
    return [
        plain(line)
        for rows in grouped(report)
        for line in (tally(rows), *(map(sentence, rows) if len(rows) <= _FEW else ()))
    ]


def fitting(report: Report, width: int = WIDTH) -> list[Figure]:
    """Return the figures of the main table that fit beside the names, in their order."""
    room, kept = width - _NAME - _BETWEEN, []
    for figure in main_figures(report):
        room -= _columns(report, figure)
        if room < 0:
            break
        kept.append(figure)
    return kept


def _room(report: Report, width: int) -> int:
    return max(
        width - _BETWEEN - sum(_columns(report, each) for each in fitting(report, width)), _NAME
    )


def _columns(report: Report, figure: Figure) -> int:
    cells = [figure.cell(system) for system in report.systems]
    return max(map(len, [*_head(figure).split("\n"), *cells])) + _BETWEEN


def _head(figure: Figure) -> str:
    return plain(figure.short).replace(" ", "\n", 1)
