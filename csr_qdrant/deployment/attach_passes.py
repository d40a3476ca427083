"""The two kinds of passes of `attach`: over points that lack a code, and over all codes."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from csr_qdrant.deployment.attach_bad import BadPoints
from csr_qdrant.deployment.attach_codes import Coder, Encoded, Vectors, compare
from csr_qdrant.deployment.attach_config import AttachConfig, AttachPlan, BadPoint
from csr_qdrant.deployment.attach_pages import Pace, Page, pass_over
from csr_qdrant.deployment.journal import Journal
from csr_qdrant.errors import CsrError
from csr_qdrant.ids import PointId
from csr_qdrant.stores.writing import CodeWriter

PAGE_VALUES = 2**20  # numbers of dense vectors a page: 32 MiB as the engine gives them
SETTLING_ROUNDS = 3  # how often a page is looked at again whose points change meanwhile
SAMPLE = 1000
OnPoints = Callable[[str, int, int], None]  # phase, points done in it, points in all


@dataclass
class Counts:
    """What has been done so far; the first two are of the latest pass."""

    without_code: int = 0
    written_in_pass: int = 0
    written: int = 0
    rewritten: int = 0
    removed: int = 0
    unsettled: int = 0


@dataclass
class Sample:
    """A draw from all ids that go by, every one as likely as any other (algorithm R)."""

    size: int = SAMPLE
    seen: int = 0
    ids: list[PointId] = field(default_factory=list)
    random: Random = field(default_factory=lambda: Random(0))

    def add(self, ids: list[PointId]) -> None:
        """Let ids go by."""
        for point in ids:
            self.seen += 1
            if len(self.ids) < self.size:
                self.ids.append(point)
            elif (place := self.random.randrange(self.seen)) < self.size:
                self.ids[place] = point


class _Checked(NamedTuple):
    """What the verifying of a page came to."""

    rewritten: int
    removed: list[BadPoint | None]  # why each code was removed; None: no latent is active
    unsettled: int


class Passes:
    """Goes over the points of one collection, as often as it takes."""

    def __init__(
        self,
        writer: CodeWriter,
        coder: Coder,
        plan: AttachPlan,
        config: AttachConfig,
        on_points: OnPoints,
    ) -> None:
        """Prepare passes over the collection of `writer`; `on_points` hears how far they are."""
        self.writer, self.coder, self.plan = writer, coder, plan
        self.counts, self.sample = Counts(), Sample()
        self._threads = config.threads or writer.threads
        self._limit = max(1, min(config.batch, PAGE_VALUES // plan.dimension))
        self._pace = Pace(config.rate)
        self._on_points = on_points
        # Encoding uses all cores by itself; two threads at it would only take more memory.
        self._encoding = threading.Lock()

    # --- what lacks a code -------------------------------------------------------------------

    def backfill(self, bad: BadPoints, start: PointId | None, journal: Journal | None) -> int:
        """Write the codes of points from `start` on that have none; return how many it wrote."""
        counts, done = self.counts, 0
        counts.without_code = counts.written_in_pass = 0

        def finish(page: Page[Vectors], did: tuple[Encoded, list[BadPoint]]) -> None:
            nonlocal done
            encoded, refused = did
            bad.add([*encoded.bad, *refused])
            counts.without_code += len(encoded.without_code)
            counts.written_in_pass += len(encoded.ids) - len(refused)
            not_written = {each.id for each in refused}
            self.sample.add([point for point in encoded.ids if point not in not_written])
            done += page.size
            if page.size:  # the last pass looks in vain
                self._on_points("backfill", done, max(done, self.plan.lacking))
            if journal is not None:
                journal.advance(page.size, page.following)

        pass_over(
            lambda offset: self._page(offset, lacking=True),
            self._write,
            finish,
            start=start,
            threads=self._threads,
            pace=self._pace,
            on_failure=lambda: self.writer.insist(False),
        )
        counts.written += counts.written_in_pass
        return counts.written_in_pass

    def _write(self, vectors: Vectors) -> tuple[Encoded, list[BadPoint]]:
        encoded = self._encode(vectors)
        if not encoded.ids:
            return encoded, []
        refused = self.writer.write(self.plan.name, encoded.ids, encoded.codes, only_new=True)
        if len(refused) == len(encoded.ids) > 1 and not self._any_code:
            raise CsrError(
                f"{self.plan.location} refused the codes of all of {len(refused)} points, and no "
                f"other has one: {refused[0].reason}"
            )
        return encoded, [BadPoint(*each) for each in refused]

    @property
    def _any_code(self) -> bool:
        """Whether some point has a code: then refusals are the fault of the points refused."""
        had_before = self.plan.lacking < self.plan.points
        return had_before or bool(self.counts.written or self.counts.written_in_pass)

    # --- all codes ---------------------------------------------------------------------------

    def verify(self, bad: BadPoints, journal: Journal) -> None:
        """Encode every stored vector once more and mend codes that are missing or others.

        Points whose code had to be removed are `bad`, too: they had one when the rest was found.
        """
        counts, done = self.counts, 0

        def finish(page: Page[Vectors], checked: _Checked) -> None:
            nonlocal done
            counts.rewritten += checked.rewritten
            counts.removed += len(checked.removed)
            counts.without_code += checked.removed.count(None)
            bad.add([each for each in checked.removed if each is not None])
            counts.unsettled += checked.unsettled
            done += page.size
            self._on_points("verify", done, max(done, self.plan.points))
            journal.advance(page.size, page.following)

        pass_over(
            lambda offset: self._page(offset, lacking=False),
            self._mend,
            finish,
            start=journal.offset,
            threads=self._threads,
            pace=self._pace,
            on_failure=lambda: self.writer.insist(False),
        )

    def _mend(self, vectors: Vectors) -> _Checked:
        """Mend the codes of a page; look again at those that were wrong, until none is.

        A point may be written by others between our reading it and our writing of its code, which
        would then be that of the old vector: hence the second look.
        """
        rewritten = 0
        removed: dict[PointId, BadPoint | None] = {}
        for _ in range(SETTLING_ROUNDS):
            encoded = self._encode(vectors)
            wrong = compare(vectors, encoded)
            for point in encoded.ids:  # its vector is another one by now
                removed.pop(point, None)
            if not wrong.wrong:
                return _Checked(rewritten, list(removed.values()), 0)
            ids = [encoded.ids[row] for row in wrong.rows]
            refused = self._replace(ids, encoded, wrong.rows)
            rewritten += len(ids) - len(refused)
            why = {each.id: each for each in encoded.bad} | refused
            old = dict(zip(vectors.ids, vectors.stored, strict=True))
            # A code that cannot be replaced is that of another vector: worse than none.
            surplus = wrong.surplus + [point for point in refused if old[point] is not None]
            if surplus:
                self.writer.remove(self.plan.name, surplus)
            removed |= {point: why.get(point) for point in surplus}
            again = [point for point in ids if point not in refused] + wrong.surplus
            vectors = self._retrieve(again)
        left = compare(vectors, self._encode(vectors)).wrong
        return _Checked(rewritten, list(removed.values()), left)

    def _replace(
        self, ids: list[PointId], encoded: Encoded, rows: list[int]
    ) -> dict[PointId, BadPoint]:
        """Write codes over others; return the points that the engine refused."""
        if not ids:
            return {}
        codes = encoded.codes[rows]
        refused = self.writer.write(self.plan.name, ids, codes, only_new=False)
        return {each.id: BadPoint(*each) for each in refused}

    def remove_orphans(self) -> None:
        """Remove codes of points that have lost the dense vector."""
        vector, name = self.plan.vector, self.plan.name
        self.counts.removed += self.writer.count(name, vector)
        self.writer.remove_orphans(vector, name)

    # --- a look at the end -------------------------------------------------------------------

    def check_sample(self) -> tuple[int, int]:
        """Return how many codes of this run were looked at once more, and how many were wrong."""
        looked = wrong = 0
        for start in range(0, len(self.sample.ids), self._limit):
            some = self.sample.ids[start : start + self._limit]
            vectors = self._retrieve(some)
            looked += len(vectors.ids)
            wrong += compare(vectors, self._encode(vectors)).wrong
        return looked, wrong

    def _page(self, offset: PointId | None, *, lacking: bool) -> Page[Vectors]:
        points, following = self.writer.page(
            self.plan.vector, self.plan.name, self._limit, offset, lacking=lacking
        )
        return Page(len(points), self.coder.vectors(points), following)

    def _retrieve(self, ids: list[PointId]) -> Vectors:
        return self.coder.vectors(self.writer.retrieve(self.plan.vector, self.plan.name, ids))

    def _encode(self, vectors: Vectors) -> Encoded:
        with self._encoding:
            return self.coder.encode(vectors)
