"""The systems of `csr bench`'s matrix as candidates on a corpus of mteb."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from csr_qdrant.benchmarks.matrix.config import BenchConfig
from csr_qdrant.benchmarks.matrix.models import Models, Watch
from csr_qdrant.benchmarks.matrix.plans import FIRST, Plan, plans
from csr_qdrant.benchmarks.matrix.task import BenchTask
from csr_qdrant.benchmarks.mteb_systems import DENSE, Candidate, Systems
from csr_qdrant.benchmarks.neighbours import Matrix


def unwatched(name: str) -> AbstractContextManager[Any]:
    """Give the listeners of a training that nobody watches."""
    from csr_qdrant.trainer import Listeners

    return nullcontext(Listeners())


def matrix_systems(
    config: BenchConfig,
    *,
    embedder: str | None = None,
    watch: Watch = unwatched,
    tell: Callable[[str], None] = lambda step: None,
) -> Systems:
    """Return the systems that `csr bench` would measure on a corpus with the same settings.

    What they learn is learned from each corpus alone, without its judgements, and kept.

    Args:
        config: families of systems and their settings; those of timing mean nothing here.
        embedder: its URI, which trained encoders remember.
        watch: gives the listeners of a training, by its name.
        tell: told what begins.
    """

    def systems(vectors: Matrix, folder: Path) -> Sequence[Candidate]:
        models = Models(_corpus(vectors, embedder), config, folder, watch, tell)
        return [
            planned(plan, given_encoders=bool(config.encoder))
            for plan in plans(models, vectors.shape[1])
        ]

    return systems


def planned(plan: Plan, *, given_encoders: bool) -> Candidate:
    """Return a system of the matrix; `given_encoders` were not trained on this corpus."""
    settings = {name: value for name, value in plan.settings.items() if name != "encoder"}
    encoder, model = plan.settings.get("encoder"), plan.settings.get("model")
    learned = model if model != FIRST.fingerprint else None
    return Candidate(
        name=plan.name,
        make=plan.make,
        settings=settings,
        revision=str(encoder or learned or DENSE),
        sparse=encoder is not None,
        trained_here=learned is not None or (encoder is not None and not given_encoders),
    )


def _corpus(vectors: Matrix, embedder: str | None) -> BenchTask:
    """Return a task of a corpus alone: mteb has the queries, and judges."""
    return BenchTask(
        name="corpus",
        kind="retrieval",
        vectors=vectors,
        queries=vectors[:1],
        measure=None,
        judge=lambda found: {},
        embedder=embedder,
    )
