"""A report as one HTML page that needs nothing else: no server, no network, no library."""

from collections.abc import Iterable
from html import escape
from pathlib import Path

from csr_qdrant.atomic import replaced_file
from csr_qdrant.benchmarks.report.families import looks
from csr_qdrant.benchmarks.report.figures import Figure, detail_figures, main_figures
from csr_qdrant.benchmarks.report.format import Report
from csr_qdrant.benchmarks.report.header import header
from csr_qdrant.benchmarks.report.page_tables import comparisons_table, systems_table
from csr_qdrant.benchmarks.report.page_view import embedded, plots, view
from csr_qdrant.benchmarks.report.phrases import grouped, tally, unmeasured
from csr_qdrant.benchmarks.report.script_main import SCRIPT_MAIN
from csr_qdrant.benchmarks.report.script_page import SCRIPT_PAGE
from csr_qdrant.benchmarks.report.script_plot import SCRIPT_PLOT
from csr_qdrant.benchmarks.report.style import STYLE

# The browser itself holds the page to it: whatever a report's texts contain, nothing is fetched.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_READING = (
    "Hollow marks are rescored by float32 vectors, whose bytes have a column of their own and, "
    "added to the bytes searched, an axis to choose. "
    "The dark line joins what no other system shown beats in both figures; it goes by point "
    "estimates, so look at the intervals (thin bars, 95 % bootstrap) before you call a neighbour "
    "worse. Point at a mark, or reach it by Tab and the arrow keys, for all its figures; click to "
    "keep it; Escape lets go."
)


def write_page(path: Path, *reports: Report) -> None:
    """Write one page with one section a report to `path`, whole or not at all."""
    with replaced_file(path) as temporary:
        # What has no UTF-8 (a lone surrogate, which JSON may hold) becomes a reference.
        temporary.write_text(page(*reports), "utf-8", errors="xmlcharrefreplace")


def page(*reports: Report) -> str:
    """Return the page: facts, plots, tables, comparisons, and what was not measured."""
    title = "csr bench: " + ", ".join(report.task.name for report in reports)
    sections = "\n".join(_section(report, number) for number, report in enumerate(reports))
    script = SCRIPT_PLOT + SCRIPT_PAGE + SCRIPT_MAIN
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}{_colours(reports)}</style>
</head>
<body>
<main>
{sections}
</main>
<script>"use strict";
{script}</script>
</body>
</html>
"""


def _section(report: Report, number: int) -> str:
    facts = "".join(f"<dt>{n}</dt><dd>{escape(fact)}</dd>" for n, fact in header(report).items())
    details = detail_figures(report)
    return f"""<section class="report" id="report-{number}">
<h1>csr bench: <bdi>{escape(report.task.name)}</bdi></h1>
<dl class="facts">{facts}</dl>
<h2>What each system gives, and what it costs</h2>
<p class="note">{_READING}</p>
<noscript><p>The plots need JavaScript; the tables below hold all their figures.</p></noscript>
<div class="legend" role="group" aria-label="what the plots show"></div>
<div class="plots">{_plots(report)}</div>
<h2>All systems</h2>
<p class="note">By bytes that a search reads, fewest first; a click on a heading sorts anew.</p>
{systems_table(report, main_figures(report), "all systems")}
{_more(systems_table(report, details, "more figures")) if details else ""}
{_comparisons(report)}
<h2>Not measured, or no part of the system</h2>
{_list(unmeasured(report)) or "<p>Nothing is missing.</p>"}
<footer class="note">All data of this page are within it:
<button type="button" class="download">save report.json</button></footer>
<script type="application/json" class="report-data">{embedded(report.document)}</script>
<script type="application/json" class="view">{embedded(view(report))}</script>
</section>"""


def _plots(report: Report) -> str:
    return "".join(
        _plot(x, y, " wide" if number == 0 else "") for number, (x, y) in enumerate(plots(report))
    )


def _plot(x: Figure, y: Figure, kind: str) -> str:
    return (
        f'<figure class="plot{kind}" data-x="{escape(x.key)}" data-y="{escape(y.key)}">'
        '<div class="axes"></div><svg role="group" aria-label="plot of systems"></svg>'
        '<p class="missing"></p></figure>'
    )


def _comparisons(report: Report) -> str:
    if not report.comparisons:
        return ""
    parts = (
        f'<p class="tally">{escape(tally(rows))}</p>{comparisons_table(rows, tally(rows))}'
        for rows in grouped(report)
    )
    return (
        "<h2>Against the baseline</h2>"
        '<p class="note">Differences are paired by query. “Better” and “worse” stand only where '
        "the 95 % interval excludes 0 (full marks); p is that of a sign-flip test after Holm's "
        "correction, d_z Cohen's effect size of paired differences.</p>" + "".join(parts)
    )


def _more(table: str) -> str:
    return f"<details><summary>More figures</summary>{table}</details>"


def _list(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="note">{items}</ul>' if items else ""


def _colours(reports: Iterable[Report]) -> str:
    light: list[str] = []
    dark: list[str] = []
    for number, report in enumerate(reports):
        found = looks(system.family for system in report.systems).values()
        for rules, index in ((light, 0), (dark, 1)):
            colours = "".join(f"--family-{i}:{look[index]};" for i, look in enumerate(found))
            rules.append(f"#report-{number}{{{colours}}}")
    return f"{''.join(light)}\n@media (prefers-color-scheme: dark) {{{''.join(dark)}}}\n"
