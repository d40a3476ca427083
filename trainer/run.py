"""The state of one training run: how it is prepared, kept, taken up again and finished."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import CsrError
from csr_qdrant.trainer.adapter import learn_adapter
from csr_qdrant.trainer.batch import TorchBatch, on_device
from csr_qdrant.trainer.checkpoint import Checkpoint
from csr_qdrant.trainer.config import SPREAD, TrainConfig
from csr_qdrant.trainer.data import Array, Batch, Split, gather, spread, typical_norm
from csr_qdrant.trainer.folding import folded
from csr_qdrant.trainer.group import Group
from csr_qdrant.trainer.model import Autoencoder
from csr_qdrant.trainer.ops import Ops, ops_for, rival_ops
from csr_qdrant.trainer.revival import start_at_rows
from csr_qdrant.trainer.sampling import Sampler, sampler
from csr_qdrant.trainer.step import Step
from csr_qdrant.trainer.supervision import Labels, Pairs
from csr_qdrant.trainer.trial import faster
from csr_qdrant.trainer.validation import Validator

SAMPLE = 20_000  # documents that validation searches


@dataclass
class Run:
    """Everything that changes while a run goes on, and what it was made from."""

    config: TrainConfig
    device: torch.device
    sampler: Sampler
    scale: float  # vectors are divided by it
    adapter: Tensor | None  # (d, d)
    validator: Validator | None
    model: Autoencoder
    ops: Ops
    group: Group
    steps: int  # planned
    optimiser: torch.optim.AdamW
    since_active: Tensor  # (h,) steps since each latent was active
    step: int = 0
    elapsed_s: float = 0.0
    validations: list[dict[str, Any]] = field(default_factory=list)
    whole: bool = True  # False while a step changes the state
    compute: Step = field(init=False)  # made once all settings are known

    @classmethod
    def prepare(
        cls,
        vectors: Array,
        config: TrainConfig,
        labels: Labels | None,
        pairs: Pairs | None,
        device: torch.device,
        group: Group,
        saved: Checkpoint | None = None,
    ) -> "Run":
        """Return a run before its first step, or where `saved` left it.

        What takes time to find, the adapter and the scale, is taken from `saved` too.
        """
        rows, idle = (
            each(pairs=pairs is not None) for each in (config.rows_a_step, config.idle_limit)
        )
        config = replace(config, batch_size=rows, dead_after=idle)
        moved = {n: t.to(device) for n, t in saved.tensors.items()} if saved else {}
        kept: Mapping[str, Tensor] = moved
        d, classes = vectors.shape[1], 0 if labels is None else labels.classes
        h = config.hidden_size(d, len(vectors), classes)
        split = Split.random(len(vectors), config.held_out, config.seed)
        adapter = kept.get("adapter")
        given = labels if pairs is None else pairs
        if given is not None and config.adapter_steps and adapter is None:
            adapter = group.first(learn_adapter(vectors, given, config, device).cpu()).to(device)
        scale = saved.scale if saved else typical_norm(vectors)
        model = Autoencoder(d, h, torch.Generator().manual_seed(config.seed)).to(device)
        batches = sampler(vectors, split, labels, pairs, rows, config.seed)
        since = torch.zeros(h, dtype=torch.int64, device=device)
        optimiser = _optimiser(model, config, device)
        run = cls(
            config,
            device,
            batches,
            scale,
            adapter,
            None,
            model,
            ops_for(device, config.precision),
            group,
            config.planned_steps(batches.steps_per_epoch),
            optimiser,
            since,
        )
        run.validator = run._validator(vectors, split)
        # Also where `saved` replaces the parameters: temperatures are found anew.
        run._start(vectors, split, "pairs" if pairs else "labels" if labels else None)
        if saved is not None:
            run.restore(saved._replace(tensors=moved))
        return run

    def _start(
        self, vectors: Array, split: Split, supervision: Literal["labels", "pairs"] | None
    ) -> None:
        """Fill in the settings that depend on the data, and let the model start from rows of it.

        All of it depends on the seed alone, but sums may differ between devices, so in a group the
        first process's is taken.
        """
        config, model = self.config, self.model
        h, n = len(model.latent_bias), split.training_rows
        rng = np.random.default_rng((config.seed, 9))
        chosen = gather(vectors, split.training(rng.choice(n, min(h, n), replace=False)))
        # Latents that point at one and the same row would fill a code among themselves.
        rows = self.prepared(chosen[np.sort(np.unique(chosen, axis=0, return_index=True)[1])])
        sample = self.prepared(gather(vectors, spread(len(vectors), SAMPLE)))
        self.config = config.resolved(
            supervision=supervision,
            adapted=self.adapter is not None,
            spread=self.group.first(cosine_spread(sample[::10])),
        )
        if config.centre:
            model.pre_bias.data.copy_(sample.mean(0))
        if config.start == "rows":
            start_at_rows(model, rows, sample[:1024], max(config.k))
        state = self.group.first({n: t.cpu() for n, t in model.state_dict().items()})
        model.load_state_dict(state)
        self.ops = self._chosen_ops()
        self.compute = Step(model, self.config, self.ops, self.group)

    def _chosen_ops(self) -> Ops:
        """Return the faster operations of this device, by a step on the first rows."""
        rival = rival_ops(self.device, self.config.precision)
        if rival is None:
            return self.ops
        x = self.prepared(self.sampler.at(0).x)
        batch = TorchBatch(x[self.group.share(len(x))])
        none_dead = torch.empty(0, dtype=torch.int64, device=self.device)

        def gradient(ops: Ops) -> Tensor:
            Step(self.model, self.config, ops)(batch, none_dead, step=0, progress=0.0)
            assert self.model.weight.grad is not None
            return self.model.weight.grad.clone()

        return self.group.first(faster(self.ops, rival, gradient, self.device))

    def _validator(self, vectors: Array, split: Split) -> Validator | None:
        if not len(split.held_out):
            return None
        rng = np.random.default_rng((self.config.seed, 5))
        count = min(split.training_rows, SAMPLE)
        positions = rng.choice(split.training_rows, count, replace=False)
        documents = gather(vectors, np.sort(split.training(positions)))
        queries = gather(vectors, split.held_out)
        return Validator.of(self.prepared(queries), self.prepared(documents))

    @property
    def lr(self) -> float:
        """Peak learning rate."""
        return self.config.peak_lr(len(self.model.pre_bias))

    @property
    def dead_after(self) -> int:
        """Steps without activity after which a latent counts as dead."""
        return self.config.idle_limit(pairs=False)  # `prepare` has filled it in

    @property
    def progress(self) -> float:
        """Share of the run that is over, 0..1."""
        if self.config.minutes is not None:
            return min(1.0, self.elapsed_s / (60 * self.config.minutes))
        return self.step / self.steps

    def prepared(self, rows: Any) -> Tensor:
        """Return float32 rows (n, d) as the model takes them: on the device, scaled, adapted."""
        x = torch.from_numpy(rows).to(self.device) / self.scale
        return x if self.adapter is None else x @ self.adapter.T

    def on_device(self, batch: Batch) -> TorchBatch:
        """Return `batch` as the objective takes it."""
        return on_device(batch, self.device, self.prepared)

    # --- keeping --------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """Return the state, from which `restore` goes on exactly."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{key}": value for key, value in state.items()}
        tensors["since_active"] = self.since_active
        if self.adapter is not None:
            tensors["adapter"] = self.adapter
        return Checkpoint(tensors, self.step, self.elapsed_s, self.scale, self.validations)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up the run where `checkpoint` left it."""
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

    def check_budget(self) -> None:
        """Raise CsrError if preparing took all the minutes that there are."""
        if self.progress >= 1:
            raise CsrError(
                f"preparing took all of the {self.config.minutes} minutes: give more of them"
            )

    def check_finite(self) -> None:
        """Raise CsrError if the weights are not finite, so that they are never kept."""
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            raise diverged(self.lr, self.step)

    def encoder(self, info: dict[str, Any]) -> Encoder:
        """Return the trained encoder, of unscaled vectors and with the adapter folded in."""
        encoder = self.model.to_encoder(
            self.scale,
            k=max(self.config.k),
            k_aux=self.config.k_aux,
            dead_threshold=self.dead_after,
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


def cosine_spread(rows: Tensor) -> float:
    """Return the standard deviation of the cosines of different rows (n, d)."""
    if len(rows) < 3:
        return SPREAD
    unit = F.normalize(rows, dim=1)
    different = ~torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    return max(1e-3, float((unit @ unit.T)[different].std()))


def _optimiser(model: Autoencoder, config: TrainConfig, device: torch.device) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        model.parameters(),
        lr=config.peak_lr(len(model.pre_bias)),
        eps=config.adam_eps,
        weight_decay=config.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )


def diverged(lr: float, step: int) -> CsrError:
    """Return the error of a run whose loss or weights are no longer finite."""
    return CsrError(
        f"training diverged: the loss is not finite at step {step}; lower lr (now {lr:.2g}) "
        f"and start anew"
    )
