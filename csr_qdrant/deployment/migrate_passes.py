"""The passes of `migrate`: copy all points, compare all points, remove what is gone."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from csr_qdrant.deployment.attach_bad import BadPoints
from csr_qdrant.deployment.attach_config import BadPoint
from csr_qdrant.deployment.attach_pages import Pace, Page, pass_over
from csr_qdrant.deployment.attach_passes import SETTLING_ROUNDS, OnPoints, Sample
from csr_qdrant.deployment.journal import Journal
from csr_qdrant.deployment.migrate_config import MigrateConfig
from csr_qdrant.deployment.migrate_pages import PageSize
from csr_qdrant.deployment.migrate_points import Made, Maker, ids_of
from csr_qdrant.errors import CsrError
from csr_qdrant.ids import PointId
from csr_qdrant.stores.whole_points import WholePoint, WholePoints

ID_PAGE = 1024
LOOK_SECONDS = 5.0  # how often it is looked whether a copy has come into use meanwhile


@dataclass
class Counts:
    """What has been done so far; the first three are of the latest pass over the source."""

    without_code: int = 0
    refused: int = 0
    unsettled: int = 0
    copied: int = 0
    mended: int = 0
    removed: int = 0


class _Done(NamedTuple):
    """What came of a page."""

    made: Made
    refused: list[BadPoint]
    mended: int = 0
    unsettled: int = 0


_Work = Callable[[list[WholePoint]], _Done]
_Finish = Callable[[Page[list[WholePoint]], _Done], object]


class Passes:
    """Goes over the points of a source and of its copy, as often as it takes."""

    def __init__(
        self,
        source: WholePoints,
        target: WholePoints,
        maker: Maker,
        config: MigrateConfig,
        on_points: OnPoints,
    ) -> None:
        """Prepare passes; `on_points` hears how far they are."""
        self._source, self._target, self._maker = source, target, maker
        self.counts, self.sample, self._done = Counts(), Sample(), 0
        self._threads = config.threads or target.threads
        self._size = PageSize(config.batch, multi=bool(source.layout().multi))
        self._pace = Pace(config.rate)
        self._on_points = on_points
        # Encoding uses all cores by itself; two threads at it would only take more memory.
        self._encoding = threading.Lock()
        self._unused: Callable[[], object] = lambda: None
        self._looked = time.monotonic()

    def watch(self, unused: Callable[[], object]) -> None:
        """Call `unused`, which raises if others use the copy, before anything there is lost."""
        self._unused = unused

    def copy(self, bad: BadPoints, journal: Journal) -> None:
        """Copy the points of the source from where the journal stands."""

        def work(points: list[WholePoint]) -> _Done:
            made = self._make(points)
            if time.monotonic() - self._looked >= LOOK_SECONDS:
                self._looked = time.monotonic()
                self._unused()
            return _Done(made, self._write(made.points))

        def finish(page: Page[list[WholePoint]], did: _Done) -> None:
            self.counts.copied += page.size - len(did.refused)
            self._note("copy", page, did, bad)
            journal.advance(page.size, page.following)

        self._over_source(work, finish, journal.offset)

    def verify(self, bad: BadPoints) -> None:
        """Compare all points of the source with the copy's, and copy those that differ."""

        def finish(page: Page[list[WholePoint]], did: _Done) -> None:
            self.counts.mended += did.mended
            self.counts.unsettled += did.unsettled
            self._note("verify", page, did, bad)

        self._over_source(self._mend, finish, None)

    def remove_gone(self) -> None:
        """Delete the points of the copy that the source does not have."""

        def read(offset: PointId | None) -> Page[list[PointId]]:
            ids, following = self._target.ids(ID_PAGE, offset)
            return Page(len(ids), ids, following)

        def work(ids: list[PointId]) -> int:
            there = self._source.existing(ids)
            gone = [point for point in ids if point not in there]
            if gone:
                self._unused()
                self._target.delete(gone)
            return len(gone)

        def finish(page: Page[list[PointId]], gone: int) -> None:
            self.counts.removed += gone

        pass_over(
            read,
            work,
            finish,
            start=None,
            threads=self._threads,
            pace=Pace(None),
            on_failure=self._stop_insisting,
        )

    def check_sample(self) -> tuple[int, int]:
        """Return how many points were compared once more, and how many differed."""
        looked = wrong = 0
        ids = self.sample.ids
        while ids:
            some, ids = ids[: self._size.limit], ids[self._size.limit :]
            found = self._source.fetch(some)
            self._size.saw(found)
            looked += len(found)
            wrong += len(self._differing(self._make(found).points))
        return looked, wrong

    def _over_source(self, work: _Work, finish: _Finish, start: PointId | None) -> None:
        def read(offset: PointId | None) -> Page[list[WholePoint]]:
            points, following = self._source.points(self._size.limit, offset)
            self._size.saw(points)
            return Page(len(points), points, following)

        self.counts.without_code = self.counts.refused = self.counts.unsettled = 0
        self.sample, self._done = Sample(), 0
        pass_over(
            read,
            work,
            finish,
            start=start,
            threads=self._threads,
            pace=self._pace,
            on_failure=self._stop_insisting,
        )

    def _stop_insisting(self) -> None:
        self._source.insist(False)
        self._target.insist(False)

    def _note(self, phase: str, page: Page[list[WholePoint]], did: _Done, bad: BadPoints) -> None:
        bad.add([*did.made.bad, *did.refused])
        self.counts.without_code += did.made.without_code
        self.counts.refused += len(did.refused)
        self.sample.add(ids_of(page.content))
        self._done += page.size
        self._on_points(phase, self._done, self._done)

    def _mend(self, points: list[WholePoint]) -> _Done:
        """Mend a page, and look again at what differed: others may have written meanwhile."""
        made = first = self._make(points)
        refused: dict[PointId, BadPoint] = {}
        mended = 0
        for _ in range(SETTLING_ROUNDS):
            differing = [p for p in self._differing(made.points) if p.id not in refused]
            if not differing:
                return _Done(first, list(refused.values()), mended)
            self._unused()
            new = self._write(differing)
            refused |= {each.id: each for each in new}
            mended += len(differing) - len(new)
            made = self._make(self._source.fetch(ids_of(differing)))
        left = [p for p in self._differing(made.points) if p.id not in refused]
        return _Done(first, list(refused.values()), mended, len(left))

    def _make(self, points: Sequence[WholePoint]) -> Made:
        with self._encoding:
            return self._maker.make(points)

    def _write(self, points: Sequence[WholePoint]) -> list[BadPoint]:
        """Write points over what is there; return those that the engine refused.

        Raises CsrError if it refused all of several and has taken none so far: then the fault is
        not theirs. Later on they may just be the bad ones of a page, which differ again and again.
        """
        refused = self._target.upsert(points) if points else []
        if len(refused) == len(points) > 1 and not self._target.size():
            raise CsrError(
                f"{self._target.location} refused all of {len(points)} points, and has no other: "
                f"{refused[0].reason}"
            )
        return [BadPoint(*each) for each in refused]

    def _differing(self, wanted: Sequence[WholePoint]) -> list[WholePoint]:
        stored = self._target.fetch(ids_of(wanted)) if wanted else []
        return self._maker.differing(wanted, stored)
