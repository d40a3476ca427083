"""BenchConfig: which systems a benchmark measures, and how."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from csr_qdrant.errors import ConfigError

KS = (8, 16, 32)  # what is trained for where nothing is said
WORK = "vectors"  # in a benchmark's folder: what was embedded for it
FAMILIES = (
    "exact",
    "hnsw",
    "truncated",
    "pca",
    "mrl",
    "adapter",
    "int8",
    "binary",
    "turbo",
    "csr",
)


def _dial(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Settings of a benchmark. Raises ConfigError for settings that cannot work."""

    systems: tuple[str, ...] = _dial(FAMILIES, "Which families of systems to measure.")
    k: tuple[int, ...] = _dial(
        (), "Active latents of documents; default: 8,16,32, or what --encoder was trained for."
    )
    query_k: tuple[int, ...] = _dial((16,), "Fewer latents of queries, to try on the largest k.")
    encoder: tuple[Path, ...] = _dial((), "Encoders that are there already; none is trained then.")
    minutes: float = _dial(0.5, "Training time of each encoder.")
    supervised: bool = _dial(True, "Learn from the task's pairs or labels too, where it has some.")
    dims: tuple[int, ...] = _dial((), "Sizes of shortened vectors; default: d/16, d/4, d/2.")
    ef: tuple[int, ...] = _dial((16, 64, 256), "Breadths of HNSW searches: its frontier.")
    m: int = _dial(16, "Links a node of HNSW graphs.")
    candidates: int = _dial(100, "Hits that rescoring looks at; 0: no rescoring.")
    max_queries: int | None = _dial(None, "Only so many queries, the first.")
    timed: int = _dial(200, "Queries whose latency is measured.")
    clients: tuple[int, ...] = _dial((1, 2), "Concurrent clients whose throughput is measured.")
    device: str | None = _dial(None, "Where encoders are trained; default: the best there is.")
    seed: int = _dial(0, "Seed of everything random.")

    def __post_init__(self) -> None:
        """Check names and numbers."""
        unknown = sorted(set(self.systems) - set(FAMILIES))
        if unknown or not self.systems:
            raise ConfigError(
                f"systems are {', '.join(FAMILIES)}, got {', '.join(unknown) or 'none'}"
            )
        for name in ("k", "query_k", "dims", "ef", "clients"):
            if any(value < 1 for value in getattr(self, name)):
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")
        if not self.clients:
            raise ConfigError("clients must not be empty")
        for name in ("k", "query_k", "dims", "ef", "clients", "encoder"):
            twice = [each for each in getattr(self, name) if getattr(self, name).count(each) > 1]
            if twice:
                raise ConfigError(f"{name} names {twice[0]} twice: give each once")
        for name, least in (("m", 1), ("timed", 1), ("candidates", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.max_queries is not None and self.max_queries < 1:
            raise ConfigError(f"max_queries must be at least 1, got {self.max_queries}")
        if not self.minutes > 0:
            raise ConfigError(f"minutes must be above 0, got {self.minutes}")

    def sizes(self, d: int) -> tuple[int, ...]:
        """Return the sizes of shortened vectors of `d` dimensions, rising."""
        if self.dims:
            if max(self.dims) >= d:
                raise ConfigError(f"dims must be below {d}, got {max(self.dims)}")
            return tuple(sorted(set(self.dims)))
        return tuple(sorted({d // part for part in (16, 4, 2) if d // part}))
