"""The figures of a report: which there are, what they are called, which way is better."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from csr_qdrant.benchmarks.report.format import Estimate, Percentiles, Report, SystemResult
from csr_qdrant.benchmarks.report.numbers import NONE, Better, measure_name, significant


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One column of a report; `get` returns what a system has of it, None: not measured."""

    key: str  # "quality:ndcg@10"
    title: str  # for axes and texts: "bytes a vector, searched"
    short: str  # for the head of a column: "B/vector"
    better: Better
    get: Callable[[SystemResult], Estimate | float | None]
    share: bool = False  # three decimals; otherwise three significant digits
    log: bool = False  # its axis

    def estimate(self, system: SystemResult) -> Estimate:
        """Return the figure of `system`, with its interval if it has one."""
        found = self.get(system)
        return found if isinstance(found, Estimate) else Estimate(mean=found)

    def value(self, system: SystemResult) -> float | None:
        """Return the figure of `system` without its interval."""
        return self.estimate(system).mean

    def shown(self, value: float | None) -> str:
        """Return a value as text."""
        if value is None:
            return NONE
        return f"{value:.3f}" if self.share else significant(value)

    def cell(self, system: SystemResult, *, interval: bool = False) -> str:
        """Return the figure of `system` as text: `0.112`, or `0.112 [0.105, 0.119]`."""
        found = self.estimate(system)
        if found.mean is None or found.low is None or found.high is None or not interval:
            return self.shown(found.mean)
        return f"{self.shown(found.mean)} [{self.shown(found.low)}, {self.shown(found.high)}]"


def main_figures(report: Report) -> list[Figure]:
    """Return the columns of the main table that were measured, most telling first."""
    qps = _concurrencies(report)
    return _measured(
        report,
        [
            _quality(report.task.measure),
            *(_fidelity(name) for name in _keys(system.fidelity for system in report.systems)),
            _bytes("searched", "bytes a vector, searched", "B/vector"),
            _bytes("rescoring", "bytes a vector, for rescoring", "rescoring B"),
            _search("p50"),
            _search("p95"),
            *([_qps(qps[-1])] if qps else []),
            Figure(
                key="build",
                title="build, seconds",
                short="build s",
                better="lower",
                get=build_seconds,
                log=True,
            ),
            Figure(
                key="postings",
                title="postings a query, in multiples of N",
                short="postings/N",
                better="lower",
                get=lambda system: system.postings.per_query_n,
                share=True,
            ),
        ],
    )


def detail_figures(report: Report) -> list[Figure]:
    """Return the measured columns that the main table leaves out."""
    main = {figure.key for figure in main_figures(report)}
    postings = {"nonzeros": "non-zeros", "median": "median list", "longest": "longest list"}
    every = [
        *(_quality(name) for name in _keys(system.quality for system in report.systems)),
        _bytes("total", "bytes a vector, searched and rescoring", "total B"),
        _bytes("disk", "bytes a vector, on disk", "disk B"),
        _search("p99"),
        *(_encode(each) for each in ("p50", "p95", "p99")),
        *(_qps(clients) for clients in _concurrencies(report)),
        *(_build(step) for step in _keys(system.build_s for system in report.systems)),
        Figure(
            key="rss",
            title="resident memory (RssAnon), MB",
            short="RSS MB",
            better="lower",
            get=lambda system: system.rss_anon_mb,
        ),
        *(_postings(name, title) for name, title in postings.items()),
        Figure(
            key="postings:dead",
            title="share of latents without an entry",
            short="dead",
            better="lower",
            get=lambda system: system.postings.dead,
            share=True,
        ),
    ]
    return [figure for figure in _measured(report, every) if figure.key not in main]


def by_bytes(report: Report) -> list[SystemResult]:
    """Return all systems by the bytes that a search reads, fewest first, unmeasured ones last."""
    quality, size = _quality(report.task.measure), _bytes("searched", "", "")

    def rank(system: SystemResult) -> tuple[float, float]:
        found, mean = size.value(system), quality.value(system)
        return (math.inf if found is None else found, math.inf if mean is None else -mean)

    return sorted(report.systems, key=rank)


def build_seconds(system: SystemResult) -> float | None:
    """Return the sum of a system's measured steps of building, None if there is none."""
    found = [seconds for seconds in system.build_s.values() if seconds is not None]
    return sum(found) if found else None


def total_bytes(system: SystemResult) -> float | None:
    """Return the bytes a vector of the search structure and of what rescoring reads."""
    searched = system.bytes_per_vector.get("searched")
    return None if searched is None else searched + (system.bytes_per_vector.get("rescoring") or 0)


def _measured(report: Report, figures: Iterable[Figure]) -> list[Figure]:
    return [f for f in figures if any(f.value(system) is not None for system in report.systems)]


def _keys(mappings: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _concurrencies(report: Report) -> list[str]:
    keys = _keys(
        (key for key, value in system.qps.items() if value is not None) for system in report.systems
    )
    return sorted(keys, key=lambda key: (int(key) if key.isdecimal() else 0, key))


def _quality(name: str) -> Figure:
    title = measure_name(name)
    return Figure(
        key=f"quality:{name}",
        title=title,
        short=title,
        better="higher",
        get=lambda system: system.quality.get(name),
        share=True,
    )


def _fidelity(name: str) -> Figure:
    return Figure(
        key=f"fidelity:{name}",
        title=f"fidelity: {name} of exact dense search",
        short=f"fidelity {name}",
        better="higher",
        get=lambda system: system.fidelity.get(name),
        share=True,
    )


def _bytes(part: str, title: str, short: str) -> Figure:
    get = total_bytes if part == "total" else lambda system: system.bytes_per_vector.get(part)
    return Figure(key=f"bytes:{part}", title=title, short=short, better="lower", get=get, log=True)


def _search(percentile: str) -> Figure:
    return Figure(
        key=f"search:{percentile}",
        title=f"search {percentile}, ms",
        short=f"{percentile} ms",
        better="lower",
        get=lambda system: _of(system.latency_ms.search, percentile),
        log=True,
    )


def _encode(percentile: str) -> Figure:
    return Figure(
        key=f"encode:{percentile}",
        title=f"encoding a query {percentile}, ms",
        short=f"encode {percentile} ms",
        better="lower",
        get=lambda system: _of(system.latency_ms.encode, percentile),
        log=True,
    )


def _of(found: Percentiles | None, percentile: str) -> float | None:
    value: float | None = getattr(found, percentile) if found else None
    return value


def _qps(clients: str) -> Figure:
    return Figure(
        key=f"qps:{clients}",
        title=f"queries a second, {clients} client{'' if clients == '1' else 's'}",
        short=f"QPS@{clients}",
        better="higher",
        get=lambda system: system.qps.get(clients),
        log=True,
    )


def _build(step: str) -> Figure:
    return Figure(
        key=f"build:{step}",
        title=f"build: {step}, seconds",
        short=f"{step} s",
        better="lower",
        get=lambda system: system.build_s.get(step),
        log=True,
    )


def _postings(name: str, short: str) -> Figure:
    return Figure(
        key=f"postings:{name}",
        title={"nonzeros": "non-zeros a document"}.get(name, f"{short} of postings"),
        short=short,
        better="lower",
        get=lambda system: getattr(system.postings, name),
    )
