"""The page of a report: whole in itself, and safe whatever the report holds."""

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from csr_qdrant.benchmarks.report.format import Report, load_report, parse_report
from csr_qdrant.benchmarks.report.page import page, write_page
from csr_qdrant.benchmarks.report.page_view import embedded, plots, view

GOLDEN = Path(__file__).parent / "data" / "bench_report.json"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;\u202e\u2028\ud800"
VOID = {"meta", "input", "line", "circle", "path", "br", "img", "link"}


class Parsed(HTMLParser):
    """Elements with their attributes, and what stands in scripts, cells and headings."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
            key = f"{tag}.{dict(attrs).get('class', '')}"
            self.texts.setdefault(key, []).append("")
            self._open[-1] = key

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().split(".")[0] == tag

    def handle_data(self, data: str) -> None:
        for key in self._open:
            self.texts[key][-1] += data


@pytest.fixture
def report() -> Report:
    return load_report(GOLDEN)


def hostile() -> Report:
    """Return the golden report with a hostile text wherever one may stand."""
    document = json.loads(GOLDEN.read_text("utf-8"))
    document["systems"][-1] |= {"name": HOSTILE, "family": HOSTILE, "settings": {HOSTILE: HOSTILE}}
    document["systems"][0]["quality"][HOSTILE] = {"mean": 0.1}
    document["systems"][0]["build_s"][HOSTILE] = 1.0
    document["comparisons"][-1] |= {"system": HOSTILE, "measure": HOSTILE}
    document["task"]["name"] = document["params"][HOSTILE] = HOSTILE
    document["machine"]["cpu"] = document["commit"] = HOSTILE
    return parse_report(document)


def test_the_page_refers_to_nothing_outside(report: Report) -> None:
    text = page(report)
    parsed = Parsed(text)
    assert {tag for tag, _ in parsed.elements}.isdisjoint({"link", "img", "iframe", "object", "a"})
    for tag, attributes in parsed.elements:
        assert attributes.keys().isdisjoint(
            {"src", "href", "srcset", "data", "action", "xlink:href"}
        )
        assert not [key for key in attributes if key.startswith("on")], (tag, attributes)
    urls = set(re.findall(r"\w+://[^\s\"']*", text))
    assert urls == {"http://www.w3.org/2000/svg"}  # a name, which no browser fetches
    assert "@import" not in text and "url(" not in text and "fetch(" not in text
    policies = [a["content"] for _, a in parsed.elements if "http-equiv" in a]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"]


def test_the_page_holds_the_report_itself(report: Report, tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", report)
    parsed = Parsed((tmp_path / "report.html").read_text("utf-8"))
    (data,) = parsed.texts["script.report-data"]
    assert json.loads(data) == json.loads(GOLDEN.read_text("utf-8"))
    (drawn,) = parsed.texts["script.view"]
    assert json.loads(drawn) == view(report)


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    report = hostile()
    write_page(tmp_path / "report.html", report)
    text = (tmp_path / "report.html").read_text("utf-8")
    parsed, plain = Parsed(text), Parsed(page(load_report(GOLDEN)))
    scripts = [a for tag, a in parsed.elements if tag == "script"]
    assert scripts == [a for tag, a in plain.elements if tag == "script"]
    assert "img" not in {tag for tag, _ in parsed.elements}
    (data,) = parsed.texts["script.report-data"]
    assert json.loads(data) == report.document
    shown = HOSTILE.replace("\ud800", "\ufffd")  # as a browser reads a reference to it
    assert parsed.texts["bdi."].count(shown) == 4  # the title, two tables, and a comparison
    assert f"csr bench: {shown}" in parsed.texts["title."]


def test_embedded_json_ends_no_element() -> None:
    value = {"</script>": "<!-- & -->\u2028\ud800é"}
    text = embedded(value)
    assert text.isascii() and not set("<>&") & set(text)
    assert json.loads(text) == value
    with pytest.raises(ValueError, match="Out of range"):
        embedded(float("nan"))


def test_tables_are_whole_without_a_script(report: Report) -> None:
    text = page(report)
    rows = re.findall(r'<tr data-index="(\d)">(.*?)</tr>', text)
    assert [index for index, _ in rows] == [*"012345"] * 2  # main figures, and more of them
    assert (
        'data-value="0.141">0.141<span class="interval"> [0.134, 0.148]</span></td>' in rows[0][1]
    )
    assert rows[5][1].count("<td>–</td>") == 9
    sentences = re.findall(r'<svg class="forest( open)?".*?aria-label="(.*?)"', text)
    assert [kind for kind, _ in sentences] == ["", " open", "", ""]
    assert sentences[0][1].startswith("binary, rescored is better than dense float32, exact, but n")
    assert "<noscript>" in text and "<h2>Not measured" in text


def test_points_to_draw_have_values_and_texts(report: Report) -> None:
    drawn = view(report)
    quality = next(each for each in drawn["figures"] if each["key"] == "quality:ndcg@10")
    assert quality["values"] == [0.141, 0.137, 0.102, 0.139, 0.133, None]
    assert quality["low"] == [0.134, None, 0.095, 0.132, 0.126, None]
    assert quality["texts"][:2] == ["0.141 [0.134, 0.148]", "0.137"] and not quality["log"]
    assert [each["rescored"] for each in drawn["systems"]] == [True, True, *[False] * 4]
    assert drawn["systems"][1]["settings"] == "k = 8, query_k = 8"
    assert [(x.key, y.key) for x, y in plots(report)] == [
        ("bytes:searched", "quality:ndcg@10"),
        ("search:p95", "quality:ndcg@10"),
        ("qps:2", "fidelity:recall@10"),
    ]


def test_several_reports_share_a_page(report: Report) -> None:
    other: dict[str, Any] = copy.deepcopy(dict(report.document))
    other["task"]["name"] = "scifact"
    parsed = Parsed(page(report, parse_report(other)))
    assert parsed.texts["title."] == ["csr bench: nave, scifact"]
    assert [a["id"] for tag, a in parsed.elements if tag == "section"] == ["report-0", "report-1"]
    names = [json.loads(data)["task"]["name"] for data in parsed.texts["script.report-data"]]
    assert names == ["nave", "scifact"]
