"""The matrix: every system that a benchmark measures, in the order of its tables."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from csr_qdrant.benchmarks.csr_system import CsrSystem, KnownCodes
from csr_qdrant.benchmarks.engine import Quantisation
from csr_qdrant.benchmarks.matrix.config import BenchConfig
from csr_qdrant.benchmarks.matrix.models import Coder, Models, Shortener, first_dimensions
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.benchmarks.systems import DenseSystem, IndexSystem
from csr_qdrant.errors import ConfigError

BASELINE = "dense float32, exact"
FIRST = Shortener(None, first_dimensions, 0.0, "first")
TURBO_BITS = (1, 2, 4)
GRAPHS: tuple[Quantisation, ...] = ("int8", "binary", "turbo4")  # with a graph too


@dataclass(frozen=True)
class Plan:
    """A system to be measured."""

    name: str
    family: str
    index: str  # systems of one index search it with settings of their own; the first builds it
    settings: Mapping[str, Any]
    make: Callable[[], IndexSystem]
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
    found = [plan for name in wanted for plan in parts[name]()]
    names = [plan.name for plan in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"two systems would be called {twice[0]!r}: rename an encoder's folder")
    return found


def _exact() -> Iterator[Plan]:
    yield Plan(BASELINE, "dense", "exact", {}, partial(DenseSystem, name=BASELINE, m=0))


def _hnsw(config: BenchConfig) -> Iterator[Plan]:
    for ef in config.ef:
        name = f"HNSW m={config.m}, ef {ef}"
        make = partial(DenseSystem, name=name, m=config.m, ef=ef)
        yield Plan(name, "HNSW", f"hnsw-{config.m}", {"m": config.m, "ef": ef}, make)


def _truncated(config: BenchConfig, d: int) -> Iterator[Plan]:
    for dims in config.sizes(d):
        yield from _shortened(config, "truncated", f"truncated to {dims}", dims, FIRST)


def _pca(models: Models, d: int) -> Iterator[Plan]:
    pca = models.pca()
    for dims in models.config.sizes(d):
        yield from _shortened(models.config, "PCA", f"PCA {dims}", dims, pca)


def _mrl(models: Models, d: int) -> Iterator[Plan]:
    for adapter in models.adapters("mrl"):
        for dims in models.config.sizes(d):
            name = f"MRL adapter{_by(adapter)} {dims}"
            yield from _shortened(models.config, "MRL adapter", name, dims, adapter)


def _adapters(models: Models, d: int) -> Iterator[Plan]:
    for adapter in models.adapters("adapter"):
        name = f"dense adapter{_by(adapter)}, exact"
        yield _plain("dense adapter", name, d, adapter)


def _by(adapter: Shortener) -> str:
    return f" ({adapter.supervision})" if adapter.supervision else ""


def _shortened(
    config: BenchConfig, family: str, name: str, dims: int, by: Shortener
) -> Iterator[Plan]:
    """Yield shorter vectors, searched exactly, and the same rescored."""
    plain = _plain(family, name, dims, by)
    yield plain
    if config.candidates:
        rescored, transform = f"{name}, rescored", partial(_applied, by.apply, dims)
        make = partial(
            DenseSystem, name=rescored, m=0, transform=transform, candidates=config.candidates
        )
        settings = {**plain.settings, "candidates": config.candidates}
        yield replace(
            plain,
            name=rescored,
            index=f"{plain.index}-dense",
            settings=settings,
            make=make,
            rescored=True,
        )


def _plain(family: str, name: str, dims: int, by: Shortener) -> Plan:
    transform = partial(_applied, by.apply, dims)
    make = partial(DenseSystem, name=name, m=0, transform=transform)
    settings = {"dims": dims, "model": by.fingerprint}
    index = f"{name} {by.fingerprint}"
    return Plan(name, family, index, settings, make, False, transform, by.train_s)


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
        yield from _codes(models, coder)


def _codes(models: Models, coder: Coder) -> Iterator[Plan]:
    config, label, most = models.config, f"CSR {coder.label}".rstrip(), max(coder.ks)
    known = KnownCodes(partial(coder.encoder.encode, k=most), models.task.vectors)
    part = partial(_code_plan, label, coder, most, known)
    fewer = sorted((k for k in set(config.query_k) if k < most), reverse=True)
    for candidates in (0, config.candidates) if config.candidates else (0,):
        for k in coder.ks:
            for query_k in (k, *(fewer if k == most else ())):
                yield part(k, query_k, candidates)
    for k in coder.ks:
        yield part(k, k, 0, "u8")


def _code_plan(
    label: str,
    coder: Coder,
    most: int,
    known: KnownCodes,
    k: int,
    query_k: int,
    candidates: int,
    datatype: Any = "f32",
) -> Plan:
    name = f"{label} k={k}"
    name += f", queries {query_k}" if query_k != k else ""
    name += f", {datatype}" if datatype != "f32" else ""
    index = f"{label}-{k}-{datatype}-{coder.encoder.fingerprint}{'-dense' if candidates else ''}"
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
        known=known,
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
