"""`fit`: dense vectors in, a trained encoder out."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from csr_qdrant.encoder import Encoder
from csr_qdrant.encoding_torch import checked_device
from csr_qdrant.errors import CsrError
from csr_qdrant.trainer.adapter import learn_adapter
from csr_qdrant.trainer.checkpoint import (
    Checkpoint,
    read_checkpoint,
    run_identity,
    write_checkpoint,
)
from csr_qdrant.trainer.config import TrainConfig
from csr_qdrant.trainer.data import (
    Array,
    Batch,
    Split,
    check_vectors,
    gather,
    prefetched,
    typical_norm,
)
from csr_qdrant.trainer.model import Autoencoder
from csr_qdrant.trainer.objective import TorchBatch, objective
from csr_qdrant.trainer.supervision import Labels, Pairs, Sampler
from csr_qdrant.trainer.validation import Validation, Validator

REPORT_EVERY = 10  # steps; reading a loss waits for the device
SAMPLE = 20_000  # documents that validation searches


class StepReport(NamedTuple):
    """What a run tells every ten steps."""

    step: int  # steps done
    progress: float  # share of the run that is over, 0..1
    loss: float
    terms: dict[str, float]  # unweighted
    dead: int  # latents not active for `dead_after` steps
    lr: float


def _ignore(_: Any) -> None:
    pass


@dataclass(frozen=True)
class Listeners:
    """What to call as a run goes on."""

    on_step: Callable[[StepReport], None] = _ignore
    on_validation: Callable[[Validation], None] = _ignore


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
    run = _Run.prepare(vectors, config, given, pairs, checked_device(device))
    path = None if checkpoint is None else Path(checkpoint)
    identity = run_identity(config, _arrays(vectors, given, pairs))
    if path is not None:
        run.restore(read_checkpoint(path, identity, run.device))
    run.train(listeners or Listeners(), path, identity)
    return run.encoder(info or {})


def _arrays(vectors: Array, labels: Labels | None, pairs: Pairs | None) -> dict[str, Any]:
    supervision = {} if labels is None else {"labels": labels.of_row}
    if pairs is not None:
        supervision |= {"queries": pairs.queries, "pairs": pairs.query_rows}
        supervision |= {"documents": pairs.document_rows, "scores": pairs.scores}
    return {"vectors": vectors, **supervision}


@dataclass
class _Run:
    """The changing state of one run."""

    config: TrainConfig
    device: torch.device
    sampler: Sampler
    scale: float  # vectors are divided by it
    adapter: Tensor | None  # (d, d)
    validator: Validator | None
    model: Autoencoder
    optimiser: torch.optim.AdamW
    since_active: Tensor  # (h,) steps since each latent was active
    step: int = 0
    elapsed_s: float = 0.0
    validations: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def prepare(
        cls,
        vectors: Array,
        config: TrainConfig,
        labels: Labels | None,
        pairs: Pairs | None,
        device: torch.device,
    ) -> "_Run":
        d = vectors.shape[1]
        h = config.hidden_size(d)
        split = Split.random(len(vectors), config.held_out, config.seed)
        if not split.training_rows:
            raise CsrError("training needs at least one vector, got none")
        adapter = None
        if pairs is not None and config.adapter_steps:
            adapter = learn_adapter(vectors, pairs, config, device)
        scale = typical_norm(vectors)
        model = Autoencoder(d, h, torch.Generator().manual_seed(config.seed)).to(device)
        optimiser = torch.optim.AdamW(
            model.parameters(),
            lr=config.lr,
            weight_decay=config.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        sampler = Sampler.of(vectors, split, labels, pairs, config.batch_size, config.seed)
        since = torch.zeros(h, dtype=torch.int64, device=device)
        run = cls(config, device, sampler, scale, adapter, None, model, optimiser, since)
        run.validator = run._validator(vectors, split)
        return run

    def _validator(self, vectors: Array, split: Split) -> Validator | None:
        if not len(split.held_out):
            return None
        count = min(split.training_rows, SAMPLE)
        positions = (
            np.random.default_rng((self.config.seed, 5)).choice(
                split.training_rows, count, replace=False
            )
            if split.training_rows <= 1 << 25
            else np.unique(
                np.random.default_rng((self.config.seed, 5)).integers(
                    split.training_rows, size=count
                )
            )
        )
        documents = gather(vectors, np.sort(split.training(positions)))
        queries = gather(vectors, split.held_out)
        return Validator.of(self._prepared(queries), self._prepared(documents))

    def _prepared(self, rows: Any) -> Tensor:
        x = torch.from_numpy(rows).to(self.device) / self.scale
        return x if self.adapter is None else x @ self.adapter.T

    def _on_device(self, batch: Batch) -> TorchBatch:
        def moved(array: Any) -> Tensor | None:
            return None if array is None else torch.from_numpy(array).to(self.device)

        return TorchBatch(
            self._prepared(batch.x),
            moved(batch.labels),
            batch.pairs,
            moved(batch.known),
            moved(batch.weights),
        )

    # --- training -------------------------------------------------------------------------

    @property
    def progress(self) -> float:
        if self.config.minutes is not None:
            return min(1.0, self.elapsed_s / (60 * self.config.minutes))
        return self.step / self.config.steps

    def train(self, listeners: Listeners, checkpoint: Path | None, identity: str) -> None:
        saved_at = last = time.perf_counter()
        batches = prefetched(self.sampler.at, self.step)
        for batch in batches:
            if self.progress >= 1:
                break
            report = self._one_step(self._on_device(batch))
            if report is not None:
                listeners.on_step(report)
            now = time.perf_counter()
            self.elapsed_s, last = self.elapsed_s + now - last, now
            if self.step % self.config.validate_every == 0 or self.progress >= 1:
                self._validate(listeners)
                last = time.perf_counter()
            if checkpoint is not None and now - saved_at >= self.config.checkpoint_seconds:
                self._save(checkpoint, identity)
                saved_at = last = time.perf_counter()
        batches.close()  # type: ignore[attr-defined]
        if checkpoint is not None:
            self._save(checkpoint, identity)

    def _one_step(self, batch: TorchBatch) -> StepReport | None:
        config, lr = self.config, self._learning_rate()
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        dead = (self.since_active >= config.dead_after).nonzero().squeeze(1)
        outcome = objective(self.model, batch, dead, config, step=self.step, progress=self.progress)
        self.optimiser.zero_grad()
        outcome.loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        reported = self.step % REPORT_EVERY == 0
        loss = float(outcome.loss.detach()) if reported else 0.0
        if not math.isfinite(loss):
            raise CsrError(
                f"the loss is {loss} at step {self.step}: lower --lr "
                f"(now {config.lr}); the last checkpoint is kept"
            )
        self.optimiser.step()
        self.since_active += 1
        self.since_active[outcome.active.latents[outcome.active.values > 0]] = 0
        self.step += 1
        if not reported:
            return None
        terms = {name: float(term) for name, term in outcome.terms.items()}
        return StepReport(self.step, self.progress, loss, terms, len(dead), lr)

    def _learning_rate(self) -> float:
        """Rise linearly, then fall along a cosine to nothing."""
        p, warmup = self.progress, self.config.warmup
        if p < warmup:
            return self.config.lr * max(p / warmup, 0.01)
        return self.config.lr * 0.5 * (1 + math.cos(math.pi * (p - warmup) / (1 - warmup)))

    def _validate(self, listeners: Listeners) -> None:
        if self.validator is None:
            return
        measured = self.validator.measure(self.model, tuple(sorted(self.config.k)), self.step)
        self.validations.append(measured.to_json())
        listeners.on_validation(measured)

    # --- keeping --------------------------------------------------------------------------

    def _save(self, path: Path, identity: str) -> None:
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{key}": value for key, value in state.items()}
        tensors["since_active"] = self.since_active
        checkpoint = Checkpoint(tensors, self.step, self.elapsed_s, self.validations)
        write_checkpoint(path, identity, checkpoint)

    def restore(self, checkpoint: Checkpoint | None) -> None:
        """Take up the run where `checkpoint` left it."""
        if checkpoint is None:
            return
        tensors = checkpoint.tensors
        self.model.load_state_dict({n: tensors[f"model.{n}"] for n in self.model.state_dict()})
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimiser."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = tensor
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.since_active = tensors["since_active"]
        self.step, self.elapsed_s = checkpoint.step, checkpoint.elapsed_s
        self.validations = list(checkpoint.validations)

    def encoder(self, info: dict[str, Any]) -> Encoder:
        """Return the trained encoder, of unscaled vectors and with the adapter folded in."""
        encoder = self.model.to_encoder(
            self.scale,
            k=max(self.config.k),
            k_aux=self.config.k_aux,
            dead_threshold=self.config.dead_after,
            steps_since_active=self.since_active.cpu().numpy(),
            info={
                **info,
                "training": asdict(self.config),
                "steps": self.step,
                "seconds": round(self.elapsed_s, 1),
                "adapter": self.adapter is not None,
                "validations": self.validations,
            },
        )
        return encoder if self.adapter is None else folded(encoder, self.adapter)


def folded(encoder: Encoder, adapter: Tensor) -> Encoder:
    """Return the encoder of x that computes what `encoder` computes of A x.

    W (A x − b_pre) + b_lat = (W A) x + (b_lat − W b_pre). Its decoder reconstructs nothing: the
    adapter is not orthogonal.
    """
    from dataclasses import replace

    weight = encoder.weight @ adapter.cpu().numpy()
    return replace(
        encoder,
        weight=np.ascontiguousarray(weight, np.float32),
        latent_bias=encoder.offset,
        pre_bias=np.zeros_like(encoder.pre_bias),
    )
