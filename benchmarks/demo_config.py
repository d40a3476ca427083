"""Settings of the demonstration; apart from it, so that `csr demo --help` loads no torch."""

from dataclasses import dataclass, field

from csr_qdrant.trainer import TrainConfig

KS = (8, 16, 32)


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Settings of the demonstration."""

    minutes: float = field(
        default=0.8, metadata={"help": "Training time of each of the two encoders."}
    )
    quick: bool = field(
        default=False, metadata={"help": "A few steps and queries only: shows that it runs."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of the training."})

    @property
    def queries(self) -> int | None:
        """Number of test queries to measure; None: all."""
        return 200 if self.quick else None

    def training(self) -> TrainConfig:
        """Return the settings of both trainings."""
        if self.quick:
            return TrainConfig(k=KS, steps=20, adapter_steps=20, seed=self.seed)
        return TrainConfig(k=KS, minutes=self.minutes, seed=self.seed)
