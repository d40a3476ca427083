"""LinearConfig: every dial of a linear adapter's training, its default and its meaning."""

from dataclasses import dataclass, field
from typing import Any, Literal

from csr_qdrant.errors import ConfigError
from csr_qdrant.linear import check_dims

SMALLEST = 8  # of the sizes that are trained unless others are asked for


def _dial(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """Settings of `fit_linear`. Raises ConfigError for settings that cannot work."""

    method: Literal["mrl", "adapter"] = _dial("mrl", "Nested sizes, or the full one alone.")
    dims: tuple[int, ...] | None = _dial(
        None, "Sizes that `mrl` trains; default: 8, 16, 32, … and that of the vectors."
    )
    steps: int = _dial(600, "Optimiser steps.")
    minutes: float | None = _dial(None, "Train for so many minutes instead of a number of steps.")
    batch_size: int = _dial(512, "Pairs or rows a step.")
    lr: float = _dial(1e-3, "First learning rate of Adam; it falls to nothing along a cosine.")
    temperature: float | None = _dial(
        None, "Of the loss; default: 0.05 with labels or pairs, else 0.1."
    )
    held_out: int = _dial(1000, "Rows and queries kept for validation, a tenth of them at most.")
    seed: int = _dial(0, "Seed of everything random.")

    def __post_init__(self) -> None:
        """Check every setting that does not depend on the data."""
        if self.method not in ("mrl", "adapter"):
            raise ConfigError(f"method must be mrl or adapter, got {self.method!r}")
        if self.dims is not None:
            if self.method == "adapter":
                raise ConfigError("an adapter keeps the size of the vectors: dims are for mrl")
            check_dims(self.dims, max(self.dims, default=1))
        # Rows are dealt out evenly, so batches may be half as large; a row alone is like no other.
        for name, least in (("steps", 1), ("batch_size", 4), ("held_out", 0), ("seed", 0)):
            if not getattr(self, name) >= least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 < self.lr <= 1:
            raise ConfigError(f"lr must be above 0 and at most 1, got {self.lr}")
        for name in ("minutes", "temperature"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be above 0, got {value}")

    def sizes(self, d: int) -> tuple[int, ...]:
        """Return the sizes to train for vectors of `d` dimensions, rising.

        Raises ConfigError if one is larger than d.
        """
        if self.method == "adapter":
            return (d,)
        if self.dims is not None:
            check_dims(self.dims, d)
            return self.dims
        doubled = (SMALLEST << power for power in range(d.bit_length()))
        return (*(size for size in doubled if size < d), d)

    def temperature_for(self, supervised: bool) -> float:
        """Return the temperature of the loss.

        Raises ConfigError for a plain adapter that has nothing to learn from.
        """
        if self.method == "adapter" and not supervised:
            raise ConfigError(
                "an adapter learns from labels or pairs: without them nothing is better than the "
                "vectors themselves"
            )
        return self.temperature or (0.05 if supervised else 0.1)
