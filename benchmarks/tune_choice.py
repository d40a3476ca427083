"""Which of the measured settings to use, for a target."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from csr_qdrant.benchmarks.tune import Measured
from csr_qdrant.errors import ConfigError

ROUNDING = 1e-9  # of a mean of many recalls


@dataclass(frozen=True, kw_only=True)
class Target:
    """What to reach: at least so much recall, or at most so many milliseconds for 95 %."""

    recall: float | None = None
    p95_ms: float | None = None

    def __post_init__(self) -> None:
        """Check that there is exactly one."""
        if (self.recall is None) == (self.p95_ms is None):
            raise ConfigError("give one target: a recall or a p95 in milliseconds")
        if self.recall is not None and not 0 < self.recall <= 1:
            raise ConfigError(f"recall must be above 0 and at most 1, got {self.recall}")
        if self.p95_ms is not None and self.p95_ms <= 0:
            raise ConfigError(f"p95_ms must be above 0, got {self.p95_ms}")


class Choice(NamedTuple):
    """The setting that was chosen on one half of the queries, and whether it did there."""

    measured: Measured
    reached: bool  # on the half that it was chosen by; otherwise it is the nearest to the target
    held: bool  # on the other half too


def chosen(found: Sequence[Measured], target: Target) -> Choice:
    """Return the fastest setting with the recall asked for, or the best within the latency."""
    dev = [(each, each.half(0)) for each in found]
    if target.recall is not None:
        good = [(m, f) for m, f in dev if f.recall.mean >= target.recall - ROUNDING]
        best = (
            min(good, key=lambda each: each[1].latency.p50_ms)[0]
            if good
            else max(dev, key=lambda each: each[1].recall.mean)[0]
        )
        held = best.half(1).recall.mean >= target.recall - ROUNDING
    else:
        assert target.p95_ms is not None
        good = [(m, f) for m, f in dev if f.latency.p95_ms <= target.p95_ms]
        best = (
            max(good, key=lambda each: (each[1].recall.mean, -each[1].latency.p50_ms))[0]
            if good
            else min(dev, key=lambda each: each[1].latency.p95_ms)[0]
        )
        held = best.half(1).latency.p95_ms <= target.p95_ms
    return Choice(best, bool(good), bool(held))


def front(found: Sequence[Measured]) -> Iterator[Measured]:
    """Yield the settings that no other beats in both recall and median latency, fastest first."""
    best = -1.0
    for each in sorted(found, key=lambda m: (m.half(0).latency.p50_ms, -m.recalls[0::2].mean())):
        if (recall := float(each.recalls[0::2].mean())) > best:
            best = recall
            yield each


def to_json(measured: Measured) -> dict[str, Any]:
    """Return a setting with the figures of the half that it was not chosen by."""
    figures = measured.half(1)
    return {
        **measured.setting._asdict(),
        "recall": figures.recall._asdict(),
        **figures.latency._asdict(),
        "postings": measured.postings,
    }
