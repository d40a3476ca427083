"""`fit`: dense vectors in, a trained encoder out."""

import math
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from csr_qdrant.encoder import Encoder
from csr_qdrant.encoding_torch import checked_device
from csr_qdrant.errors import CsrError
from csr_qdrant.trainer.checkpoint import read_checkpoint, run_identity, write_checkpoint
from csr_qdrant.trainer.config import TrainConfig
from csr_qdrant.trainer.data import Array, check_vectors, prefetched
from csr_qdrant.trainer.objective import TorchBatch, objective
from csr_qdrant.trainer.reports import Listeners, StepReport
from csr_qdrant.trainer.run import Run
from csr_qdrant.trainer.supervision import Labels, Pairs

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
        CsrError: unusable vectors or supervision, a foreign checkpoint, a loss that is not finite.
    """
    config = config or TrainConfig()
    check_vectors(vectors)
    if pairs is not None:
        pairs.check(vectors)
    given = None if labels is None else Labels.of(labels, len(vectors))
    run = Run.prepare(vectors, config, given, pairs, checked_device(device))
    path = None if checkpoint is None else Path(checkpoint)
    identity = run_identity(config, _arrays(vectors, given, pairs))
    if path is not None:
        saved = read_checkpoint(path, identity, run.device)
        if saved is not None:
            run.restore(saved)
    _train(run, listeners or Listeners(), path, identity)
    return run.encoder(info or {})


def _arrays(vectors: Array, labels: Labels | None, pairs: Pairs | None) -> dict[str, Any]:
    supervision: dict[str, Any] = {} if labels is None else {"labels": labels.of_row}
    if pairs is not None:
        supervision |= {"queries": pairs.queries, "pairs": pairs.query_rows}
        supervision |= {"documents": pairs.document_rows, "scores": pairs.scores}
    return {"vectors": vectors, **supervision}


def _train(run: Run, listeners: Listeners, checkpoint: Path | None, identity: str) -> None:
    saved_at = last = time.perf_counter()
    with closing(prefetched(run.sampler.at, run.step)) as batches:
        while run.progress < 1:
            report = _one_step(run, run.on_device(next(batches)))
            if report is not None:
                listeners.on_step(report)
            now = time.perf_counter()
            run.elapsed_s, last = run.elapsed_s + now - last, now
            if run.step % run.config.validate_every == 0 or run.progress >= 1:
                _validate(run, listeners)
                last = time.perf_counter()
            if checkpoint is not None and now - saved_at >= run.config.checkpoint_seconds:
                write_checkpoint(checkpoint, identity, run.checkpoint())
                saved_at = last = time.perf_counter()
    if checkpoint is not None:
        write_checkpoint(checkpoint, identity, run.checkpoint())


def _one_step(run: Run, batch: TorchBatch) -> StepReport | None:
    config, lr = run.config, learning_rate(run.config, run.progress)
    for group in run.optimiser.param_groups:
        group["lr"] = lr
    dead = (run.since_active >= config.dead_after).nonzero().squeeze(1)
    outcome = objective(run.model, batch, dead, config, step=run.step, progress=run.progress)
    run.optimiser.zero_grad()
    outcome.loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), config.clip)
    reported = run.step % REPORT_EVERY == 0
    loss = float(outcome.loss.detach()) if reported else 0.0
    if not math.isfinite(loss):
        raise CsrError(
            f"the loss is {loss} at step {run.step}: lower --lr "
            f"(now {config.lr}); the last checkpoint is kept"
        )
    run.optimiser.step()
    run.since_active += 1
    run.since_active[outcome.active.latents[outcome.active.values > 0]] = 0
    run.step += 1
    if not reported:
        return None
    terms = {name: float(term) for name, term in outcome.terms.items()}
    return StepReport(run.step, run.progress, loss, terms, len(dead), lr)


def learning_rate(config: TrainConfig, progress: float) -> float:
    """Return the rate of this moment: a linear rise, then a cosine down to nothing."""
    if progress < config.warmup:
        return config.lr * max(progress / config.warmup, 0.01)
    over = (progress - config.warmup) / (1 - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * over))


def _validate(run: Run, listeners: Listeners) -> None:
    if run.validator is None:
        return
    measured = run.validator.measure(run.model, tuple(sorted(run.config.k)), run.step)
    run.validations.append(measured.to_json())
    listeners.on_validation(measured)
