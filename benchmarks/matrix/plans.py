"""The matrix: every system that a benchmark measures, in the order of its tables."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from csr_qdrant.benchmarks.csr_system import CsrSystem
from csr_qdrant.benchmarks.matrix.config import BenchConfig
from csr_qdrant.benchmarks.matrix.models import Coder, Models, Shortener, first_dimensions
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.benchmarks.systems import DenseSystem, EdgeSystem, Quantisation

BASELINE = "dense float32, exact"
TURBO_BITS = (1, 2, 4)
GRAPHS: tuple[Quantisation, ...] = ("int8", "binary", "turbo4")  # with a graph too


@dataclass(frozen=True)
class Plan:
    """A system to be measured."""

    name: str
    family: str
    index: str  # systems of one index search it with settings of their own; the first builds it
    settings: Mapping[str, Any]
    make: Callable[[], EdgeSystem]
    rescored: bool = False
    encode: Callable[[Matrix], Any] | None = None  # what a query goes through before the search
    train_s: float = 0.0

    @property
    def key(self) -> str:
        """A name for files that changes with the settings."""
        said = json.dumps([self.name, self.index, self.settings], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:16]


def plans(models: Models, dimension: int) -> list[Plan]:
    """Return the systems for vectors of `dimension`, those of an index one after the other."""
    config = models.config
    parts: Mapping[str, Callable[[], Iterator[Plan]]] = {
        "exact": _exact,
        "hnsw": partial(_hnsw, config),
        "truncated": partial(_truncated, config, dimension),
        "pca": partial(_pca, models, dimension),
        "mrl": partial(_mrl, models, dimension),
        "adapter": partial(_adapters, models, dimension),
        "int8": partial(_quantised, config, "int8", "int8", "int8"),
        "binary": partial(_quantised, config, "binary", "binary", "binary"),
        "turbo": partial(_turbo, config),
        "csr": partial(_csr, models),
    }
    # Exact search is what all are compared with.
    wanted = [name for name in parts if name in config.systems or name == "exact"]
    return [plan for name in wanted for plan in parts[name]()]


def _exact() -> Iterator[Plan]:
    yield Plan(BASELINE, "dense", "exact", {}, partial(DenseSystem, name=BASELINE, m=0))


def _hnsw(config: BenchConfig) -> Iterator[Plan]:
    for ef in config.ef:
        name = f"HNSW m={config.m}, ef {ef}"
        make = partial(DenseSystem, name=name, m=config.m, ef=ef)
        yield Plan(name, "HNSW", f"hnsw-{config.m}", {"m": config.m, "ef": ef}, make)


def _truncated(config: BenchConfig, d: int) -> Iterator[Plan]:
    for dims in config.sizes(d):
        yield from _shortened(config, "truncated", f"truncated to {dims}", dims, first_dimensions)


def _pca(models: Models, d: int) -> Iterator[Plan]:
    pca = models.pca()
    for dims in models.config.sizes(d):
        yield from _shortened(
            models.config, "PCA", f"PCA {dims}", dims, pca.apply, train_s=pca.train_s
        )


def _mrl(models: Models, d: int) -> Iterator[Plan]:
    for adapter in models.adapters("mrl"):
        for dims in models.config.sizes(d):
            name = f"MRL adapter{_by(adapter)} {dims}"
            yield from _shortened(
                models.config, "MRL adapter", name, dims, adapter.apply, train_s=adapter.train_s
            )


def _adapters(models: Models, d: int) -> Iterator[Plan]:
    for adapter in models.adapters("adapter"):
        name = f"dense adapter{_by(adapter)}, exact"
        yield _plain("dense adapter", name, d, adapter.apply, adapter.train_s)


def _by(adapter: Shortener) -> str:
    return f" ({adapter.supervision})" if adapter.supervision else ""


def _shortened(
    config: BenchConfig,
    family: str,
    name: str,
    dims: int,
    apply: Callable[[Matrix, int], Matrix],
    train_s: float = 0.0,
) -> Iterator[Plan]:
    """Yield shorter vectors, searched exactly, and the same rescored."""
    yield _plain(family, name, dims, apply, train_s)
    if config.candidates:
        transform = partial(_applied, apply, dims)
        rescored = f"{name}, rescored"
        make = partial(
            DenseSystem, name=rescored, m=0, transform=transform, candidates=config.candidates
        )
        settings = {"dims": dims, "candidates": config.candidates}
        yield Plan(rescored, family, rescored, settings, make, True, transform, train_s)


def _plain(
    family: str, name: str, dims: int, apply: Callable[[Matrix, int], Matrix], train_s: float
) -> Plan:
    transform = partial(_applied, apply, dims)
    make = partial(DenseSystem, name=name, m=0, transform=transform)
    return Plan(name, family, name, {"dims": dims}, make, False, transform, train_s)


def _applied(apply: Callable[[Matrix, int], Matrix], dims: int, rows: Matrix) -> Matrix:
    return apply(rows, dims)


def _turbo(config: BenchConfig) -> Iterator[Plan]:
    for bits in TURBO_BITS:
        kind: Any = f"turbo{bits}"
        yield from _quantised(config, kind, "TurboQuant", f"TurboQuant {bits} bits")


def _quantised(config: BenchConfig, kind: Quantisation, family: str, label: str) -> Iterator[Plan]:
    """Yield quantised vectors, all scored or by a graph, each as it is and rescored."""
    graphs = (0, config.m) if kind in GRAPHS else (0,)
    for m in graphs:
        searched = f"{label}, HNSW" if m else label
        index = f"{kind}-{m}"
        for candidates in (0, config.candidates) if config.candidates else (0,):
            name = f"{searched}, rescored" if candidates else searched
            make = partial(DenseSystem, name=name, m=m, quantisation=kind, candidates=candidates)
            settings = {"quantisation": kind, "m": m, "candidates": candidates}
            yield Plan(name, family, index, settings, make, bool(candidates))


def _csr(models: Models) -> Iterator[Plan]:
    for coder in models.coders():
        yield from _codes(models.config, coder)


def _codes(config: BenchConfig, coder: Coder) -> Iterator[Plan]:
    label = f"CSR {coder.label}".rstrip()
    most = max(config.k)
    fewer = sorted((k for k in set(config.query_k) if k < most), reverse=True)
    for candidates in (0, config.candidates) if config.candidates else (0,):
        for k in config.k:
            for query_k in (k, *(fewer if k == most else ())):
                yield _code_plan(label, coder, most, k, query_k, candidates)
    for k in config.k:
        yield _code_plan(label, coder, most, k, k, 0, "u8")


def _code_plan(
    label: str,
    coder: Coder,
    most: int,
    k: int,
    query_k: int,
    candidates: int,
    datatype: Any = "f32",
) -> Plan:
    name = f"{label} k={k}"
    name += f", queries {query_k}" if query_k != k else ""
    name += f", {datatype}" if datatype != "f32" else ""
    index = f"{label}-{k}-{datatype}{'-dense' if candidates else ''}"
    name += ", rescored" if candidates else ""
    encode = partial(coder.encoder.encode, k=most)
    make = partial(
        CsrSystem,
        name=name,
        encode=encode,
        k=k,
        query_k=query_k,
        datatype=datatype,
        candidates=candidates,
    )
    settings = {
        "k": k,
        "query_k": query_k,
        "h": coder.encoder.h,
        "datatype": datatype,
        "candidates": candidates,
        "encoder": coder.encoder.fingerprint,
    }
    return Plan(name, label, index, settings, make, bool(candidates), encode, coder.train_s)
