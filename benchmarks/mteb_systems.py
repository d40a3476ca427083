"""What is run on tasks of mteb: systems, each with what tells its scores from those of others."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from csr_qdrant.benchmarks.csr_system import CsrSystem
from csr_qdrant.benchmarks.engine import Quantisation
from csr_qdrant.benchmarks.mteb_search import Setting
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.benchmarks.systems import DenseSystem, System, truncated
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.stores.base import Datatype
from csr_qdrant.trainer import TrainConfig

DENSE = "dense"  # the revision of systems without an encoder


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A system that mteb is to score."""

    name: str
    make: Callable[[], System]  # gives it unbuilt
    settings: Mapping[str, Setting] = field(default_factory=dict)
    revision: str = DENSE  # fingerprint of its encoder
    sparse: bool = False
    trained_here: bool = False  # whether its encoder was trained on this task's corpus


class Planned(Protocol):
    """What is taken of a system of `csr bench`'s matrix."""

    @property
    def name(self) -> str:
        """What it is called in tables."""

    @property
    def family(self) -> str:
        """What it is one of: those of codes begin with CSR."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What tells it from others; under `encoder` the fingerprint, where there is one."""

    @property
    def make(self) -> Callable[[], System]:
        """Gives it unbuilt."""


def planned(plan: Planned, revision: str, *, trained_here: bool) -> Candidate:
    """Return a system of the matrix; `revision` names what it learned, if not an encoder."""
    settings = {name: value for name, value in plan.settings.items() if name != "encoder"}
    return Candidate(
        name=plan.name,
        make=plan.make,
        settings=settings,
        revision=plan.settings.get("encoder", revision),
        sparse=plan.family.startswith("CSR"),
        trained_here=trained_here,
    )


# Given the vectors of a corpus and a folder that outlives the run, names what is run on it.
Systems = Callable[[Matrix, Path], Sequence[Candidate]]


def dense(
    name: str,
    *,
    m: int = 0,
    ef: int = 128,
    quantisation: Quantisation | None = None,
    candidates: int = 0,
) -> Candidate:
    """Return dense vectors, exact (m = 0) or with a graph of `m` links, quantised or not."""

    def make() -> System:
        return DenseSystem(name=name, m=m, ef=ef, quantisation=quantisation, candidates=candidates)

    settings: dict[str, Setting] = {"m": m, "quantisation": quantisation, "candidates": candidates}
    return Candidate(name=name, make=make, settings=settings | ({"ef": ef} if m else {}))


def shortened(dims: int, *, candidates: int = 0) -> Candidate:
    """Return the vectors' first `dims` dimensions, searched exactly."""
    name = truncated(dims, candidates=candidates).name
    return Candidate(
        name=name,
        make=lambda: truncated(dims, candidates=candidates),
        settings={"dims": dims, "candidates": candidates},
    )


def codes(
    encoder: Encoder,
    *,
    k: int,
    query_k: int | None = None,
    candidates: int = 0,
    datatype: Datatype = "f32",
    trained_here: bool = False,
) -> Candidate:
    """Return the codes of `encoder`, `k` latents a document and `query_k` a query."""
    asked = query_k or k
    name = f"CSR k={k}" + (f", queries {asked}" if asked != k else "")
    name += f", {datatype}" if datatype != "f32" else ""
    name += f", rescored {candidates}" if candidates else ""
    widest = encoder.with_k(max(k, asked))

    def make() -> System:
        return CsrSystem(
            name=name,
            encode=widest.encode,
            k=k,
            query_k=asked,
            datatype=datatype,
            candidates=candidates,
        )

    return Candidate(
        name=name,
        make=make,
        settings={
            "k": k,
            "query_k": asked,
            "h": encoder.h,
            "datatype": datatype,
            "candidates": candidates,
        },
        revision=encoder.fingerprint,
        sparse=True,
        trained_here=trained_here,
    )


def saved_encoder(folder: Path, vectors: Matrix) -> Encoder:
    """Load an encoder for `vectors` (n, d); raises CsrError unless it encodes d dimensions."""
    encoder = Encoder.load(folder)
    if encoder.d != vectors.shape[1]:
        raise CsrError(
            f"{folder} encodes vectors of {encoder.d} dimensions, got {vectors.shape[1]}: give an "
            "encoder that was trained on vectors of this embedder"
        )
    return encoder


def trained_encoder(config: TrainConfig, vectors: Matrix, folder: Path) -> Encoder:
    """Train an encoder on a corpus, or load the one that an earlier run with `config` left.

    It lies below `folder`, as does the checkpoint from which a killed training goes on.
    """
    from csr_qdrant.trainer import fit

    said = hashlib.sha256(repr(config).encode()).hexdigest()[:8]
    place = folder / f"encoder-{said}"
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = folder / f"encoder-{said}.checkpoint"
        fit(vectors, config, checkpoint=checkpoint).save(place)
        checkpoint.unlink(missing_ok=True)
    return saved_encoder(place, vectors)


def standard_systems(
    encoder: Path | None,
    config: TrainConfig | None = None,
    *,
    k: Sequence[int] | None = None,
    candidates: int = 100,
) -> Systems:
    """Return the usual comparison: dense exact and HNSW, a half and an eighth of the dimensions,
    binary, and codes, the latter three also rescored.

    Codes are those of the encoder in the folder `encoder`, or else of one trained on each corpus
    as `config` says; without `k`, of as many latents as `config` trains.
    """
    config = config or TrainConfig(k=(8, 16, 32) if k is None else tuple(k))
    sizes = config.k if k is None else k
    if not sizes or candidates < 1:
        raise ConfigError(f"codes need some k, and candidates above 0, got {k} and {candidates}")

    def systems(vectors: Matrix, folder: Path) -> list[Candidate]:
        d = vectors.shape[1]
        coder = (
            saved_encoder(encoder, vectors) if encoder else trained_encoder(config, vectors, folder)
        )
        return [
            dense("dense float32, exact"),
            dense("dense float32, HNSW", m=16),
            *(shortened(dims, candidates=c) for dims in (d // 2, d // 8) for c in (0, candidates)),
            *(
                dense("binary" + (", rescored" if c else ""), quantisation="binary", candidates=c)
                for c in (0, candidates)
            ),
            *(
                codes(coder, k=each, candidates=c, trained_here=encoder is None)
                for each in sizes
                for c in (0, candidates)
            ),
        ]

    return systems
