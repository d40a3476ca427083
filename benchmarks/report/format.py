"""The JSON of one run of `csr bench`: its shape, and the reader that checks it."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from csr_qdrant.errors import CsrError

FORMAT = "csr-bench/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A figure and, where there is one, its 95 % bootstrap interval."""

    mean: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Percentiles:
    """Latencies in milliseconds."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Serial latencies of a query: of encoding it, and of the search alone."""

    encode: Percentiles | None = None
    search: Percentiles | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Postings:
    """What a sparse index holds: lengths in entries, shares in 0..1."""

    per_query_n: float | None = None  # entries that a query touches, in multiples of n
    nonzeros: float | None = None  # mean of a document's code
    longest: float | None = None
    median: float | None = None
    dead: float | None = None  # share of latents without an entry


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemResult:
    """What was measured of one system; None and absent keys: not measured."""

    name: str
    family: str
    rescored: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    quality: Mapping[str, Estimate | None] = field(default_factory=dict)
    fidelity: Mapping[str, float | None] = field(default_factory=dict)
    latency_ms: Latency = field(default_factory=Latency)
    qps: Mapping[str, float | None] = field(default_factory=dict)  # by concurrent clients
    build_s: Mapping[str, float | None] = field(default_factory=dict)
    bytes_per_vector: Mapping[str, float | None] = field(default_factory=dict)
    rss_anon_mb: float | None = None
    postings: Postings = field(default_factory=Postings)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A system against a baseline, paired by query: `difference` is system minus baseline."""

    baseline: str
    system: str
    measure: str
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    wins: float | None = None
    losses: float | None = None
    ties: float | None = None
    d_z: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskInfo:
    """What was searched; `measure` is the one that plots and comparisons use."""

    name: str
    kind: str
    measure: str
    documents: float | None = None
    queries: float | None = None
    d: float | None = None
    embedder: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineInfo:
    """What held the indexes; bytes and memory of one that is not embedded are not known."""

    name: str
    version: str
    embedded: bool = True
    memory_bytes: Mapping[str, float | None] = field(default_factory=dict)  # of a whole server


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """A system that the engine could not build, and why."""

    system: str
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """One run: where, on what, and what came out."""

    format: str
    task: TaskInfo
    systems: tuple[SystemResult, ...]
    comparisons: tuple[Comparison, ...] = ()
    created: str | None = None
    commit: str | None = None
    machine: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    engine: EngineInfo | None = None
    skipped: tuple[Skipped, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict)  # the JSON itself, unread keys too


def load_report(path: Path) -> Report:
    """Read a report of `csr bench`; raises CsrError for any other or a damaged file."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CsrError(f"{path} cannot be read as a report ({error}): name a report.json") from None
    try:
        document = json.loads(text, parse_constant=_refused, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise CsrError(f"{path} is no JSON ({error}): run `csr bench` anew") from None
    return parse_report(document, str(path))


def parse_report(document: Any, name: str = "the report") -> Report:
    """Return the report that a JSON document holds; `name` stands for it in errors.

    Raises CsrError if it is of another format, or breaks this one's rules: system names are
    unique, comparisons name systems of the report, and every number is finite or null.
    """
    found = document.get("format") if isinstance(document, Mapping) else None
    if found != FORMAT:
        known = isinstance(found, str) and found.startswith("csr-bench/")
        fix = "update csr-qdrant" if known else "name a report.json that `csr bench` wrote"
        raise CsrError(f"{name} is of format {found!r}, this release reads {FORMAT!r}: {fix}")
    try:
        json.dumps(document, allow_nan=False)
        report: Report = _decoded(Report, {**document, "document": document}, "")
        _check_names(report)
    except (ValueError, TypeError, RecursionError) as error:
        raise CsrError(f"{name} is damaged ({error}): run `csr bench` anew") from None
    return report


def _check_names(report: Report) -> None:
    counts = Counter(system.name for system in report.systems)
    if not counts:
        raise ValueError("it holds no system")
    name, count = counts.most_common(1)[0]
    if count > 1:
        raise ValueError(f"{count} systems are called {name!r}")
    for row in report.comparisons:
        for each in (row.system, row.baseline):
            if each not in counts:
                raise ValueError(f"a comparison names {each!r}, which is no system of it")


def _refused(constant: str) -> float:
    raise ValueError(f"it holds {constant}")


def _finite(text: str) -> float:
    return float(text) if math.isfinite(float(text)) else _refused(text)


def _decoded(kind: Any, value: Any, where: str) -> Any:
    """Return `value` as the type `kind`; a ValueError names the place that does not fit."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is UnionType:  # X | None is the only union of the format
        return None if value is None else _decoded(args[0], value, where)
    if is_dataclass(kind):
        return _decoded_object(kind, _of(Mapping, value, "an object", where), where)
    if origin is Mapping:
        rows = _of(Mapping, value, "an object", where)
        return {key: _decoded(args[1], each, f"{where}[{key!r}]") for key, each in rows.items()}
    if origin is tuple:
        rows = _of(list, value, "a list", where)
        return tuple(_decoded(args[0], each, f"{where}[{i}]") for i, each in enumerate(rows))
    if kind is float:
        return _number(value, where)
    return _of(kind, value, {str: "a text", bool: "true or false"}[kind], where)


def _decoded_object(kind: Any, value: Mapping[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    prefix = f"{where}." if where else ""
    found: dict[str, Any] = {}
    for each in fields(kind):
        given = value.get(each.name)
        if given is not None:
            found[each.name] = _decoded(hints[each.name], given, prefix + each.name)
        elif _required(each):
            raise ValueError(f"{prefix}{each.name} is missing")
    return kind(**found)


def _required(each: "Field[Any]") -> bool:
    return each.default is MISSING and each.default_factory is MISSING


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where} must be a number or null, got {value!r}")
    if isinstance(value, int) and abs(value) > 2**63:
        raise ValueError(f"{where} must be below 2**63, got a larger number")
    return float(value)


def _of(kind: Any, value: Any, wanted: str, where: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{where} must be {wanted}, got {type(value).__name__}")
    return value
