"""The plot of a sweep: quality against the postings that a query touches."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csr_qdrant.atomic import replaced_file
from csr_qdrant.benchmarks.sweep import Row, Spread, shown
from csr_qdrant.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INCHES, DPI = (7.5, 4.5), 150
_WIDE = 3.0  # from this ratio of postings on, their axis is logarithmic


def check_plotting() -> None:
    """Raise MissingExtraError if there is no matplotlib."""
    try:
        import matplotlib.backends.backend_agg  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "bench") from error


def write_plot(path: Path, rows: Sequence[Row], title: str) -> None:
    """Write the plot of `rows` to `path` (PNG), whole or not at all."""
    figure = plotted(rows, title)
    with replaced_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def plotted(rows: Sequence[Row], title: str) -> "Figure":
    """Return a figure with one line a setting, a mark at each k, and bars from lowest to highest.

    No window system is asked for, and matplotlib's global state is left alone.
    """
    check_plotting()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault(", ".join(f"{n} = {shown(v)}" for n, v in row.setting.items()), []).append(
            row
        )
    for color, (label, line) in zip(_colors(len(lines)), lines.items(), strict=True):
        _draw(axes, label, line, color)
    _label(axes, rows, title)
    if len(lines) > 1 or any(lines):
        legend = figure.legend(loc="outside right upper", frameon=False, fontsize="small")
        for text in legend.get_texts():
            text.set_parse_math(False)  # names of files may hold dollar signs
    return figure


def _colors(count: int) -> list[Any]:
    from matplotlib import colormaps

    if count <= 10:
        return [colormaps["tab10"](index) for index in range(count)]
    return [colormaps["viridis"](index / (count - 1)) for index in range(count)]


def _draw(axes: "Axes", label: str, line: Sequence[Row], color: Any) -> None:
    axes.errorbar(
        [row.postings.median for row in line],
        [row.recall.median for row in line],
        xerr=_bars([row.postings for row in line]),
        yerr=_bars([row.recall for row in line]),
        label=label,
        color=color,
        marker="o",
        markersize=4,
        capsize=2,
        elinewidth=0.8,
    )
    for row in line:
        place = (row.postings.median, row.recall.median)
        axes.annotate(
            f"k={row.k}",
            place,
            xytext=(4, -9),
            textcoords="offset points",
            fontsize=7,
            color=color,
        )


def _bars(spreads: Sequence[Spread]) -> list[list[float]]:
    """Return the lengths of the bars below and above the medians, (2, n)."""
    below = [spread.median - spread.low for spread in spreads]
    return [below, [spread.high - spread.median for spread in spreads]]


def _label(axes: "Axes", rows: Sequence[Row], title: str) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_title(title, fontsize="medium", parse_math=False)
    axes.set_xlabel("postings that a query touches, of N documents")
    axes.set_ylabel("recall@10 of the dense neighbours")
    axes.grid(alpha=0.3, linewidth=0.5)
    low = min((row.postings.low for row in rows), default=0.0)
    if low > 0 and max(row.postings.high for row in rows) >= _WIDE * low:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g} N")
