"""What a server does wrong, as a server of the tests is told to; not a test itself."""

import random
import threading
from dataclasses import dataclass, fields
from typing import Literal

# Before: the request never gets through. After: it is done, and nobody hears of it.
Fault = Literal["drop_before", "drop_after", "busy", "limited", "slow", "hang"]


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Which share of requests meets which fault, each from 0 to 1."""

    drop_before: float = 0.0  # hang up instead of doing it
    drop_after: float = 0.0  # do it, and hang up instead of answering
    busy: float = 0.0  # 503
    limited: float = 0.0  # 429, with a Retry-After
    slow: float = 0.0  # answer after `slow_s`
    hang: float = 0.0  # do it, and never answer
    slow_s: float = 0.05
    retry_after_s: int = 0


class Faults:
    """Decides for each request what goes wrong; nothing, unless told. Safe for threads."""

    def __init__(self, shares: Shares = Shares(), seed: int = 0) -> None:
        self.shares = shares
        self.met: dict[str, int] = {}
        self._random = random.Random(seed)
        self._planned: list[tuple[str, str, Fault]] = []
        self._lock = threading.Lock()

    def plan(self, method: str, path: str, *faults: Fault) -> None:
        """Let the next requests of this method, to a path that ends so, meet these faults."""
        with self._lock:
            self._planned += [(method, path, fault) for fault in faults]

    def next(self, method: str, path: str) -> Fault | None:
        """Return what happens to this request."""
        with self._lock:
            fault = self._next(method, path)
        if fault:
            self.note(fault)
        return fault

    def note(self, what: str) -> None:
        """Count something that went wrong."""
        with self._lock:
            self.met[what] = self.met.get(what, 0) + 1

    def _next(self, method: str, path: str) -> Fault | None:
        for place, (planned_method, end, fault) in enumerate(self._planned):
            if method == planned_method and path.endswith(end):
                del self._planned[place]
                return fault
        left = self._random.random()
        for each in fields(self.shares):
            if each.name in ("slow_s", "retry_after_s"):
                continue
            left -= getattr(self.shares, each.name)
            if left < 0:
                return each.name  # type: ignore[return-value]
        return None
