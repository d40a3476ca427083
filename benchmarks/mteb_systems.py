"""What is run on tasks of mteb: systems, each with what tells its scores from those of others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from csr_qdrant.benchmarks.csr_system import CsrSystem
from csr_qdrant.benchmarks.engine import Quantisation
from csr_qdrant.benchmarks.mteb_search import Setting
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.benchmarks.systems import DenseSystem, System, truncated
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import CsrError
from csr_qdrant.stores.base import Datatype

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
