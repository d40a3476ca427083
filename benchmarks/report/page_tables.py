"""The page's tables: whole without JavaScript, which only sorts them."""

from collections.abc import Sequence
from html import escape

from csr_qdrant.benchmarks.report.families import looks
from csr_qdrant.benchmarks.report.figures import Figure, by_bytes
from csr_qdrant.benchmarks.report.format import Comparison, Report, SystemResult
from csr_qdrant.benchmarks.report.numbers import NONE
from csr_qdrant.benchmarks.report.phrases import interval, probability, sentence, signed, verdict

_FOREST = 260, 16, 6  # width, height and margin of one row's drawing, in pixels


def systems_table(report: Report, figures: Sequence[Figure], label: str) -> str:
    """Return all systems, by bytes, with these figures."""
    places = {f: i for i, f in enumerate(looks(system.family for system in report.systems))}
    heads = [_head("system", text=True), *map(_figure_head, figures)]
    rows = "\n".join(
        f'<tr data-index="{i}"><th scope="row" class="marked">'
        f"{_dot(places[system.family], system.rescored)}{_name(system.name)}</th>"
        f"{''.join(_cell(figure, system) for figure in figures)}</tr>"
        for i, system in enumerate(by_bytes(report))
    )
    return _table(label, heads, rows)


def comparisons_table(rows: Sequence[Comparison], label: str) -> str:
    """Return comparisons to one baseline, each with a drawing of its interval beside 0."""
    ends = [each for row in rows for each in (row.low, row.high, row.difference) if each]
    extent = min(ends, default=0.0), max(ends, default=0.0)
    heads = [
        _head("system", text=True),
        _head("difference"),
        _head("95 % interval"),
        '<th scope="col" class="drawing"><button type="button">← worse · better →</button></th>',
        _head("p (Holm)"),
        _head("wins / losses / ties", text=True),
        _head("d_z"),
        _head("verdict", text=True),
    ]
    return _table(label, heads, "\n".join(_comparison(row, extent) for row in rows))


def _comparison(row: Comparison, extent: tuple[float, float]) -> str:
    counts = " / ".join(
        NONE if x is None else f"{x:,.0f}" for x in (row.wins, row.losses, row.ties)
    )
    effect = NONE if row.d_z is None else f"{row.d_z:+.2f}".replace("-", "−")
    return (
        f'<tr><th scope="row">{_name(row.system)}</th>'
        + _number(row.difference, signed(row.difference))
        + _number(row.low, interval(row))
        + _number(row.difference, _forest(row, extent), raw=True)
        + _number(row.p_holm, probability(row.p_holm))
        + f"<td>{counts}</td>{_number(row.d_z, effect)}"
        + f'<td class="text">{verdict(row)}</td></tr>'
    )


def _forest(row: Comparison, extent: tuple[float, float]) -> str:
    width, height, margin = _FOREST
    if row.difference is None:
        return NONE
    low, high = min(extent[0], 0.0), max(extent[1], 0.0)

    def place(value: float) -> float:
        return round(margin + (width - 2 * margin) * (value - low) / ((high - low) or 1), 2)

    whisker = ""
    if row.low is not None and row.high is not None:
        whisker = (
            f'<line class="whisker" x1="{place(row.low)}" x2="{place(row.high)}" '
            f'y1="{height / 2}" y2="{height / 2}"/>'
        )
    kind = "" if verdict(row) in ("better", "worse") else " open"
    return (
        f'<svg class="forest{kind}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(sentence(row))}">'
        f'<line class="zero" x1="{place(0)}" x2="{place(0)}" y1="0" y2="{height}"/>{whisker}'
        f'<circle cx="{place(row.difference)}" cy="{height / 2}" r="3"/></svg>'
    )


def _table(label: str, heads: Sequence[str], rows: str) -> str:
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">'
        f'<table class="sortable"><thead><tr>{"".join(heads)}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )


def _figure_head(figure: Figure) -> str:
    sort = ' aria-sort="ascending"' if figure.key == "bytes:searched" else ""
    return (
        f'<th scope="col" data-better="{figure.better}"{sort} title="{escape(figure.title)}: '
        f'{figure.better} is better"><button type="button">{escape(figure.short)}</button></th>'
    )


def _head(name: str, *, text: bool = False) -> str:
    kind = ' data-text="" class="text"' if text else ""
    return f'<th scope="col"{kind}><button type="button">{escape(name)}</button></th>'


def _cell(figure: Figure, system: SystemResult) -> str:
    found = figure.estimate(system)
    shown = escape(figure.shown(found.mean))
    whole = escape(figure.cell(system, interval=True))
    around = whole.removeprefix(shown)
    return _number(
        found.mean, shown + (f'<span class="interval">{around}</span>' if around else ""), raw=True
    )


def _number(value: float | None, shown: str, *, raw: bool = False) -> str:
    data = "" if value is None else f' data-value="{value!r}"'
    return f"<td{data}>{shown if raw else escape(shown)}</td>"


def _name(name: str) -> str:
    # Isolated, so that a name that turns the direction of writing turns only itself.
    return f"<bdi>{escape(name)}</bdi>"


def _dot(family: int, rescored: bool) -> str:
    kind = " rescored" if rescored else ""
    return (
        f'<svg width="11" height="11" viewBox="-6 -6 12 12" aria-hidden="true" '
        f'style="--colour: var(--family-{family})"><circle r="4.4" class="mark{kind}"/></svg>'
    )
