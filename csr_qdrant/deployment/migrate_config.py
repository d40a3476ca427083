"""What migrating takes: settings, what it is going to copy, and what it has done."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from csr_qdrant.deployment.attach_config import INDEX_BYTES, STORED_BYTES, BadPoint
from csr_qdrant.errors import ConfigError
from csr_qdrant.stores.base import Datatype

Keep = Literal["all", "rescore", "none"]


@dataclass(frozen=True, kw_only=True)
class MigrateConfig:
    """Settings of `migrate`."""

    vector: str | None = field(
        default=None,
        metadata={
            "help": "Dense vector to encode, empty for the unnamed one; default: the only one."
        },
    )
    name: str | None = field(
        default=None, metadata={"help": "Vector name for the codes; default: csr."}
    )
    k: int | None = field(
        default=None, metadata={"help": "Active latents a point at most; default: the encoder's."}
    )
    datatype: Datatype | None = field(
        default=None,
        metadata={"help": "Of values in the sparse index: f32 (default), f16 or u8."},
    )
    drop_dense: bool = field(
        default=False, metadata={"help": "Leave the encoded dense vector out of the copy."}
    )
    rescore: bool = field(
        default=False,
        metadata={"help": "Keep the encoded dense vector on disk only, without a graph."},
    )
    reencode: bool = field(
        default=False,
        metadata={"help": "Put codes of another encoder in the place of those that are there."},
    )
    alias: str | None = field(
        default=None, metadata={"help": "Alias to move from the source to the copy at the end."}
    )
    batch: int = field(default=256, metadata={"help": "Points to read and write at a time."})
    threads: int | None = field(
        default=None, metadata={"help": "Requests to write at a time; default: 4, embedded 1."}
    )
    rate: float | None = field(
        default=None, metadata={"help": "Points a second at most; default: no limit."}
    )
    verify: bool = field(
        default=True,
        metadata={"help": "Compare all points, copy what differs, remove what is gone."},
    )
    optimise: bool = field(
        default=True, metadata={"help": "Build the indexes at the end (embedded engine)."}
    )
    wait: float = field(
        default=3600.0,
        metadata={"help": "Seconds that a server may index before the alias is moved."},
    )
    bad_rows: Path | None = field(
        default=None,
        metadata={"help": "File for the ids of points without a code or refused, as JSON lines."},
    )
    device: str | None = field(
        default=None, metadata={"help": "numpy, cpu, cuda or mps; default: the best there is."}
    )

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.batch < 1:
            raise ConfigError(f"batch must be at least 1, got {self.batch}")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads must be at least 1, got {self.threads}")
        if self.rate is not None and not self.rate > 0:
            raise ConfigError(f"rate must be above 0 points a second, got {self.rate}")
        if self.wait < 0:
            raise ConfigError(f"wait must be at least 0 s, got {self.wait}")
        if self.drop_dense and self.rescore:
            raise ConfigError("got both drop-dense and rescore: dense vectors go or stay, not both")

    @property
    def keep(self) -> Keep:
        """What becomes of the encoded dense vector."""
        return "none" if self.drop_dense else "rescore" if self.rescore else "all"


@dataclass(frozen=True, kw_only=True)
class MigratePlan:
    """What migrating a collection is going to do and to cost."""

    source: str
    target: str
    vector: str | None  # the dense vector that the codes are of; None: the source has it no more
    encoded: bool  # whether codes are made of it; if not, the source's are copied as they are
    keep: Keep
    name: str  # of the codes
    k: int
    datatype: Datatype
    fingerprint: str
    points: int  # of the source
    dense: tuple[str, ...]  # dense vectors of the copy, multivectors among them
    sparse: tuple[str, ...]  # sparse vectors of the copy
    indexes: tuple[str, ...]  # payload fields with an index
    configured: tuple[str, ...]  # settings that are taken over
    left_out: tuple[str, ...]  # settings that the target's engine does not have
    dense_bytes: int  # of all points, without graphs; multivectors are not counted
    alias: str | None
    alias_from: str | None  # what the alias stands for now
    phase: str | None  # where an earlier run stopped; None: none was there

    @property
    def index_bytes(self) -> int:
        """About the size of the sparse index of the codes."""
        return round(self.points * self.k * INDEX_BYTES[self.datatype])

    @property
    def stored_bytes(self) -> int:
        """About what the engine keeps of the codes beside their index."""
        return self.points * self.k * STORED_BYTES

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        costs = {"index_bytes": self.index_bytes, "stored_bytes": self.stored_bytes}
        return {**asdict(self), **costs}


@dataclass(frozen=True, kw_only=True)
class MigrateReport:
    """What a run of `migrate` has done, and how the copy stands now."""

    plan: MigratePlan
    copied: int  # points written by the first pass of this run
    mended: int  # points that differed from the source, or were missing
    removed: int  # points that the source no longer had
    without_code: int  # points whose dense vector has no active latent
    bad: int  # points whose vector is NaN, infinite or zero, or that the engine refused
    refused: int  # of them, those refused: the copy lacks them
    bad_examples: tuple[BadPoint, ...]  # some of them
    points: int  # of the source at the end
    target_points: int
    coded: int  # points of the copy with a code
    sampled: int  # points compared once more
    sampled_wrong: int
    unsettled: int  # points that others kept changing while they were compared
    swapped: bool  # whether the alias stands for the copy now
    seconds: float
    optimise_seconds: float

    @property
    def complete(self) -> bool:
        """Whether the copy had all points of the source as they were when they were compared."""
        wrong = self.sampled_wrong or self.unsettled or self.refused
        return self.points == self.target_points and not wrong

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = asdict(self)
        values |= {"plan": self.plan.to_json(), "complete": self.complete}
        values["bad_examples"] = [each._asdict() for each in self.bad_examples]
        return values
