"""A bounded sample of a store's points: pages at random places among the ids."""

from collections.abc import Callable, Iterator
from random import Random
from uuid import UUID

from csr_qdrant.errors import ConfigError
from csr_qdrant.ids import PointId
from csr_qdrant.stores.base import Store, StoredPoint

PAGE = 256  # points that are held at once
PLACES = 16  # at least, for samples of so many points or more
LARGEST = 2**64 - 1
FIRST_UUID = str(UUID(int=0))


def sample_points(store: Store, n: int, seed: int = 0) -> Iterator[list[StoredPoint]]:
    """Yield all points in pages if there are at most `n`, or else about `n` of them.

    The pages start at ids drawn at random, so points that stand beside each other by id are drawn
    together, and those behind gaps in the ids more often: a sample to look at, not one to test
    hypotheses on. No point comes twice. Raises ConfigError for n below 1.
    """
    if n < 1:
        raise ConfigError(f"a sample needs at least 1 point, got {n}")
    if store.count() <= n:
        yield from _all(store)
        return
    draws = _draws(store, Random(seed))
    page, seen = max(1, min(PAGE, n // PLACES)), set[PointId]()
    for attempt in range(8 * (n // page + 1)):  # some pages are met again
        points, _ = store.scroll(page, draws[attempt % len(draws)]())
        new = [point for point in points if point.id not in seen][: n - len(seen)]
        seen.update(point.id for point in new)
        if new:
            yield new
        if len(seen) >= n:
            return


def _all(store: Store) -> Iterator[list[StoredPoint]]:
    offset: PointId | None = None
    while True:
        points, offset = store.scroll(PAGE, offset)
        if points:
            yield points
        if offset is None:
            return


def _draws(store: Store, random: Random) -> list[Callable[[], PointId]]:
    """Return a function for each kind of id that the store holds, which draws a place."""
    draws: list[Callable[[], PointId]] = []
    first = _at(store, 0)
    if isinstance(first, int):
        last = _last_number(store, first)
        draws.append(lambda: random.randint(first, last))
    if isinstance(_at(store, FIRST_UUID), str):
        draws.append(lambda: str(UUID(int=random.getrandbits(128))))
    return draws


def _at(store: Store, offset: PointId) -> PointId | None:
    """Return the first id from `offset` on."""
    points, _ = store.scroll(1, offset)
    return points[0].id if points else None


def _last_number(store: Store, first: int) -> int:
    """Return the largest integer id, found by halving: UUIDs come after all integers."""
    last, beyond = first, LARGEST + 1
    while beyond - last > 1:
        middle = (last + beyond) // 2
        found = _at(store, middle)
        if isinstance(found, int):
            last = found
        else:
            beyond = middle
    return last
