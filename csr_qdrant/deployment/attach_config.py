"""What attaching takes: settings, what it is going to cost, and what it has done."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from csr_qdrant.errors import ConfigError
from csr_qdrant.stores.base import Datatype

INDEX_BYTES = {"f32": 5.6, "f16": 4.6, "u8": 2.7}  # a posting, as measured at k = 32 and h = 3072
STORED_BYTES = 8  # a latent beside the index: u32 and f32


@dataclass(frozen=True, kw_only=True)
class AttachConfig:
    """Settings of `attach`."""

    vector: str | None = field(
        default=None,
        metadata={
            "help": "Dense vector to encode, empty for the unnamed one; default: the only one."
        },
    )
    name: str = field(default="csr", metadata={"help": "Vector name for the codes."})
    k: int | None = field(
        default=None, metadata={"help": "Active latents a point at most; default: the encoder's."}
    )
    datatype: Datatype | None = field(
        default=None,
        metadata={"help": "Of values in the sparse index: f32 (default), f16 or u8."},
    )
    batch: int = field(default=1024, metadata={"help": "Points to read and encode at a time."})
    threads: int | None = field(
        default=None, metadata={"help": "Requests to write at a time; default: 4, embedded 1."}
    )
    rate: float | None = field(
        default=None, metadata={"help": "Points a second at most; default: no limit."}
    )
    verify: bool = field(
        default=True,
        metadata={
            "help": "Encode every stored vector once more and mend codes that differ, unless all "
            "are of this run and nobody else could write (embedded engine)."
        },
    )
    remove_orphans: bool = field(
        default=False,
        metadata={
            "help": "Remove codes of points that have lost their dense vector; default: they stay."
        },
    )
    optimise: bool = field(
        default=True, metadata={"help": "Build the indexes at the end (embedded engine)."}
    )
    bad_rows: Path | None = field(
        default=None,
        metadata={"help": "File for the ids of points that cannot have a code, as JSON lines."},
    )
    device: str | None = field(
        default=None, metadata={"help": "numpy, cpu, cuda or mps; default: the best there is."}
    )

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.batch < 1:
            raise ConfigError(f"batch must be at least 1, got {self.batch}")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads must be at least 1, got {self.threads}")
        if self.rate is not None and not self.rate > 0:
            raise ConfigError(f"rate must be above 0 points a second, got {self.rate}")


@dataclass(frozen=True, kw_only=True)
class AttachPlan:
    """What attaching to a collection is going to do and to cost."""

    location: str
    vector: str  # of the dense vectors; empty: the unnamed one
    dimension: int
    distance: str
    name: str  # of the codes
    adds_name: bool  # False: an earlier run has added it
    k: int
    datatype: Datatype
    fingerprint: str
    points: int  # that have the dense vector
    lacking: int  # of them, without a code
    orphans: int  # codes of points that have lost the dense vector
    verifies: bool  # whether every stored vector is encoded once more at the end
    phase: (
        str | None
    )  # where an earlier run stopped: backfill, verify or done; None: none was there

    @property
    def index_bytes(self) -> int:
        """About the size of the sparse index of the codes to come."""
        return round(self.lacking * self.k * INDEX_BYTES[self.datatype])

    @property
    def stored_bytes(self) -> int:
        """About what the engine keeps of the codes to come beside their index."""
        return self.lacking * self.k * STORED_BYTES

    @property
    def copied_bytes(self) -> int:
        """About the dense values that the engine moves with the points that it rewrites.

        A point that gets a code leaves its finished segment, and the graphs (HNSW) over all dense
        vectors of the points that moved are built anew.
        """
        return self.lacking * self.dimension * 4

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        costs = ("index_bytes", "stored_bytes", "copied_bytes")
        return {
            **asdict(self),
            "points_to_rewrite": self.lacking,
            "rebuilds_graph": self.lacking > 0,
            **{cost: getattr(self, cost) for cost in costs},
        }


class BadPoint(NamedTuple):
    """A point that cannot have a code."""

    id: int | str
    reason: str


@dataclass(frozen=True, kw_only=True)
class AttachReport:
    """What a run of `attach` has done, and how the collection stands now."""

    plan: AttachPlan
    written: int  # codes of points that had none
    rewritten: int  # codes that no longer fitted their dense vector
    removed: int  # codes of dense vectors that cannot have one any more, or, if told, are gone
    without_code: int  # points whose dense vector has no active latent
    bad: int  # points whose vector is NaN, infinite or zero, or that the engine refused
    bad_examples: tuple[BadPoint, ...]  # some of them
    points: int  # that have the dense vector
    coded: int  # of them, with a code
    orphans: int  # codes that stay at points which have lost the dense vector
    sampled: int  # codes of this run, looked at once more
    sampled_wrong: int
    unsettled: int  # points that others kept changing while they were looked at
    seconds: float
    optimise_seconds: float

    @property
    def lacking(self) -> int:
        """Points that could have a code and have none: written by others during the last pass."""
        return max(0, self.points - self.coded - self.without_code - self.bad)

    @property
    def complete(self) -> bool:
        """Whether every point that can have a code had the right one when it was looked at."""
        return not (self.lacking or self.sampled_wrong or self.unsettled)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = asdict(self)
        values |= {"plan": self.plan.to_json(), "lacking": self.lacking, "complete": self.complete}
        values["bad_examples"] = [each._asdict() for each in self.bad_examples]
        return values
