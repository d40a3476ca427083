"""How far going over a collection has come, kept beside the points so that any machine goes on."""

import time

from csr_qdrant.ids import PointId
from csr_qdrant.stores.base import Json
from csr_qdrant.stores.writing import OpenCollection

FLUSH_POINTS = 16_384
FLUSH_SECONDS = 5.0


class Journal:
    """The phase, and the id up to which its pass is through for good."""

    def __init__(self, collection: OpenCollection, key: str, stored: Json, settings: Json) -> None:
        """Go on with the record `stored`, of phase and offset, which lies under `key`.

        `settings` are written into each record, too.
        """
        self._collection, self._key, self._settings = collection, key, settings
        self.phase: str = stored["phase"]
        self.offset: PointId | None = stored.get("offset")  # None: the beginning
        self._points = 0  # gone through since the last record
        self._written_at = time.monotonic()

    def advance(self, points: int, following: PointId | None) -> None:
        """Note that all before `following` is through, and record it now and then."""
        self._points += points
        if following is None:
            return
        self.offset = following
        late = time.monotonic() - self._written_at >= FLUSH_SECONDS
        if late or self._points >= FLUSH_POINTS:
            self.write()

    def enter(self, phase: str) -> None:
        """Record the beginning of a phase."""
        self.phase, self.offset = phase, None
        self.write()

    def write(self) -> None:
        """Make the points durable, then record."""
        self._collection.flush()
        record = {**self._settings, "phase": self.phase, "offset": self.offset}
        self._collection.write_metadata(self._key, record)
        self._points, self._written_at = 0, time.monotonic()
