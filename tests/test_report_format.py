"""The report of a benchmark run: what is read, and what is refused."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from csr_qdrant.benchmarks.report.format import Estimate, load_report, parse_report
from csr_qdrant.errors import CsrError

GOLDEN = Path(__file__).parent / "data" / "bench_report.json"
DOCUMENT: dict[str, Any] = json.loads(GOLDEN.read_text("utf-8"))


def changed(place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Return the golden document with the value at `place` replaced."""
    document = copy.deepcopy(DOCUMENT)
    found: Any = document
    for key in place[:-1]:
        found = found[key]
    found[place[-1]] = value
    return document


def test_all_of_a_report_is_read() -> None:
    report = load_report(GOLDEN)
    assert report.document == DOCUMENT
    assert report.task.measure == "ndcg@10" and report.task.documents == 31095
    dense, _, _, codes, rescored, unmeasured = report.systems
    assert dense.quality["ndcg@10"] == Estimate(mean=0.139, low=0.132, high=0.146)
    assert dense.latency_ms.encode is None and dense.postings.dead is None
    assert dense.latency_ms.search is not None and dense.latency_ms.search.p99 == 9.26
    assert codes.postings.per_query_n == 0.0394 and codes.qps == {"1": 5574.0, "2": 10528.0}
    assert rescored.rescored and rescored.settings == {"k": 8, "query_k": 8}
    assert rescored.fidelity == {"recall@10": None}
    assert unmeasured.latency_ms.search is None and unmeasured.quality == {}
    assert [row.difference for row in report.comparisons] == [-0.006, 0.002, -0.037, -0.002, None]


def test_keys_of_later_releases_are_kept_but_not_read() -> None:
    report = parse_report(changed(("systems", 0, "colour"), "red"))
    assert report.document["systems"][0]["colour"] == "red"
    assert report.systems == parse_report(DOCUMENT).systems


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("format",), "csr-bench/2", r"format 'csr-bench/2', this release reads 'csr-bench/1': up"),
        (("format",), None, "is of format None.*: name a report.json"),
        (("systems",), [], r"damaged \(it holds no system\): run"),
        (("systems",), {}, "systems must be a list, got dict"),
        (("systems", 0), 3, r"systems\[0\] must be an object, got int"),
        (("systems", 0, "name"), None, r"systems\[0\].name is missing"),
        (("systems", 0, "rescored"), 1, r"systems\[0\].rescored must be true or false, got int"),
        (("systems", 0, "name"), "CSR k=8", "2 systems are called 'CSR k=8'"),
        (("systems", 0, "rss_anon_mb"), "12", r"rss_anon_mb must be a number or null, got '12'"),
        (("systems", 0, "rss_anon_mb"), True, r"rss_anon_mb must be a number or null, got True"),
        (("systems", 0, "rss_anon_mb"), 10**400, r"rss_anon_mb must be below 2\*\*63"),
        (
            ("systems", 0, "quality", "ndcg@10", "low"),
            [],
            r"systems\[0\].quality\['ndcg@10'\].low must be a number",
        ),
        (("task", "measure"), 5, "task.measure must be a text, got int"),
        (("comparisons", 0, "system"), "another", "a comparison names 'another', which is no"),
        (("params", "x"), float("nan"), "damaged"),
    ],
)
def test_broken_reports_are_refused_by_name(
    place: tuple[Any, ...], value: Any, message: str
) -> None:
    with pytest.raises(CsrError, match=message) as refused:
        parse_report(changed(place, value), "runs/report.json")
    assert str(refused.value).startswith("runs/report.json ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("document", [[], 3, None, "csr-bench/1", {"benchmark": "demo"}])
def test_other_json_is_no_report(document: Any) -> None:
    with pytest.raises(CsrError, match="of format None"):
        parse_report(document)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is no JSON"),
        (b'{"format": "csr-bench/1"', "is no JSON"),
        (b"\xff\xfe\x00", "cannot be read as a report"),
        (GOLDEN.read_bytes().replace(b"3.59", b"NaN"), r"is no JSON \(it holds NaN\)"),
        (GOLDEN.read_bytes().replace(b"3.59", b"1e999"), r"is no JSON \(it holds 1e999\)"),
        (b"[" * 100_000, "is no JSON"),
    ],
)
def test_broken_files_are_refused_by_name(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(text)
    with pytest.raises(CsrError, match=message) as refused:
        load_report(path)
    assert str(path) in str(refused.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(CsrError, match=r"cannot be read as a report \(.*name a report.json"):
            load_report(path)
