"""`fit_linear`: dense vectors in, a linear adapter out, to compare sparse codes with.

At each step the first m outputs, for each m of a list, are taken as vectors of their own, and the
loss is the mean over m of one term on their cosines (Matryoshka representation learning,
arXiv 2205.13147, equation 1, with equal weights). The term is the one that codes learn from the
same supervision: pairs, labels, or the cosines of the (centred) vectors
themselves.
"""

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from csr_qdrant.encoding_torch import checked_device
from csr_qdrant.errors import CsrError
from csr_qdrant.linear import LinearAdapter
from csr_qdrant.trainer.batch import TorchBatch, on_device
from csr_qdrant.trainer.data import (
    SAMPLED_ROWS,
    Array,
    Batch,
    check_vectors,
    gather,
    prefetched,
    spread,
    typical_norm,
)
from csr_qdrant.trainer.linear_config import LinearConfig
from csr_qdrant.trainer.linear_objective import Objective
from csr_qdrant.trainer.linear_sampling import Batches, MatchSampler, plan_batches
from csr_qdrant.trainer.linear_validation import AtDims, LinearValidator
from csr_qdrant.trainer.memory import enough_memory
from csr_qdrant.trainer.schedule import falling, set_rate
from csr_qdrant.trainer.supervision import Pairs, checked_supervision

REPORT_EVERY = 10  # steps; reading a loss waits for the device


class LinearReport(NamedTuple):
    """What a run tells every ten steps."""

    step: int  # steps done
    progress: float  # share of the run that is over, 0..1
    loss: float


def _ignore(_: LinearReport) -> None:
    pass


def fit_linear(
    vectors: Array,
    config: LinearConfig | None = None,
    *,
    labels: Any = None,
    pairs: Pairs | None = None,
    device: str | None = None,
    on_step: Callable[[LinearReport], None] = _ignore,
    info: dict[str, Any] | None = None,
) -> LinearAdapter:
    """Train a linear adapter on dense vectors.

    Args:
        vectors: (n, d) numbers; a memory map may be larger than RAM.
        config: the dials; None: the defaults.
        labels: one label a row (integers or strings).
        pairs: queries and the rows that answer them.
        device: torch device; None: the best there is.
        on_step: called with reports.
        info: more keys for the adapter's `info`.

    Returns:
        An adapter whose `info` holds the settings and the measures before and after training.

    Raises:
        CsrError: unusable vectors or supervision, a loss that is not finite, too little memory.
        ConfigError: settings that do not fit the vectors, an unknown device.
    """
    started = time.perf_counter()
    config, vectors = config or LinearConfig(), np.asarray(vectors)
    check_vectors(vectors)
    given = checked_supervision(vectors, labels, pairs)
    supervised = given is not None or pairs is not None
    objective = Objective(config.sizes(vectors.shape[1]), config.temperature_for(supervised))
    on = checked_device(device)
    batches = plan_batches(
        vectors,
        given,
        pairs,
        batch_size=config.batch_size,
        held_out=config.held_out,
        seed=config.seed,
    )
    with enough_memory(lambda: f"batches of {config.batch_size}: lower batch_size"):
        scale = typical_norm(vectors)
        validator = LinearValidator.of(vectors, scale, batches.split, given, config.seed, on)
        run = Run.prepare(vectors, config, objective, batches, scale, on)
        validations = [run.measured(validator, batches.held_out_pairs)]
        _train(run, batches, on_step, started)
        validations.append(run.measured(validator, batches.held_out_pairs))
    made = {
        "supervision": "labels" if labels is not None else "pairs" if pairs is not None else None,
        "training": asdict(config),
        "steps": run.step,
        "seconds": round(time.perf_counter() - started, 1),
        "validations": [each for each in validations if each is not None],
    }
    return run.adapter({**(info or {}), **made})


@dataclass
class Run:
    """The state of one training."""

    config: LinearConfig
    objective: Objective
    scale: float  # rows are divided by it, which changes no cosine
    mean: Tensor | None  # (d,)
    matrix: torch.nn.Parameter  # (d, d)
    optimiser: torch.optim.Adam
    step: int = 0

    @classmethod
    def prepare(
        cls,
        vectors: Array,
        config: LinearConfig,
        objective: Objective,
        batches: Batches,
        scale: float,
        device: torch.device,
    ) -> "Run":
        """Return a run before its first step.

        The plain adapter starts at the identity. Nested sizes take centred vectors, and start at
        the identity or at the principal axes, whichever has the lower loss on the first batch at
        more of the sizes (sums would let the smallest decide): the one is right for vectors that
        are Matryoshka ones already, the other for most.
        """
        d = vectors.shape[1]
        unchanged = np.eye(d, dtype=np.float32)
        if config.method == "adapter":
            return cls._of(config, objective, scale, None, unchanged, device)
        mean, axes = principal_axes(vectors, scale)
        made = [
            cls._of(config, objective, scale, mean, start, device) for start in (unchanged, axes)
        ]
        first = made[0].on_device(batches.training.at(0))
        losses = (objective.losses(run.matrix, first) for run in made)
        at = zip(objective.sizes, *losses, strict=True)
        turned_wins = [turned < kept for size, kept, turned in at if size < d]
        return made[1] if 2 * sum(turned_wins) > len(turned_wins) else made[0]

    @classmethod
    def _of(
        cls,
        config: LinearConfig,
        objective: Objective,
        scale: float,
        mean: Any,
        start: Any,
        device: torch.device,
    ) -> "Run":
        matrix = torch.nn.Parameter(torch.tensor(start, device=device))
        centre = None if mean is None else torch.tensor(mean, device=device)
        optimiser = torch.optim.Adam([matrix], lr=config.lr)
        return cls(config, objective, scale, centre, matrix, optimiser)

    def prepared(self, x: Tensor) -> Tensor:
        """Return rows (n, d) as the objective takes them: centred if there is a mean, scaled."""
        return (x if self.mean is None else x - self.mean) / self.scale

    def on_device(self, batch: Batch) -> TorchBatch:
        """Return `batch` as the objective takes it."""

        def prepared(rows: Any) -> Tensor:
            return self.prepared(torch.from_numpy(rows).to(self.matrix.device))

        return on_device(batch, self.matrix.device, prepared)

    def update(self, batch: TorchBatch, progress: float) -> Tensor:
        """Take one step; returns the loss before it, ()."""
        set_rate(self.optimiser, falling(self.config.lr, progress))
        self.optimiser.zero_grad()
        blocks, terms = zip(*self.objective.blocks(self.matrix, batch), strict=True)
        share = 1 / len(terms)
        torch.autograd.backward(blocks, [share * term.by_similarity for term in terms])
        self.optimiser.step()
        self.step += 1
        return torch.stack([term.loss for term in terms]).mean()

    @torch.no_grad()
    def measured(
        self, validator: LinearValidator | None, pairs: MatchSampler | None
    ) -> dict[str, Any] | None:
        """Return what is measured on held-out rows and pairs, as plain values."""
        if validator is None and pairs is None:
            return None
        sizes = self.objective.sizes
        losses: list[float | None] = [None] * len(sizes)
        if pairs is not None:
            batches = (self.on_device(pairs.at(step)) for step in range(pairs.steps_per_epoch))
            found = [self.objective.losses(self.matrix, batch) for batch in batches]
            losses = np.mean(found, axis=0).tolist()
        near: list[tuple[float | None, float | None]] = [(None, None)] * len(sizes)
        if validator is not None:
            rows = (validator.queries, validator.documents)
            asked, there = (self.prepared(x * self.scale) @ self.matrix.T for x in rows)
            cut = ((asked[:, :size], there[:, :size]) for size in sizes)
            near = [(validator.recall(*both), validator.accuracy(*both)) for both in cut]
        each = zip(sizes, near, losses, strict=True)
        at = [AtDims(size, *both, loss)._asdict() for size, both, loss in each]
        return {"step": self.step, "at": at}

    def adapter(self, info: dict[str, Any]) -> LinearAdapter:
        """Return what was learned."""
        return LinearAdapter(
            matrix=self.matrix.detach().cpu().numpy(),
            dims=self.objective.sizes,
            mean=None if self.mean is None else self.mean.cpu().numpy(),
            info=info,
        )


def _train(
    run: Run, batches: Batches, on_step: Callable[[LinearReport], None], started: float
) -> None:
    config = run.config

    def progress() -> float:
        if config.minutes is not None:
            return (time.perf_counter() - started) / (60 * config.minutes)
        return run.step / config.steps

    if progress() >= 1:
        raise CsrError(f"preparing took all of the {config.minutes} minutes: give more of them")
    with closing(prefetched(batches.training.at, 0)) as coming:
        while (now := progress()) < 1:
            loss = run.update(run.on_device(next(coming)), now)
            if run.step % REPORT_EVERY == 1:
                if not math.isfinite(float(loss)):
                    raise _diverged(run)
                on_step(LinearReport(run.step, min(1.0, progress()), float(loss)))
    if not bool(run.matrix.isfinite().all()):
        raise _diverged(run)


def _diverged(run: Run) -> CsrError:
    temperature = run.objective.temperature
    return CsrError(
        f"training diverged: the loss is not finite at step {run.step}; lower lr (now "
        f"{run.config.lr:.2g}) or raise temperature (now {temperature:.2g})"
    )


def principal_axes(vectors: Array, scale: float = 1.0) -> tuple[Any, Any]:
    """Return the mean (d,) and the principal axes (d, d) of the rows, the strongest axis first.

    Beyond 50,000 rows they are those of 50,000, evenly spread. Rows are divided by `scale` within,
    so that squares stay in range. Raises CsrError if all rows are equal.
    """
    rows = spread(len(vectors), SAMPLED_ROWS)
    parts = np.array_split(rows, -(-len(rows) // 4096))
    total = sum(gather(vectors, part).sum(0, dtype=np.float64) for part in parts)
    mean = (total / len(rows)).astype(np.float32)
    squares = np.zeros((len(mean), len(mean)))
    for part in parts:
        centred = (gather(vectors, part) - mean) / np.float32(scale)
        squares += centred.T @ centred
    if np.trace(squares) <= 1e-10 * len(rows) * (np.linalg.norm(mean) / scale) ** 2:
        raise CsrError("all training vectors are equal: there is nothing to learn from them")
    _, axes = np.linalg.eigh(squares)
    return mean, np.ascontiguousarray(axes[:, ::-1].T, np.float32)
