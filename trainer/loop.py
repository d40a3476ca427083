"""`fit`: dense vectors in, a trained encoder out."""

import math
import time
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from csr_qdrant.encoder import Encoder
from csr_qdrant.encoding_torch import checked_device
from csr_qdrant.trainer.batch import TorchBatch
from csr_qdrant.trainer.checkpoint import (
    Checkpoint,
    read_checkpoint,
    run_identity,
    write_checkpoint,
)
from csr_qdrant.trainer.config import TrainConfig
from csr_qdrant.trainer.data import Array, check_vectors, prefetched
from csr_qdrant.trainer.group import current_group
from csr_qdrant.trainer.memory import enough_memory
from csr_qdrant.trainer.reports import Listeners, StepReport
from csr_qdrant.trainer.revival import idle_steps, start_anew
from csr_qdrant.trainer.run import Run, diverged
from csr_qdrant.trainer.schedule import falling, set_rate
from csr_qdrant.trainer.step import Outcome
from csr_qdrant.trainer.supervision import Labels, Pairs, checked_supervision

REPORT_EVERY = 10  # steps; reading a loss waits for the device


def fit(
    vectors: Array,
    config: TrainConfig | None = None,
    *,
    labels: Any = None,
    pairs: Pairs | None = None,
    device: str | None = None,
    checkpoint: str | Path | None = None,
    listeners: Listeners | None = None,
    info: dict[str, Any] | None = None,
) -> Encoder:
    """Train an encoder on dense vectors.

    In processes that `torchrun` started and that joined `torch.distributed`'s group, all call this
    with the same arguments: they share each batch, and each returns the same encoder. The first
    one reports, validates and keeps checkpoints.

    Args:
        vectors: (n, d) numbers; a memory map may be larger than RAM.
        config: the dials; None: the defaults.
        labels: one label a row (integers or strings), for the supervised term.
        pairs: queries and the rows that answer them, for an adapter and the supervised term.
        device: torch device; None: the best there is.
        checkpoint: file to write now and then and to resume from; it is left in place at the end.
        listeners: called with reports.
        info: more keys for the encoder's `csr.json` (its embedder, say).

    Returns:
        An encoder whose k is the largest of `config.k`; its `info` holds settings and measures.

    Raises:
        CsrError: unusable vectors or supervision, a foreign checkpoint, a loss that is not finite,
            too little memory.
        ConfigError: settings that do not fit the vectors, an unknown device.
    """
    started = time.perf_counter()
    config, vectors = config or TrainConfig(), np.asarray(vectors)
    check_vectors(vectors)
    given = checked_supervision(vectors, labels, pairs)
    keeper = Keeper(
        None if checkpoint is None else Path(checkpoint),
        run_identity(config, _arrays(vectors, given, pairs)),
        config.checkpoint_seconds,
    )
    on, group = checked_device(device), current_group()
    if group.rank > 0:
        listeners, keeper = None, replace(keeper, path=None)

    def advice() -> str:
        classes = 0 if given is None else given.classes
        h = config.hidden_size(vectors.shape[1], len(vectors), classes)
        rows = config.rows_a_step(pairs=pairs is not None)
        return f"h={h} latents and batches of {rows} rows: lower h or batch_size"

    # Triton's kernels go to the current device, whichever their tensors are on.
    current = torch.cuda.device(on) if on.type == "cuda" else nullcontext()
    with enough_memory(advice), current:
        saved = group.first(keeper.read(torch.device("cpu")))
        run = Run.prepare(vectors, config, given, pairs, on, group, saved)
        with run.ops.leading():
            _train(run, listeners or Listeners(), keeper, started)
    return run.encoder(info or {})


def _arrays(vectors: Array, labels: Labels | None, pairs: Pairs | None) -> dict[str, Any]:
    supervision: dict[str, Any] = {} if labels is None else {"labels": labels.of_row}
    if pairs is not None:
        supervision |= {"queries": pairs.queries, "pairs": pairs.query_rows}
        supervision |= {"documents": pairs.document_rows, "scores": pairs.scores}
        supervision |= {"negatives": pairs.negatives}
    return {"vectors": vectors, **supervision}


@dataclass
class Keeper:
    """Reads and writes the checkpoint of a run, if one is asked for."""

    path: Path | None
    identity: str
    seconds: float  # between checkpoints
    saved_at: float = field(default_factory=time.perf_counter)

    def read(self, device: torch.device) -> Checkpoint | None:
        """Return the checkpoint to go on from, or None."""
        return None if self.path is None else read_checkpoint(self.path, self.identity, device)

    def save(self, run: Run, *, now: bool = True) -> None:
        """Write a checkpoint; without `now`, only if it is time for one."""
        if self.path is None or not (now or time.perf_counter() - self.saved_at >= self.seconds):
            return
        run.check_finite()
        write_checkpoint(self.path, self.identity, run.checkpoint())
        self.saved_at = time.perf_counter()


def _train(run: Run, listeners: Listeners, keeper: Keeper, started: float) -> None:
    began = started - run.elapsed_s
    run.elapsed_s = run.group.first(time.perf_counter() - began)
    if not run.step:
        keeper.save(run)  # an unwritable path shows now, and the adapter is not learned twice
        run.check_budget()
    try:
        with closing(prefetched(run.sampler.at, run.step)) as batches:
            while not _validated(run, listeners):
                report = _one_step(run, run.on_device(next(batches)))
                run.elapsed_s = run.group.first(time.perf_counter() - began)
                if report is not None:
                    listeners.on_step(report)
                keeper.save(run, now=False)
    except KeyboardInterrupt:
        if run.whole:
            keeper.save(run)
        raise
    run.check_finite()
    keeper.save(run)


def _one_step(run: Run, batch: TorchBatch) -> StepReport | None:
    config, lr = run.config, learning_rate(run.config, run.lr, run.progress)
    set_rate(run.optimiser, lr)
    dead = (run.since_active >= run.dead_after).nonzero().squeeze(1)
    outcome = run.compute(batch, dead, step=run.step, progress=run.progress)
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), config.clip)
    reported = run.step % REPORT_EVERY == 0
    loss = float(outcome.loss) if reported else 0.0
    if not math.isfinite(loss):
        raise diverged(run.lr, run.step)
    _update(run, outcome, batch)
    if not reported:
        return None
    terms = {name: float(term) for name, term in outcome.terms.items()}
    return StepReport(run.step, run.progress, loss, terms, len(dead), lr)


def _revive(run: Run, batch: TorchBatch) -> None:
    """Now and then let latents that are long dead start anew, each at a row of this batch."""
    if not run.config.revive or run.step % run.dead_after:
        return
    lost = run.since_active >= idle_steps(run.config, len(run.since_active))
    latents = lost.nonzero().squeeze(1)[: len(batch.x)]
    if len(latents):
        rng = np.random.default_rng((run.config.seed, 10, run.step))
        rows = torch.from_numpy(rng.permutation(len(batch.x))[: len(latents)]).to(run.device)
        k = max(run.config.k)
        start_anew(run.model, run.optimiser, latents, batch.x[rows], batch.x, k)
        run.since_active[latents] = 0


def _update(run: Run, outcome: Outcome, batch: TorchBatch) -> None:
    run.whole = False
    run.optimiser.step()
    run.since_active += 1
    run.since_active[outcome.used] = 0
    _revive(run, batch)
    run.step += 1
    run.whole = True


def learning_rate(config: TrainConfig, peak: float, progress: float) -> float:
    """Return the rate of this moment: a linear rise, then a cosine down to nothing, or constant."""
    if progress < config.warmup:
        return peak * max(progress / config.warmup, 0.01)
    if config.schedule == "constant":
        return peak
    return falling(peak, (progress - config.warmup) / (1 - config.warmup))


def _validated(run: Run, listeners: Listeners) -> bool:
    """Validate if it is time to, and tell whether the run is over.

    What a checkpoint of this step already holds is not measured again.
    """
    over = run.progress >= 1
    done = bool(run.validations) and run.validations[-1]["step"] == run.step
    due = over or (run.step > 0 and run.step % run.config.validate_every == 0)
    if run.validator is not None and due and not done and run.group.rank == 0:
        measured = run.validator.measure(
            run.model, run.ops, tuple(sorted(set(run.config.k))), run.step
        )
        run.validations.append(measured.to_json())
        listeners.on_validation(measured)
    return over
