"""TrainConfig: every dial of a training run, its default and its meaning, in one place."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from csr_qdrant.errors import ConfigError

SPREAD = 0.108  # standard deviation of the cosines by which the temperatures were chosen


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
    h_per_d: int | None = _dial(None, "Latents a dimension, where h is not given.")
    steps: int = _dial(2000, "Optimiser steps.")
    minutes: float | None = _dial(None, "Train for so many minutes instead of a number of steps.")
    epochs: float | None = _dial(None, "Passes over the rows instead of a number of steps.")
    batch_size: int | None = _dial(None, "Rows a step; default: 512, 4,096 with pairs.")
    lr: float | None = _dial(None, "Peak learning rate of Adam; default: 1 / d, or 0.064 / √d.")
    warmup: float = _dial(0.05, "Share of the run in which the learning rate rises to its peak.")
    start: Literal["rows", "random"] = _dial(
        "rows", "Where latents start: at rows of the data, or at random as in the papers."
    )
    revive: bool = _dial(True, "Let latents long dead start anew at rows of the data.")
    centre: bool = _dial(True, "Start b_pre at the mean of the rows; else at zero.")
    schedule: Literal["cosine", "constant"] = _dial("cosine", "The rate after its rise.")
    weight_decay: float = _dial(0.0, "Decoupled weight decay.")
    adam_eps: float = _dial(1e-8, "Adam's ε.")
    clip: float = _dial(1.0, "Largest gradient norm.")
    reconstruction: float = _dial(1.0, "Weight of the reconstruction terms at each k.")
    multi_k: float = _dial(0.125, "Weight of the reconstruction from 4k latents.")
    aux: float = _dial(1 / 32, "Weight of the auxiliary term that revives dead latents.")
    k_aux: int = _dial(512, "Dead latents that the auxiliary term may use for a row.")
    dead_after: int | None = _dial(
        None, "Steps without activity after which a latent counts as dead; default: 16,384 rows."
    )
    contrastive: float | None = _dial(
        None, "Weight of the contrastive term; default: 4, 8 with pairs."
    )
    contrastive_temperature: float = _dial(0.2, "Its temperature.")
    balance: float = _dial(0.0, "Weight of the mean cosine of codes: fewer postings a query.")
    distillation: float | None = _dial(
        None, "Weight of the similarity distillation from dense vectors; default: 3, 0 for labels."
    )
    distillation_temperature: float | None = _dial(
        None, "Its temperature; default: 0.1, and 0.05 beside an adapter learned from pairs."
    )
    dense_temperature: float | None = _dial(
        None, "That of the dense similarities; default: the same, or less where they hardly differ."
    )
    k_anneal: int | None = _dial(None, "Start with so many latents and fall to k (CSRv2).")
    supervised: float | None = _dial(
        None, "Weight of the term on labels or pairs, if given; default: 3 for labels, else 0.3."
    )
    supervised_temperature: float | None = _dial(
        None, "Its temperature; default: 0.1 for labels, else 0.05."
    )
    reconstructed_pairs: float = _dial(
        0.0, "Weight of the pairs' term on reconstructions instead of codes."
    )
    adapter_steps: int = _dial(
        600, "Steps of the linear adapter learned first from labels or pairs; 0: none."
    )
    adapter_lr: float = _dial(1e-3, "Its learning rate.")
    adapter_temperature: float = _dial(0.05, "The temperature of its loss.")
    precision: Literal["float32", "bf16"] = _dial(
        "float32", "In what GPUs multiply matrices; sums and parameters stay float32."
    )
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
        for name in ("steps", "batch_size", "dead_after", "validate_every", "k_aux", "h_per_d"):
            _at_least(name, getattr(self, name), 1)
        for name in _WEIGHTS:
            _at_least(name, getattr(self, name), 0)
        for name, words in _WORDS.items():
            if getattr(self, name) not in words:
                raise ConfigError(
                    f"{name} must be {' or '.join(words)}, got {getattr(self, name)!r}"
                )
        if self.minutes is not None and self.epochs is not None:
            raise ConfigError("a run takes minutes or epochs: choose one of them")
        for name in ("lr", "minutes", "epochs", "clip", "adam_eps", *_TEMPERATURES):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be above 0, got {value}")
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

    def resolved(
        self,
        *,
        supervision: Literal["labels", "pairs"] | None = None,
        adapted: bool = False,
        spread: float = SPREAD,
    ) -> Self:
        """Return the settings with those filled in that depend on what is learned from.

        Args:
            supervision: what is given beside the vectors.
            adapted: whether an adapter is learned from it. Neighbours by vectors adapted to pairs
                are worth a closer look; elsewhere 0.05 was much worse than 0.1.
            spread: standard deviation of the dense cosines. Those that lie closer together are told
                apart at a lower temperature; a higher one for wider ones was much worse.
        """
        closer, labelled = adapted and supervision == "pairs", supervision == "labels"
        temperature = _or(self.distillation_temperature, 0.05 if closer else 0.1)
        return replace(
            self,
            batch_size=self.rows_a_step(pairs=supervision == "pairs"),
            dead_after=self.idle_limit(pairs=supervision == "pairs"),
            contrastive=_or(self.contrastive, 8.0 if supervision == "pairs" else 4.0),
            distillation=_or(self.distillation, 0.0 if labelled else 3.0),
            distillation_temperature=temperature,
            dense_temperature=_or(self.dense_temperature, temperature * min(1.0, spread / SPREAD)),
            supervised=_or(self.supervised, 3.0 if labelled else 0.3),
            supervised_temperature=_or(self.supervised_temperature, 0.1 if labelled else 0.05),
        )

    def rows_a_step(self, *, pairs: bool) -> int:
        """Return the rows of a batch.

        Rows alone learn more from more steps. Pairs want large batches: half of one are rows that
        pairs name, and a query learns from every document in it.
        """
        return self.batch_size or (4096 if pairs else 512)

    def idle_limit(self, *, pairs: bool) -> int:
        """Return after how many steps without activity a latent counts as dead."""
        return self.dead_after or max(LEAST_IDLE, round(IDLE_ROWS / self.rows_a_step(pairs=pairs)))

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

        Adam moves each of d entries by about the rate, so pre-activations move by up to d times
        it; small d take less, in proportion to the entries. Chosen on dev splits of d = 256…1,280.
        """
        return self.lr if self.lr is not None else min(1 / d, 0.064 / math.sqrt(d))

    def hidden_size(self, d: int, n: int, classes: int = 0) -> int:
        """Return h for `n` vectors of `d` dimensions, with labels of so many `classes`.

        4 d is the papers' choice. A query touches about N k²/h postings, so small d gets more, as
        far as there are some rows a latent to learn it from: on 31,095 rows of 256 dimensions 8,192
        latents were better than 4,096, and those than 2,048, in every respect but time. More than
        4 d gained nothing at d = 1,280 and cost time, so W stays small. Labels leave less to tell
        apart: of 5,120 latents on ten classes two fifths died, of 1,024 none, at better quality.
        """
        if self.h is not None:
            return self.check_h(self.h)
        if self.h_per_d is not None:
            return self.check_h(self.h_per_d * d)
        most = min(LARGEST_AUTOMATIC, 32 * d, LARGEST_WEIGHT // d, n // ROWS_A_LATENT)
        wide = 2 ** max(0, most.bit_length() - 1)
        automatic = max(4 * d, wide)
        if classes:
            enough = max(LEAST_WITH_LABELS, LATENTS_A_CLASS * classes, max(self.k))
            automatic = min(automatic, 1 << (enough - 1).bit_length())
        return self.check_h(automatic)


LARGEST_AUTOMATIC, ROWS_A_LATENT = 8192, 3
LARGEST_WEIGHT = 1 << 22  # entries of W, unless 4 d latents need more
LEAST_WITH_LABELS, LATENTS_A_CLASS = 1024, 8
IDLE_ROWS, LEAST_IDLE = 16_384, 8  # idle rows, and steps, before a latent counts as dead
_WORDS = {
    "start": ("rows", "random"),
    "schedule": ("cosine", "constant"),
    "precision": ("float32", "bf16"),
}
_TEMPERATURES = (
    "contrastive_temperature",
    "distillation_temperature",
    "dense_temperature",
    "supervised_temperature",
    "adapter_temperature",
)
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


def _or(given: float | None, default: float) -> float:
    return default if given is None else given


def _at_least(name: str, value: float | None, least: int) -> None:
    if value is not None and not value >= least:
        raise ConfigError(f"{name} must be at least {least}, got {value}")
