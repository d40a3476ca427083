"""Rows that are made a block at a time, and the seconds that takes."""

import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")
MADE_ROWS = 4096  # a multiple of engine.UPLOAD_BATCH


class InBlocks(Generic[T]):
    """Makes rows a block at a time as batches ask for them in order, and counts the seconds."""

    def __init__(self, n: int, make: Callable[[int, int], T]) -> None:
        """Make rows start..stop of n, which can be sliced, by `make(start, stop)`."""
        self.seconds = 0.0
        self._n, self._make = n, make
        self._start, self._block = 0, cast(T, None)

    def rows(self, start: int, stop: int) -> T:
        """Return rows start..stop, which must lie in one block of `MADE_ROWS`."""
        first = start - start % MADE_ROWS
        if self._block is None or first != self._start:
            began = time.perf_counter()
            self._start, self._block = first, self._make(first, min(first + MADE_ROWS, self._n))
            self.seconds += time.perf_counter() - began
        block: Any = self._block
        return cast(T, block[start - first : stop - first])
