"""The page of a report in a real browser, without a network."""

import json
import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from csr_qdrant.benchmarks.report.format import Report, load_report, parse_report
from csr_qdrant.benchmarks.report.numbers import frontier
from csr_qdrant.benchmarks.report.page import page
from csr_qdrant.benchmarks.report.page_view import plots, view

GOLDEN = Path(__file__).parent / "data" / "bench_report.json"
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium: install one, or name its program in CHROMIUM"
)
# Notes what goes wrong from before the page's script on.
_WATCH = """<script>window.wrong = [];
addEventListener("error", event => wrong.push(event.message));
addEventListener("securitypolicyviolation", event => wrong.push(event.violatedDirective));
</script><main>"""
# Answers once the page is loaded; $, points and press are there for the probes.
_PROBE = """<script>addEventListener("load", async () => {
const $ = (selector, root) => [...(root || document).querySelectorAll(selector)];
const points = i => $(".point", $(".plot")[i]).map(each => Number(each.dataset.index));
const press = label => $(".legend button").find(each => each.textContent === label).click();
let answer;
try { answer = await (async () => { %s })(); } catch (error) { wrong.push(String(error)); }
const made = document.createElement("pre");
made.id = "answer";
made.textContent = encodeURIComponent(JSON.stringify({answer, wrong}));
document.body.append(made);
})</script></body>"""


class _Answer(HTMLParser):
    found = ""
    inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = ("id", "answer") in attrs

    def handle_data(self, data: str) -> None:
        self.found += data if self.inside else ""
        self.inside = False


def asked(folder: Path, probe: str, *reports: Report, dark: bool = False) -> Any:
    """Return what `probe`, the body of a JavaScript function, returns in the open page."""
    text = page(*reports).replace("<main>", _WATCH, 1).replace("</body>", _PROBE % probe)
    (folder / "page.html").write_text(text, "utf-8", errors="xmlcharrefreplace")
    assert BROWSER is not None
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",  # containers run tests as root, where Chromium has none
        "--disable-gpu",
        f"--user-data-dir={folder / 'profile'}",
        "--window-size=1280,1000",
        "--virtual-time-budget=5000",
        *(["--blink-settings=preferredColorScheme=0"] if dark else []),
        "--dump-dom",
        (folder / "page.html").as_uri(),
    ]
    run = subprocess.run(command, capture_output=True, timeout=120, check=True)
    parser = _Answer()
    parser.feed(run.stdout.decode("utf-8"))
    assert parser.found, run.stderr.decode("utf-8", "replace")[-2000:]
    answer = json.loads(unquote(parser.found))
    assert answer["wrong"] == []
    return answer.get("answer")


@pytest.fixture
def report() -> Report:
    return load_report(GOLDEN)


def test_each_plot_shows_what_was_measured_and_its_frontier(report: Report, tmp_path: Path) -> None:
    found = asked(
        tmp_path,
        """return $(".plot").map((plot, i) => [points(i),
            JSON.parse(plot.querySelector("svg").dataset.frontier),
            plot.querySelector(".missing").textContent])""",
        report,
    )
    figures = {each["key"]: each["values"] for each in view(report)["figures"]}
    names = [each["name"] for each in view(report)["systems"]]
    assert len(found) == 3
    for (x, y), (drawn, best, missing) in zip(plots(report), found, strict=True):
        pairs = list(zip(figures[x.key], figures[y.key], strict=True))
        measured = [i for i, pair in enumerate(pairs) if None not in pair]
        assert sorted(drawn) == measured
        expected = frontier([pairs[i] for i in measured], x.better, y.better)
        assert best == [measured[i] for i in expected]
        lacking = [name for i, name in enumerate(names) if i not in measured]
        assert missing == f"Not drawn, for lack of a figure: {'; '.join(lacking)}"


def test_marks_stand_where_their_figures_are(report: Report, tmp_path: Path) -> None:
    found = asked(
        tmp_path,
        """const plot = $(".plot")[1], at = {};
        for (const each of $(".point", plot)) {
          const mark = each.querySelector(".mark"), box = mark.getBoundingClientRect();
          at[each.dataset.index] = [box.x + box.width / 2, box.y + box.height / 2,
            getComputedStyle(mark).fill === getComputedStyle(plot).backgroundColor];
        }
        return [at, $(".bar", plot).length, $("text.name", plot).map(each => each.textContent)]""",
        report,
    )
    at, bars, names = found
    # Search p95 0.837, 0.696, 0.211, 4.55 and 1.21 ms: nDCG@10 0.141, 0.137, 0.102, 0.139, 0.133.
    assert sorted(at, key=lambda i: at[i][0]) == ["2", "1", "0", "4", "3"]
    assert sorted(at, key=lambda i: at[i][1]) == ["0", "3", "1", "4", "2"]
    assert [i for i in at if at[i][2]] == ["0", "1"]  # hollow: the rescored ones
    middle = (at["0"][0] - at["2"][0]) / (at["3"][0] - at["2"][0])
    assert middle == pytest.approx(0.4488, abs=0.01)  # log(0.837/0.211) / log(4.55/0.211)
    assert bars == 4  # one system has no interval
    assert set(names) <= {"CSR k=8", "CSR k=8, rescored", "binary, rescored"} and names


def test_the_legend_takes_families_out_and_brings_them_back(report: Report, tmp_path: Path) -> None:
    found = asked(
        tmp_path,
        """const seen = [], frontier = () =>
          JSON.parse($(".plot svg")[0].dataset.frontier);
        for (const label of ["binary", "CSR", "rescored by float32", "as found", "as found",
            "none", "all"]) {
          press(label);
          seen.push([points(0).sort(), points(0).length ? frontier() : [],
            $(".plot svg")[0].textContent.includes("Nothing to draw")]);
        }
        return seen""",
        report,
    )
    assert found == [
        [[1, 2, 3, 4], [1, 3], False],
        [[3, 4], [3], False],
        [[3, 4], [3], False],
        [[], [], True],
        [[3, 4], [3], False],
        [[], [], True],
        [[2, 3, 4], [2, 3], False],  # the rescored ones are still out
    ]


def test_axes_and_switches_draw_anew(report: Report, tmp_path: Path) -> None:
    found = asked(
        tmp_path,
        """const plot = $(".plot")[0], [y, x] = $("select", plot), log = $("input", plot)[0];
        const texts = () => $("text.axis", plot).map(each => each.textContent);
        const seen = [texts(), log.checked];
        const choose = (select, title) => {
          select.value = [...select.options].find(each => each.textContent === title).value;
          select.dispatchEvent(new Event("change"));
        };
        choose(x, "queries a second, 1 client");
        choose(y, "build, seconds");
        seen.push(texts(), log.checked, points(0).sort());
        choose(x, "nDCG@10");
        seen.push(log.checked, $(".bar", plot).length);
        for (const box of $(".legend input")) box.click();
        seen.push($(".bar", plot).length, $("text.name", plot).length,
          $("path.family", plot).length);
        return seen""",
        report,
    )
    assert found == [
        ["nDCG@10 · ↑ better", "← better · bytes a vector, searched"],
        True,
        ["build, seconds · ↓ better", "queries a second, 1 client · better →"],
        True,
        [0, 1, 2, 3],
        False,
        4,
        0,
        0,
        0,
    ]


def test_points_are_reached_and_told_by_keys(report: Report, tmp_path: Path) -> None:
    found = asked(
        tmp_path,
        """const tip = $(".tip")[0], plot = $(".plot")[0], key = name =>
          document.activeElement.dispatchEvent(
            new KeyboardEvent("keydown", {key: name, bubbles: true, cancelable: true}));
        const stops = $(".point[tabindex='0']", plot);
        stops[0].focus();
        const seen = [stops.length, document.activeElement.getAttribute("aria-label"), tip.hidden];
        const told = {};
        for (const each of $(".figures div", tip)) {
          told[each.firstChild.textContent] = each.lastChild.textContent;
        }
        seen.push(told, $(".drawn", tip).map(each => each.firstChild.textContent));
        key("End");
        seen.push(tip.querySelector("b").textContent, $("tr.active").length);
        key("ArrowLeft");
        key("Enter");
        document.activeElement.blur();
        seen.push(tip.querySelector("b").textContent, tip.hidden);
        key("Escape");
        seen.push(tip.hidden, $(".active").length);
        return seen""",
        report,
    )
    told = found.pop(3)
    assert found == [
        1,
        "binary, rescored: nDCG@10 0.141 [0.134, 0.148]; bytes a vector, searched 32.0",
        False,
        ["nDCG@10", "B/vector"],
        "dense float32, HNSW",
        2,  # its rows in both tables
        "dense float32, exact",
        False,  # kept
        True,
        0,
    ]
    drawn = view(report)["figures"]
    assert told == {f["short"]: f["texts"][0] for f in drawn if f["values"][0] is not None}


def test_tables_are_sorted_by_their_headings(report: Report, tmp_path: Path) -> None:
    found = asked(
        tmp_path,
        """const table = $("table.sortable")[0], rows = () =>
          $("tbody tr", table).map(each => each.dataset.index).join("");
        const click = i => $("th button", table.tHead)[i].click();
        const seen = [rows()];
        for (const i of [1, 1, 0, 0, 7]) { click(i); seen.push(rows()); }
        return [...seen, $("th[aria-sort]", table).map(each => each.textContent)]""",
        report,
    )
    assert found == [
        "012345",
        "031425",  # more of the measure is better, so the most comes first
        "241305",  # what was not measured stays last
        "021345",
        "543120",
        "210354",
        ["QPS@2"],
    ]


def test_the_report_can_be_saved_from_the_page(report: Report, tmp_path: Path) -> None:
    found = asked(
        tmp_path,
        """const blobs = [];
        URL.createObjectURL = blob => { blobs.push(blob); return "#"; };
        $("button.download")[0].click();
        return JSON.parse(await blobs[0].text())""",
        report,
    )
    assert found == report.document


def test_both_colour_schemes_are_followed(report: Report, tmp_path: Path) -> None:
    probe = """const style = getComputedStyle(document.body);
        return [style.backgroundColor, style.color, getComputedStyle($(".mark")[0]).fill]"""
    light = asked(tmp_path, probe, report)
    dark = asked(tmp_path, probe, report, dark=True)
    assert light[0] == "rgb(252, 252, 250)" and dark[0] == "rgb(20, 23, 26)"
    assert not set(light) & set(dark)


def test_hostile_names_run_nothing(report: Report, tmp_path: Path) -> None:
    name = "</script><script>wrong.push('ran')</script><img src=x onerror=wrong.push(1)>\u202e"
    document = json.loads(GOLDEN.read_text("utf-8"))
    document["systems"][3] |= {"name": name, "family": name}
    document["systems"][3]["settings"] = {name: name}
    document["comparisons"] = []
    document["task"]["name"] = name
    found = asked(
        tmp_path,
        """$(".plot").forEach((_, i) => $(".point", $(".plot")[i]).forEach(each => each.focus()));
        const point = $(".point").find(each => each.dataset.index === "2");
        point.focus();
        const title = $("h1 bdi")[0].textContent, labels = $(".legend button");
        return [$("img").length, $(".tip b")[0].textContent, title,
          labels.some(each => each.textContent === title)]""",
        parse_report(document),
    )
    assert found == [0, name, name, True]


def test_reports_on_one_page_do_not_meet(report: Report, tmp_path: Path) -> None:
    found = asked(
        tmp_path,
        """const [first, second] = $("section.report");
        $(".legend button", first).find(each => each.textContent === "none").click();
        return [first, second].map(each => $(".point", each).length)""",
        report,
        report,
    )
    assert found == [0, 5 + 5 + 3]


def test_plots_follow_the_width_of_the_window(report: Report, tmp_path: Path) -> None:
    found = asked(
        tmp_path,
        """const svg = $(".plot svg")[0];
        const width = () => Number(svg.getAttribute("viewBox").split(" ")[2]);
        const before = width();
        $("main")[0].style.width = "700px";
        dispatchEvent(new Event("resize"));
        const edge = svg.getBoundingClientRect().right;
        return [before - width(), width() - svg.clientWidth,
          $(".point", svg).every(each => each.getBoundingClientRect().right <= edge)]""",
        report,
    )
    assert found == [1240 - 700, 0, True]
