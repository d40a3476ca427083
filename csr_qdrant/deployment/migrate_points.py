"""What becomes of a source's points in the copy, and whether the copy has them so."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from csr_qdrant.deployment.attach_codes import Coder, Vectors, same
from csr_qdrant.deployment.attach_config import BadPoint
from csr_qdrant.deployment.migrate_compare import EXACT, near, same_payload
from csr_qdrant.ids import PointId
from csr_qdrant.stores.records import packed
from csr_qdrant.stores.whole_points import WholePoint, is_sparse
from csr_qdrant.stores.writing import CodedPoint


class Made(NamedTuple):
    """Points as the copy should have them."""

    points: list[WholePoint]
    without_code: int  # no latent is active
    bad: list[BadPoint]  # NaN, infinite or zero: copied without a code


class Maker(NamedTuple):
    """Makes a copy's points of a source's."""

    coder: Coder | None  # None: codes are copied as they are
    vector: str  # the dense one that is encoded, or was
    name: str  # of the codes
    drops: bool  # whether the encoded vector is left out
    tolerances: Mapping[str, float]  # of dense vectors, see `migrate_compare.near`

    def make(self, points: Sequence[WholePoint]) -> Made:
        """Return the points as the copy should have them."""
        if self.coder is None:
            return Made([self._without_dense(point) for point in points], 0, [])
        encoded = self.coder.encode(self._dense(points))
        codes = dict(zip(encoded.ids, encoded.codes.to_lists(), strict=True))
        made = []
        for point in points:
            vectors = dict(self._without_dense(point).vectors)
            vectors.pop(self.name, None)
            if point.id in codes:
                vectors[self.name] = codes[point.id]
            made.append(point._replace(vectors=vectors))
        return Made(made, len(encoded.without_code), encoded.bad)

    def _without_dense(self, point: WholePoint) -> WholePoint:
        if not self.drops:
            return point
        kept = {name: each for name, each in point.vectors.items() if name != self.vector}
        return point._replace(vectors=kept)

    def _dense(self, points: Sequence[WholePoint]) -> Vectors:
        assert self.coder is not None
        # A multivector or a sparse one never stands under this name: the plan made sure.
        rows: list[tuple[PointId, Any]] = [
            (p.id, p.vectors[self.vector]) for p in points if self.vector in p.vectors
        ]
        return self.coder.vectors([CodedPoint(i, packed(row), None) for i, row in rows])

    def differing(
        self, wanted: Sequence[WholePoint], stored: Sequence[WholePoint]
    ) -> list[WholePoint]:
        """Return the wanted points that are not stored so."""
        found = {point.id: point for point in stored}
        return [each for each in wanted if not self._equal(each, found.get(each.id))]

    def _equal(self, wanted: WholePoint, stored: WholePoint | None) -> bool:
        if stored is None or wanted.vectors.keys() != stored.vectors.keys():
            return False
        vectors = all(self._kept(name, wanted, stored) for name in wanted.vectors)
        return vectors and same_payload(wanted.payload, stored.payload)

    def _kept(self, name: str, wanted: WholePoint, stored: WholePoint) -> bool:
        ours, theirs = wanted.vectors[name], stored.vectors[name]
        if self.coder is not None and name == self.name:  # made anew, where rounding decides
            return is_sparse(ours) and is_sparse(theirs) and same(ours, theirs)
        return near(ours, theirs, self.tolerances.get(name, EXACT))


def ids_of(points: Sequence[WholePoint]) -> list[PointId]:
    """Return the ids of points."""
    return [point.id for point in points]
