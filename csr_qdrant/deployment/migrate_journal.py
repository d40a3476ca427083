"""How far a migration has come, kept in the copy itself so that any machine can go on."""

import time
from dataclasses import dataclass, field
from typing import Any, Literal

from csr_qdrant.errors import CsrError
from csr_qdrant.ids import PointId
from csr_qdrant.stores.base import Json
from csr_qdrant.stores.whole_points import WholePoints

KEY = "csr_qdrant_migrate"
FLUSH_POINTS = 16_384
FLUSH_SECONDS = 5.0
Phase = Literal["copy", "verify", "done", "swapped"]
PHASES = ("copy", "verify", "done", "swapped")


def first_record(settings: Json) -> Json:
    """Return what a new copy's metadata say, from its first moment on."""
    return {**settings, "phase": "copy", "offset": None}


def stored_record(metadata: Json, location: str) -> Json | None:
    """Return what an earlier run recorded, None if there was none; CsrError if it is damaged."""
    stored: Any = metadata.get(KEY)
    if stored is None:
        return None
    if not isinstance(stored, dict) or stored.get("phase") not in PHASES:
        raise CsrError(f"the record of migrating in {location} is damaged: choose a new target")
    return stored


@dataclass
class Journal:
    """The phase, and the id up to which copying is through for good."""

    target: WholePoints
    settings: Json  # of the migration, the same in every run
    phase: Phase = "copy"
    offset: PointId | None = None  # None: the beginning
    points: int = 0  # gone through since the last record
    written_at: float = field(default_factory=time.monotonic)

    @classmethod
    def open(cls, target: WholePoints, settings: Json) -> "Journal":
        """Return where an earlier run stopped."""
        stored = stored_record(target.metadata(), target.location) or first_record({})
        return cls(target, settings, stored["phase"], stored.get("offset"))

    def advance(self, points: int, following: PointId | None) -> None:
        """Note that all before `following` is copied, and record it now and then."""
        self.points += points
        if following is None:
            return
        self.offset = following
        late = time.monotonic() - self.written_at >= FLUSH_SECONDS
        if late or self.points >= FLUSH_POINTS:
            self.write()

    def enter(self, phase: Phase) -> None:
        """Record the beginning of a phase."""
        self.phase, self.offset = phase, None
        self.write()

    def write(self) -> None:
        """Make the points durable, then record."""
        self.target.flush()
        record = {**self.settings, "phase": self.phase, "offset": self.offset}
        self.target.write_metadata(KEY, record)
        self.points, self.written_at = 0, time.monotonic()
