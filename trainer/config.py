"""TrainConfig: every dial of a training run, its default and its meaning, in one place."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from csr_qdrant.errors import ConfigError


def _dial(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of `fit`; the terms are explained where they are computed, see `trainer.step`.

    The defaults are the preset `retrieval`; `from_settings` starts from another one.
    Raises ConfigError for settings that cannot work.
    """

    preset: str = _dial("retrieval", "Where settings start: see docs/training.md.")
    k: tuple[int, ...] = _dial((8, 16, 32), "Active latents; a list trains nested codes.")
    h: int | None = _dial(None, "Number of latents; default: 4 d, more for small d.")
    steps: int = _dial(2000, "Optimiser steps.")
    minutes: float | None = _dial(None, "Train for so many minutes instead of a number of steps.")
    epochs: float | None = _dial(None, "Passes over the rows instead of a number of steps.")
    batch_size: int = _dial(512, "Rows a step.")
    lr: float | None = _dial(None, "Peak learning rate of Adam; default: 0.064 / √d.")
    warmup: float = _dial(0.05, "Share of the run in which the learning rate rises to its peak.")
    centre: bool = _dial(False, "Start b_pre at the mean of the rows; else at zero.")
    schedule: Literal["cosine", "constant"] = _dial("cosine", "The rate after its rise.")
    weight_decay: float = _dial(0.0, "Decoupled weight decay.")
    adam_eps: float = _dial(1e-8, "Adam's ε.")
    clip: float = _dial(1.0, "Largest gradient norm.")
    reconstruction: float = _dial(1.0, "Weight of the reconstruction terms at each k.")
    multi_k: float = _dial(0.125, "Weight of the reconstruction from 4k latents.")
    aux: float = _dial(1 / 32, "Weight of the auxiliary term that revives dead latents.")
    k_aux: int = _dial(512, "Dead latents that the auxiliary term may use for a row.")
    dead_after: int = _dial(32, "Steps without activity after which a latent counts as dead.")
    contrastive: float = _dial(4.0, "Weight of the contrastive term.")
    contrastive_temperature: float = _dial(0.2, "Its temperature.")
    balance: float = _dial(0.0, "Weight of the mean cosine of codes: fewer postings a query.")
    distillation: float = _dial(3.0, "Weight of the similarity distillation from dense vectors.")
    distillation_temperature: float | None = _dial(
        None, "Its temperature; default: 0.1, and 0.05 beside an adapter."
    )
    k_anneal: int | None = _dial(None, "Start with so many latents and fall to k (CSRv2).")
    supervised: float = _dial(0.3, "Weight of the supervised term, if labels or pairs are given.")
    supervised_temperature: float = _dial(0.05, "Its temperature.")
    reconstructed_pairs: float = _dial(
        0.0, "Weight of the pairs' term on reconstructions instead of codes."
    )
    adapter_steps: int = _dial(
        600, "Steps of the linear adapter learned first from pairs; 0: none."
    )
    adapter_lr: float = _dial(1e-3, "Its learning rate.")
    held_out: int = _dial(1000, "Rows kept from training for validation.")
    validate_every: int = _dial(500, "Steps between validations.")
    checkpoint_seconds: float = _dial(60.0, "Seconds between checkpoints, where one is asked for.")
    seed: int = _dial(0, "Seed of everything random.")

    def __post_init__(self) -> None:
        """Check every setting that does not depend on the data."""
        if not self.k or min(self.k) < 1:
            raise ConfigError(f"k must be one or more numbers above 0, got {self.k}")
        if self.h is not None:
            self.check_h(self.h)
        for name in ("steps", "batch_size", "dead_after", "validate_every", "k_aux"):
            _at_least(name, getattr(self, name), 1)
        for name in _WEIGHTS:
            _at_least(name, getattr(self, name), 0)
        if self.minutes is not None and self.epochs is not None:
            raise ConfigError("a run takes minutes or epochs: choose one of them")
        for name in ("lr", "minutes", "epochs", "clip", "adam_eps", *_TEMPERATURES):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be above 0, got {value}")
        if self.schedule not in ("cosine", "constant"):
            raise ConfigError(f"schedule must be cosine or constant, got {self.schedule!r}")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"warmup must be in [0, 1), got {self.warmup}")
        if self.k_anneal is not None and self.k_anneal < max(self.k):
            raise ConfigError(
                f"k_anneal must be at least the largest k ({max(self.k)}), got {self.k_anneal}"
            )

    @classmethod
    def from_settings(cls, preset: str = "retrieval", **given: Any) -> Self:
        """Return the settings of a preset, but for those that are `given`.

        Raises ConfigError if there is no such preset.
        """
        from csr_qdrant.trainer.presets import PRESETS

        if preset not in PRESETS:
            raise ConfigError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
        length = {"steps", "minutes", "epochs"}
        own: Mapping[str, Any] = PRESETS[preset]
        if length & given.keys():  # one length given replaces the preset's, of whatever kind
            own = {name: value for name, value in own.items() if name not in length}
        return cls(**{**own, **given}, preset=preset)

    def resolved(self, *, adapted: bool) -> Self:
        """Return the settings with those filled in that depend on whether there is an adapter.

        Neighbours by adapted vectors are worth a closer look: there 0.05 was better on dev splits,
        and elsewhere much worse, though the cosines of both spread alike.
        """
        if self.distillation_temperature is not None:
            return self
        return replace(self, distillation_temperature=0.05 if adapted else 0.1)

    def check_h(self, h: int) -> int:
        """Return `h`; raise ConfigError if it is smaller than the largest k."""
        if max(self.k) > h:
            raise ConfigError(f"k must be in 1..{h} (the number of latents), got {max(self.k)}")
        return h

    def planned_steps(self, steps_per_epoch: int) -> int:
        """Return the number of steps, where no number of minutes is given."""
        if self.epochs is None:
            return self.steps
        return max(1, round(self.epochs * steps_per_epoch))

    def peak_lr(self, d: int) -> float:
        """Return the peak learning rate for vectors of `d` dimensions.

        W starts with entries of about 1/√d and Adam moves each by about the rate, so a rate in
        proportion moves vectors of all sizes alike; 0.064 was chosen on dev splits at d = 256.
        """
        return self.lr if self.lr is not None else 0.064 / math.sqrt(d)

    def hidden_size(self, d: int, n: int) -> int:
        """Return h for `n` vectors of `d` dimensions.

        4 d is the papers' choice. A query touches about N k²/h postings, so small d gets more, as
        far as there are some rows a latent to learn it from: on 31,095 rows of 256 dimensions 4,096
        latents were better than 2,048 in every respect.
        """
        if self.h is not None:
            return self.check_h(self.h)
        wide = min(LARGEST_AUTOMATIC, 2 ** max(0, (n // ROWS_A_LATENT).bit_length() - 1))
        return self.check_h(max(4 * d, wide))


LARGEST_AUTOMATIC, ROWS_A_LATENT = 4096, 4
_TEMPERATURES = ("contrastive_temperature", "distillation_temperature", "supervised_temperature")
_WEIGHTS = (
    "reconstruction",
    "multi_k",
    "aux",
    "contrastive",
    "balance",
    "distillation",
    "supervised",
    "reconstructed_pairs",
    "weight_decay",
    "adapter_steps",
    "adapter_lr",
    "held_out",
    "checkpoint_seconds",
    "seed",
)


def _at_least(name: str, value: float, least: int) -> None:
    if not value >= least:
        raise ConfigError(f"{name} must be at least {least}, got {value}")
