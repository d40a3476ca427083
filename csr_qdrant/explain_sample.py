"""A bounded sample of a store's points: pages at random places among the ids."""

from collections.abc import Iterator
from random import Random
from uuid import UUID

from csr_qdrant.errors import ConfigError
from csr_qdrant.ids import PointId
from csr_qdrant.stores.base import Store, StoredPoint

PAGE = 256  # points that are held at once
PLACES = 16  # at least, for samples of so many points or more
LARGEST = 2**64 - 1
LARGEST_UUID = 2**128 - 1
GAPS = 500  # further pages at most, that find nothing but where no ids are
FIRST_UUID = str(UUID(int=0))


def sample_points(store: Store, n: int, seed: int = 0) -> Iterator[list[StoredPoint]]:
    """Yield all points in pages if there are at most `n`, or else `n` of them.

    The pages start at ids drawn at random, so points that stand beside each other by id are drawn
    together, and those behind gaps in the ids more often: a sample to look at, not one to test
    hypotheses on. No point comes twice. Raises ConfigError for n below 1.
    """
    if n < 1:
        raise ConfigError(f"a sample needs at least 1 point, got {n}")
    if store.count() <= n:
        yield from _all(store)
        return
    random, spaces = Random(seed), _spaces(store)
    page, seen = max(1, min(PAGE, n // PLACES)), set[PointId]()
    for attempt in range(8 * (n // page + 1) + GAPS):
        left = [space for space in spaces if space.free]
        if not left:
            return
        space = left[attempt % len(left)]
        start = space.drawn(random)
        points, _ = store.scroll(page, space.point(start))
        space.close(start, points, page)
        new = [point for point in points if point.id not in seen][: n - len(seen)]
        seen.update(point.id for point in new)
        if new:
            yield new
        if len(seen) >= n:
            return


class _Space:
    """The ids of one kind, as numbers, and which of them no page has covered yet.

    Ids may be huge gaps with a few clusters, such as UUIDs by time or numbers from 0 with one of
    2^63 among them. What a page has shown to be empty, or has read, is not drawn again, so gaps
    shrink by about a half with each draw that falls into them.
    """

    def __init__(self, kind: type, first: int, last: int) -> None:
        self.kind, self.free = kind, [(first, last)]

    def drawn(self, random: Random) -> int:
        place = random.randrange(sum(last - first + 1 for first, last in self.free))
        for first, last in self.free:
            if place <= last - first:
                return first + place
            place -= last - first + 1
        raise AssertionError("the place is within the sum of the intervals")

    def point(self, number: int) -> PointId:
        return number if self.kind is int else str(UUID(int=number))

    def close(self, start: int, points: list[StoredPoint], page: int) -> None:
        """Take out what a page from `start` on has covered."""
        own = [point.id for point in points if isinstance(point.id, self.kind)]
        end = LARGEST_UUID  # beyond all of this kind
        if len(own) == page:
            last = own[-1]
            end = last if isinstance(last, int) else UUID(last).int
        left = [(first, min(last, start - 1)) for first, last in self.free]
        right = [(max(first, end + 1), last) for first, last in self.free]
        self.free = [each for each in left + right if each[0] <= each[1]]


def _all(store: Store) -> Iterator[list[StoredPoint]]:
    offset: PointId | None = None
    while True:
        points, offset = store.scroll(PAGE, offset)
        if points:
            yield points
        if offset is None:
            return


def _spaces(store: Store) -> list[_Space]:
    """Return a space for each kind of id that the store holds."""
    spaces: list[_Space] = []
    first = _at(store, 0)
    if isinstance(first, int):
        spaces.append(_Space(int, first, _last_number(store, first)))
    if isinstance(_at(store, FIRST_UUID), str):
        spaces.append(_Space(str, 0, LARGEST_UUID))
    return spaces


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
