"""The page's plots as a picture, for a README: names stand where the page has tooltips."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from csr_qdrant.atomic import replaced_file
from csr_qdrant.benchmarks.report.families import Look, looks
from csr_qdrant.benchmarks.report.figures import Figure
from csr_qdrant.benchmarks.report.format import Estimate, Report
from csr_qdrant.benchmarks.report.names import plain
from csr_qdrant.benchmarks.report.numbers import frontier
from csr_qdrant.benchmarks.report.page_view import plots
from csr_qdrant.benchmarks.sweep_plot import check_plotting
from csr_qdrant.errors import CsrError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

INCHES, DPI = (5.2, 4.4), 120  # of each plot
_MARKERS = {"circle": "o", "square": "s", "diamond": "D", "triangle": "^", "wedge": "v"}
_LONGEST = 34  # characters of a name
_Side = Literal["left", "center", "right"]
# Where a name may stand, in points from its mark.
_SPOTS: tuple[tuple[int, int, _Side], ...] = (
    (-7, 5, "right"),
    (7, 5, "left"),
    (7, -11, "left"),
    (-7, -11, "right"),
    (0, 12, "center"),
    (0, -18, "center"),
    (0, 24, "center"),
)


class Point(NamedTuple):
    """One system in one plot."""

    x: float
    y: float
    interval: Estimate  # of y
    name: str
    look: Look
    rescored: bool
    family: str


def write_png(path: Path, report: Report) -> None:
    """Write the plots that the report can fill, side by side, to `path` (PNG), whole or not at all.

    Raises CsrError if it can fill none, MissingExtraError if there is no matplotlib.
    """
    picture = plotted(report)
    with replaced_file(path) as temporary:
        picture.savefig(temporary, format="png", dpi=DPI)


def plotted(report: Report) -> "Picture":
    """Return the plots as a figure of matplotlib, whose global state is left alone."""
    check_plotting()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Picture

    panels = plots(report)
    if not panels:
        raise CsrError(
            "the report has nothing to plot: it needs the task's measure and bytes or latencies, "
            "or fidelity and queries a second"
        )
    picture = Picture(figsize=(INCHES[0] * len(panels), INCHES[1]), layout="constrained")
    FigureCanvasAgg(picture)
    families = looks(system.family for system in report.systems)
    for axes, (x, y) in zip(
        picture.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        _panel(axes, x, y, _points(report, x, y, families))
    _legend(picture, families, any(system.rescored for system in report.systems))
    picture.suptitle(_title(report), fontsize=10, parse_math=False)
    _names(picture)
    return picture


def _points(report: Report, x: Figure, y: Figure, families: Mapping[str, Look]) -> list[Point]:
    found = []
    for system in report.systems:
        across, up = x.value(system), y.estimate(system)
        if across is not None and up.mean is not None and (across > 0 or not x.log):
            look = families[system.family]
            name = plain(system.name)
            shown = name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
            found.append(Point(across, up.mean, up, shown, look, system.rescored, system.family))
    return found


def _panel(axes: "Axes", x: Figure, y: Figure, points: Sequence[Point]) -> None:
    from matplotlib.patheffects import Normal, Stroke

    if x.log:
        _log_axis(axes)
    for point in points:
        if point.interval.low is not None and point.interval.high is not None:
            ends = (point.interval.low, point.interval.high)
            axes.vlines(point.x, *ends, color=point.look.light, alpha=0.4, linewidth=0.9)
        axes.plot(
            [point.x],
            [point.y],
            _MARKERS[point.look.mark],
            color=point.look.light,
            markerfacecolor="white" if point.rescored else point.look.light,
            markersize=5.5,
            zorder=3,
        )
    best = [points[i] for i in frontier([p[:2] for p in points], x.better, y.better)]
    axes.step([p.x for p in best], [p.y for p in best], where="post", color="#1d2126", lw=0.9)
    for label, axis, lower in ((axes.set_xlabel, x, "← better"), (axes.set_ylabel, y, "lower")):
        way = lower if axis.better == "lower" else "better →"
        label(f"{axis.title}  ({way})", parse_math=False, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    for point in best:
        axes.annotate(
            point.name,
            (point.x, point.y),
            xytext=_SPOTS[0][:2],
            textcoords="offset points",
            fontsize=7,
            parse_math=False,
            path_effects=[Stroke(linewidth=2, foreground="white"), Normal()],
        )


def _log_axis(axes: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def _legend(picture: "Picture", families: Mapping[str, Look], rescored: bool) -> None:
    from matplotlib.lines import Line2D

    def entry(label: str, mark: str, colour: str, fill: str) -> Line2D:
        return Line2D(
            [], [], linestyle="", marker=mark, color=colour, markerfacecolor=fill, label=label
        )

    entries = [
        entry(plain(family), _MARKERS[look.mark], look.light, look.light)
        for family, look in families.items()
    ]
    if rescored:
        entries.append(entry("hollow: rescored by float32", "o", "#6b7280", "white"))
    legend = picture.legend(
        handles=entries, loc="outside lower center", ncols=7, frameon=False, fontsize=8
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a family's name may hold dollar signs


def _names(picture: "Picture") -> None:
    """Move each name to the first spot where it covers nothing, or drop it if there is none."""
    picture.canvas.draw()
    renderer: Any = picture.canvas.get_renderer()  # type: ignore[attr-defined]
    for axes in picture.axes:
        taken = [_around(axes, line) for line in axes.lines if line.get_marker() != "None"]
        for text in list(axes.texts):
            for dx, dy, side in _SPOTS:
                text.set_position((dx, dy))
                text.set_horizontalalignment(side)
                box = text.get_window_extent(renderer)
                inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 + 8
                inside = inside and axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1 + 8
                if inside and not any(box.overlaps(each) for each in taken):
                    taken.append(box)
                    break
            else:
                text.remove()


def _around(axes: "Axes", line: Any) -> Any:
    """Return the box, in pixels, of a single mark."""
    from matplotlib.transforms import Bbox

    x, y = axes.transData.transform((line.get_xdata()[0], line.get_ydata()[0]))
    return Bbox.from_extents(x - 6, y - 6, x + 6, y + 6)


def _title(report: Report) -> str:
    task = report.task
    size = f", {task.documents:,.0f} documents" if task.documents is not None else ""
    bars = "; bars: 95 % intervals; line: what no other system beats in both"
    return plain(f"{task.name}{size}{bars}")
