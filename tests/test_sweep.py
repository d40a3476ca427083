"""A sweep's grid, the summary of its runs, and its plot."""

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.benchmarks.sweep import Grid, Point, Row, Spread, summary
from csr_qdrant.benchmarks.sweep_plot import plotted, write_plot
from csr_qdrant.errors import ConfigError
from csr_qdrant.trainer import TrainConfig


def test_points_come_in_the_order_of_the_values_and_change_a_config() -> None:
    points = Grid({"schedule": ("constant", "cosine"), "h": (None, 64)}).points()
    assert [point.name for point in points] == [
        "schedule=constant,h=none",
        "schedule=constant,h=64",
        "schedule=cosine,h=none",
        "schedule=cosine,h=64",
    ]
    base = TrainConfig(minutes=3.0, h=7, k=(2, 4))
    assert points[0].config(base) == TrainConfig(minutes=3.0, schedule="constant", k=(2, 4))
    by_steps = Point({"steps": 9, "k": 2, "source": "x.npy"})
    assert by_steps.config(base) == TrainConfig(steps=9, k=(2,), h=7)
    with pytest.raises(ConfigError, match=r"point k=8: k must be in 1\.\.7"):
        Point({"k": 8}).config(base)


def run_of(point: dict[str, Any], at: dict[int, tuple[float, float]]) -> dict[str, Any]:
    """Return a run with (recall, postings) at each k."""
    rest = {"fvu": 0.5, "longest_list": 0.1}
    measured = [{"k": k, "recall": r, "postings": p, **rest} for k, (r, p) in at.items()]
    return {"point": point, "at": measured, "dead": 0.0, "steps": 5, "seconds": 1.0}


RUNS = [
    run_of({"h": 8, "seed": 0}, {4: (0.5, 0.2), 2: (0.3, 0.02)}),
    run_of({"h": 8, "seed": 1}, {4: (0.8, 0.3), 2: (0.1, 0.05)}),
    run_of({"h": 8, "seed": 2}, {4: (0.6, 0.5), 2: (0.2, 0.03)}),
    run_of({"h": 9, "seed": 0}, {4: (0.9, 0.6)}),
    {"point": {"h": 9, "seed": 1}, "error": "it failed"},
]


def test_a_summary_has_a_row_for_each_setting_and_k() -> None:
    rows = summary(RUNS)
    assert [(row.setting, row.k, row.runs) for row in rows] == [
        ({"h": 8}, 2, 3),
        ({"h": 8}, 4, 3),
        ({"h": 9}, 4, 1),
    ]
    assert rows[1].recall == Spread(0.6, 0.5, 0.8)
    assert rows[1].postings == Spread(0.3, 0.2, 0.5)
    assert rows[0].cells()[:4] == ("8", "2", "0.200 (0.100–0.300)", "0.500")
    assert rows[0].cells()[4:6] == ("0.0300 N (0.0200–0.0500)", "10.0 %")


def test_the_plot_has_a_line_a_setting_with_bars_over_seeds() -> None:
    figure = plotted(summary(RUNS), "a $ title")
    (axes,) = figure.axes
    containers: Any = axes.containers
    first, second = containers
    assert [each.get_label() for each in containers] == ["h = 8", "h = 9"]
    line = first.lines[0]
    np.testing.assert_allclose(line.get_xydata(), [(0.03, 0.2), (0.3, 0.6)])
    np.testing.assert_allclose(second.lines[0].get_xydata(), [(0.6, 0.9)])
    across, upright = (bars.get_segments() for bars in first.lines[2])
    np.testing.assert_allclose(across, [[(0.02, 0.2), (0.05, 0.2)], [(0.2, 0.6), (0.5, 0.6)]])
    np.testing.assert_allclose(upright, [[(0.03, 0.1), (0.03, 0.3)], [(0.3, 0.5), (0.3, 0.8)]])
    assert [text.get_text() for text in axes.texts] == ["k=2", "k=4", "k=4"]
    assert axes.get_xscale() == "log"


def test_a_plot_of_equal_or_no_postings_is_linear_and_of_many_settings_whole(
    tmp_path: Path,
) -> None:
    nothing = [run_of({"seed": 0}, {1: (0.0, 0.0), 2: (0.4, 0.4)})]
    assert plotted(summary(nothing), "").axes[0].get_xscale() == "linear"
    many = [run_of({"h": h}, {1: (h / 40, h / 10)}) for h in range(1, 31)]
    figure = plotted(summary(many), "many")
    containers: Any = figure.axes[0].containers
    assert len({tuple(each.lines[0].get_color()) for each in containers}) == 30
    write_plot(tmp_path / "p.png", summary(many), "many")
    header = (tmp_path / "p.png").read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">4sII", header[12:]) == (b"IHDR", 1125, 675)
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]


def test_rows_are_json() -> None:
    row: Row = summary(RUNS)[0]
    spread = {"median": 0.2, "low": 0.1, "high": 0.3}
    assert json.loads(json.dumps(row.to_json()))["recall"] == spread


def test_no_plotting_library_is_loaded_before_it_is_needed() -> None:
    code = "import sys, csr_qdrant.cli.sweep, csr_qdrant.benchmarks.sweep_plot; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"matplotlib", "torch"} & set(run.stdout.split())
