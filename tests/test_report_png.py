"""The plots of a report as a picture."""

import copy
import struct
from pathlib import Path

import numpy as np
import pytest

from csr_qdrant.benchmarks.report.format import Report, load_report, parse_report
from csr_qdrant.benchmarks.report.png import DPI, INCHES, plotted, write_png
from csr_qdrant.errors import CsrError

pytest.importorskip("matplotlib")
GOLDEN = Path(__file__).parent / "data" / "bench_report.json"


@pytest.fixture
def report() -> Report:
    return load_report(GOLDEN)


def test_a_picture_has_the_size_of_its_plots(report: Report, tmp_path: Path) -> None:
    write_png(tmp_path / "report.png", report)
    data = (tmp_path / "report.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert (width, height) == (round(3 * INCHES[0] * DPI), round(INCHES[1] * DPI))
    assert 20_000 < len(data) < 300_000  # neither empty nor too large for a README
    assert [path.name for path in tmp_path.iterdir()] == ["report.png"]


def test_points_intervals_and_frontier_are_drawn(report: Report) -> None:
    first = plotted(report).axes[0]
    assert first.get_xlabel() == "bytes a vector, searched  (← better)"
    assert first.get_ylabel() == "nDCG@10  (better →)" and first.get_xscale() == "log"
    marks = [line for line in first.lines if line.get_marker() != "None"]
    assert [np.asarray(line.get_xdata()).tolist() for line in marks] == [
        [each] for each in (1024, 1076, 32, 66.4, 66.4)
    ]
    assert [line.get_markerfacecolor() == "white" for line in marks] == [0, 0, 1, 0, 1]
    assert len(first.collections) == 4  # of five points one has no interval
    (best,) = [line for line in first.lines if line.get_marker() == "None"]
    assert np.asarray(best.get_xdata()).tolist() == [32]  # it beats all others in both
    assert [text.get_text() for text in first.texts] == ["binary, rescored"]


def test_plots_that_lack_figures_are_left_out(report: Report, tmp_path: Path) -> None:
    document = copy.deepcopy(dict(report.document))
    for system in document["systems"]:
        system["qps"] = None
        system["latency_ms"] = {}
    assert len(plotted(parse_report(document)).axes) == 1
    for system in document["systems"]:
        system["bytes_per_vector"] = {}
    with pytest.raises(CsrError, match="nothing to plot: it needs the task's measure and bytes"):
        write_png(tmp_path / "report.png", parse_report(document))
    assert not list(tmp_path.iterdir())


def test_hostile_names_are_drawn_as_texts(report: Report, tmp_path: Path) -> None:
    document = copy.deepcopy(dict(report.document))
    document["comparisons"] = []
    document["systems"][2] |= {"name": "$\\frac$ _x^ \n\x1b \ud800", "family": "$$ {"}
    document["task"]["name"] = "$\\undefined$"
    write_png(tmp_path / "report.png", parse_report(document))
    assert (tmp_path / "report.png").stat().st_size > 20_000
