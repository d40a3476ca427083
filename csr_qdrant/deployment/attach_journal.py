"""How far attaching has come, kept beside the points so that any machine can go on."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from csr_qdrant.ids import PointId
from csr_qdrant.stores.writing import CodeWriter

KEY = "csr_qdrant_attach"
FLUSH_POINTS = 16_384
FLUSH_SECONDS = 5.0
Phase = Literal["backfill", "verify", "done"]


def stored_phase(metadata: Mapping[str, Any]) -> str | None:
    """Return the phase in which an earlier run stopped, None if there was none."""
    stored: Any = metadata.get(KEY)
    return str(stored["phase"]) if isinstance(stored, dict) else None


@dataclass
class Journal:
    """The phase, and the id up to which its first pass is through for good."""

    writer: CodeWriter
    phase: Phase = "backfill"
    offset: PointId | None = None  # None: the beginning
    points: int = 0  # gone through since the last record
    written_at: float = field(default_factory=time.monotonic)

    @classmethod
    def open(cls, writer: CodeWriter) -> "Journal":
        """Return where an earlier run stopped; a finished one starts over."""
        stored: Any = writer.metadata().get(KEY)
        if not isinstance(stored, dict) or stored.get("phase") not in ("backfill", "verify"):
            return cls(writer)
        return cls(writer, stored["phase"], stored.get("offset"))

    def advance(self, points: int, following: PointId | None) -> None:
        """Note that all before `following` is written, and record it now and then."""
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
        """Make the codes durable, then record."""
        self.writer.flush()
        self.writer.write_metadata(KEY, {"phase": self.phase, "offset": self.offset})
        self.points, self.written_at = 0, time.monotonic()
