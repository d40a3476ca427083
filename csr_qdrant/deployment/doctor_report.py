"""What `diagnose` finds: sentences, and numbers under names that a monitoring system takes."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

Level = Literal["problem", "warning"]


class Finding(NamedTuple):
    """Something that is wrong, or could be better."""

    level: Level  # problem: searches fail or find the wrong points; warning: all others
    subject: str  # a word that stays the same between releases, such as `codes`
    text: str  # what it is, and what to do


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """How a collection and its surroundings are."""

    location: str
    versions: dict[str, str | None]  # of packages, by name; None: not installed
    features: dict[str, bool]  # what the engine can do
    cuda: bool | None  # None: torch is not installed
    findings: tuple[Finding, ...]
    metrics: dict[str, float]  # see docs/doctor.md

    @property
    def healthy(self) -> bool:
        """Whether there are no problems; there may be warnings."""
        return not any(each.level == "problem" for each in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = asdict(self)
        return values | {
            "healthy": self.healthy,
            "findings": [each._asdict() for each in self.findings],
        }


@dataclass
class Chart:
    """Where the checks put down what they see."""

    findings: list[Finding] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    features: dict[str, bool] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)

    def problem(self, subject: str, text: str) -> None:
        """Put down something that is broken."""
        self.findings.append(Finding("problem", subject, text))

    def warn(self, subject: str, text: str) -> None:
        """Put down something that could be better."""
        self.findings.append(Finding("warning", subject, text))

    def count(self, level: Level) -> int:
        """Return how many findings are of this level."""
        return sum(each.level == level for each in self.findings)
