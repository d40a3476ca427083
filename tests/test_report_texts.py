"""A report in words: numbers, verdicts, Markdown, and the table of the terminal."""

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest

from csr_qdrant.benchmarks.report.figures import by_bytes, detail_figures, main_figures
from csr_qdrant.benchmarks.report.format import Comparison, Report, load_report, parse_report
from csr_qdrant.benchmarks.report.markdown import escaped, write_markdown
from csr_qdrant.benchmarks.report.numbers import frontier, measure_name, significant
from csr_qdrant.benchmarks.report.phrases import sentence, tally, unmeasured, verdict
from csr_qdrant.benchmarks.report.terminal import terminal_sentences, terminal_table

DATA = Path(__file__).parent / "data"
HOSTILE = 'a|b <i>*x*</i> `c`\n[d](e)\u202e\x1b[31m "$z$" \ud800'


@pytest.fixture
def report() -> Report:
    return load_report(DATA / "bench_report.json")


def renamed(name: str) -> Report:
    """Return the golden report with another name for its last system."""
    document = json.loads((DATA / "bench_report.json").read_text("utf-8"))
    document["systems"][-1]["name"] = name
    document["comparisons"][-1]["system"] = name
    return parse_report(document)


def compared(**figures: float) -> Comparison:
    return Comparison(baseline="dense", system="codes", measure="ndcg@10", **figures)


@pytest.mark.parametrize(
    ("figures", "wanted", "words"),
    [
        ({"difference": 0.02, "low": 0.01, "high": 0.03}, "better", "codes is better than dense"),
        ({"difference": -0.02, "low": -0.03, "high": -0.01}, "worse", "codes is worse than dense"),
        ({"difference": 0.02, "low": -0.01, "high": 0.05}, "not distinguished", "not distinguis"),
        ({"difference": 0.02, "low": 0.0, "high": 0.05}, "not distinguished", "are not disting"),
        ({"difference": -0.02, "low": -0.05, "high": 0.0}, "not distinguished", "are not disting"),
        ({"difference": 0.02, "low": 0.01}, "no interval", "+0.0200 nDCG@10, but no interval"),
        ({"low": 0.01, "high": 0.02}, "no interval", "no difference was measured, so nothing"),
    ],
)
def test_nothing_is_better_unless_its_interval_excludes_zero(
    figures: dict[str, float], wanted: str, words: str
) -> None:
    row = compared(**figures)
    assert verdict(row) == wanted
    assert words in sentence(row)
    claims = [claim for claim in ("better", "worse") if claim in sentence(row)]
    assert claims == ([wanted] if wanted in ("better", "worse") else [])


def test_a_sentence_holds_the_evidence_and_its_doubts() -> None:
    row = compared(difference=0.02, low=0.01, high=0.03, p_holm=0.002, wins=7, losses=3, ties=1200)
    assert sentence(row) == (
        "codes is better than dense by 0.0200 nDCG@10 (95 % interval [+0.0100, +0.0300]; "
        "p = 0.0020 after Holm; 7 wins, 3 losses, 1,200 ties)."
    )
    doubted = compared(difference=0.02, low=0.01, high=0.03, p_holm=0.05)
    assert "better than dense, but not after Holm's correction, by" in sentence(doubted)


def test_a_tally_counts_every_verdict(report: Report) -> None:
    assert tally(report.comparisons) == (
        "Against dense float32, exact, in nDCG@10: of 5 systems 1 better, 2 worse, "
        "1 not distinguished, 1 without an interval."
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234.5, "1,234"), (12.34, "12.3"), (0.01234, "0.0123"), (-2, "-2.00")],
)
def test_numbers_keep_three_significant_digits(value: float, text: str) -> None:
    assert significant(value) == text


def test_measures_are_written_as_papers_do() -> None:
    assert [measure_name(each) for each in ("ndcg@10", "map@5", "top1")] == [
        "nDCG@10",
        "mAP@5",
        "top1",
    ]


def test_the_frontier_holds_what_no_other_point_beats() -> None:
    points = [(2.0, 5.0), (1.0, 3.0), (3.0, 4.0), (2.0, 6.0), (1.0, 3.0), (4.0, 6.0), (5.0, 7.0)]
    assert frontier(points, "lower", "higher") == [1, 3, 6]
    assert frontier(points, "higher", "higher") == [6]
    assert frontier(points, "lower", "lower") == [1]
    assert frontier(points, "higher", "lower") == [6, 5, 2, 1]
    assert frontier([], "lower", "higher") == []


def test_rows_go_by_bytes_and_none_is_left_out(report: Report) -> None:
    names = [system.name for system in by_bytes(report)]
    assert names == [
        "binary, rescored",
        "CSR k=8, rescored",  # as many bytes as the next, and more of the measure
        "CSR k=8",
        "dense float32, exact",
        "dense float32, HNSW",
        "PCA, 16 dims",
    ]


def test_every_measured_figure_is_in_one_of_the_tables(report: Report) -> None:
    keys = [figure.key for figure in [*main_figures(report), *detail_figures(report)]]
    assert len(keys) == len(set(keys)) == 25
    assert {"bytes:disk", "qps:1", "qps:2", "build:train", "rss", "postings:dead"} <= set(keys)


def test_what_is_missing_is_told_by_system(report: Report) -> None:
    lines = unmeasured(report)
    assert (
        "none for “dense float32, HNSW”, “PCA, 16 dims”: queries a second, 2 clients; "
        "queries a second, 1 client; resident memory (RssAnon), MB" in lines
    )
    document = copy.deepcopy(dict(report.document))
    for system in document["systems"]:
        system["qps"] = None
    document["comparisons"] = []
    lines = unmeasured(parse_report(document))
    assert "none for any system: queries a second" in lines
    assert "no comparisons to a baseline, so no system is called better or worse" in lines


def test_markdown_is_the_golden_text(report: Report, tmp_path: Path) -> None:
    write_markdown(tmp_path / "report.md", report)
    assert (tmp_path / "report.md").read_text("utf-8") == (DATA / "bench_report.md").read_text(
        "utf-8"
    )


def cells(line: str) -> list[str]:
    return line.replace("\\|", "").strip("| ").split(" | ")


@pytest.mark.parametrize("name", ["PCA, 16 dims", HOSTILE])
def test_markdown_tables_have_one_shape_whatever_the_names(name: str, tmp_path: Path) -> None:
    write_markdown(tmp_path / "report.md", renamed(name))
    text = (tmp_path / "report.md").read_text("utf-8")
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("| ")]
    assert [(len(rows), len(cells(rows[0]))) for rows in tables] == [(8, 10), (8, 17), (7, 7)]
    for rows in tables:
        assert {len(cells(row)) for row in rows} == {len(cells(rows[0]))}


def test_hostile_texts_are_shown_and_not_obeyed_by_markdown() -> None:
    assert escaped(HOSTILE) == (
        r"a\|b \<i\>\*x\*\</i\> \`c\` \[d\](e) " + r"\[31m " + '"' + r"\$z\$" + '" ?'
    )


def printed(report: Report, width: int) -> list[str]:
    from rich.console import Console

    out = io.StringIO()
    # A far wider console: what does not fit is then neither cut nor wrapped for lack of room.
    Console(file=out, width=500).print(terminal_table(report, width))
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
@pytest.mark.parametrize("name", ["PCA, 16 dims", "long " * 60, HOSTILE])
def test_the_terminal_table_keeps_to_its_width(width: int, name: str) -> None:
    lines = printed(renamed(name), width)
    assert max(map(len, lines)) <= width
    assert not [line for line in lines if "…" in line or "\x1b" in line or "\u202e" in line]


def test_the_terminal_table_shows_what_fits_and_was_measured(report: Report) -> None:
    wide, narrow = "\n".join(printed(report, 140)), "\n".join(printed(report, 60))
    assert "postings/N" in wide and "QPS@2" in wide
    assert "B/vector" in narrow and "QPS@2" not in narrow
    row = next(line for line in printed(report, 100) if "binary" in line)
    assert row.split()[2:] == ["0.141", "0.835", "32.0", "1,024", "0.690", "0.837", "2,463"]
    document: dict[str, Any] = copy.deepcopy(dict(report.document))
    for system in document["systems"]:
        system["qps"] = {}
    assert "QPS" not in "\n".join(printed(parse_report(document), 140))


def test_the_terminal_tells_few_comparisons_one_by_one(report: Report) -> None:
    lines = terminal_sentences(report)
    assert len(lines) == 1 + 5 and lines[0].startswith("Against dense float32, exact")
    assert lines[1].startswith("binary, rescored is better")
    document = copy.deepcopy(dict(report.document))
    document["comparisons"] *= 2
    assert len(terminal_sentences(parse_report(document))) == 1
