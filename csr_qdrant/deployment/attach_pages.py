"""One pass over the points of a collection: read ahead, worked on in parallel, finished in order.

In memory at a time are at most two pages more than there are threads.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from csr_qdrant.ids import PointId

P = TypeVar("P")
R = TypeVar("R")


class Page(NamedTuple, Generic[P]):
    """Points on their way through a pass."""

    size: int
    content: P
    following: PointId | None  # the next page's offset; None: this is the last one


@dataclass
class Pace:
    """Holds a pass to a rate; what it has waited for too long is not made up for in a rush."""

    rate: float | None  # points a second; None: no limit
    free_at: float = field(default_factory=time.monotonic)

    def wait(self, points: int) -> None:
        """Wait until `points` more may go."""
        if self.rate is None:
            return
        time.sleep(max(0.0, self.free_at - time.monotonic()))
        self.free_at = max(self.free_at, time.monotonic()) + points / self.rate


def pass_over(
    read: Callable[[PointId | None], Page[P]],
    work: Callable[[P], R],
    finish: Callable[[Page[P], R], object],
    *,
    start: PointId | None,
    threads: int,
    pace: Pace,
    on_failure: Callable[[], object] = lambda: None,
) -> None:
    """Read pages from `start` on, `work` on them in threads, and `finish` them in their order.

    The next page is read while the last ones are worked on. What `read`, `work` or `finish` raise
    ends the pass, as Ctrl-C does: `on_failure` is called, and then what is being read and worked
    on is waited for.
    """
    running: deque[tuple[Page[P], Future[R]]] = deque()

    def finish_first() -> None:
        page, future = running.popleft()
        finish(page, future.result())

    with _pool(threads, "attach", on_failure) as pool:
        for page in _read_ahead(read, start, on_failure):
            while len(running) >= threads:
                finish_first()
            pace.wait(page.size)
            running.append((page, pool.submit(work, page.content)))
        while running:
            finish_first()


def _read_ahead(
    read: Callable[[PointId | None], Page[P]],
    start: PointId | None,
    on_failure: Callable[[], object],
) -> Iterator[Page[P]]:
    with _pool(1, "attach-read", on_failure) as pool:
        coming: Future[Page[P]] | None = pool.submit(read, start)
        while coming is not None:
            page = coming.result()
            coming = None if page.following is None else pool.submit(read, page.following)
            yield page


@contextmanager
def _pool(
    threads: int, name: str, on_failure: Callable[[], object]
) -> Iterator[ThreadPoolExecutor]:
    """Give a pool whose threads are waited for at the end, after `on_failure` if that is one."""
    with ThreadPoolExecutor(threads, thread_name_prefix=name) as pool:
        try:
            yield pool
        except BaseException:
            on_failure()
            raise
