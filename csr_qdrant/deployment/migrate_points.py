"""What becomes of a source's points in the copy, and whether the copy has them so."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from csr_qdrant.deployment.attach_codes import Coder, Vectors, same
from csr_qdrant.deployment.attach_config import BadPoint
from csr_qdrant.ids import PointId
from csr_qdrant.stores.records import packed
from csr_qdrant.stores.whole_points import Vector, WholePoint, is_sparse
from csr_qdrant.stores.writing import CodedPoint

TOLERANCE = 1e-5  # of a value, against the longest of its row: norms are taken anew in the copy
ROUGH = 2e-3  # of vectors kept as float16, which such a step rounds


class Made(NamedTuple):
    """Points as the copy should have them."""

    points: list[WholePoint]
    without_code: int  # no latent is active
    bad: list[BadPoint]  # NaN, infinite or zero: copied without a code


class Maker(NamedTuple):
    """Makes a copy's points of a source's."""

    coder: Coder | None  # None: codes are copied as they are
    vector: str  # the dense one that is encoded
    name: str  # of the codes
    drops: bool  # whether the encoded vector is left out
    rough: frozenset[str]  # vectors kept as float16

    def make(self, points: Sequence[WholePoint]) -> Made:
        """Return the points as the copy should have them."""
        if self.coder is None:
            return Made(list(points), 0, [])
        encoded = self.coder.encode(self._dense(points))
        codes = dict(zip(encoded.ids, encoded.codes.to_lists(), strict=True))
        left = {self.name, *([self.vector] if self.drops else [])}
        made = []
        for point in points:
            vectors = {name: each for name, each in point.vectors.items() if name not in left}
            if point.id in codes:
                vectors[self.name] = codes[point.id]
            made.append(WholePoint(point.id, vectors, point.payload))
        return Made(made, len(encoded.without_code), encoded.bad)

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
        if stored is None or wanted.payload != stored.payload:
            return False
        if wanted.vectors.keys() != stored.vectors.keys():
            return False
        return all(
            _near(each, stored.vectors[name], ROUGH if name in self.rough else TOLERANCE)
            for name, each in wanted.vectors.items()
        )


def ids_of(points: Sequence[WholePoint]) -> list[PointId]:
    """Return the ids of points."""
    return [point.id for point in points]


def _near(wanted: Vector, stored: Vector, tolerance: float) -> bool:
    if is_sparse(wanted) or is_sparse(stored):
        return is_sparse(wanted) and is_sparse(stored) and _same_sparse(wanted, stored)
    ours, theirs = np.asarray(wanted, np.float64), np.asarray(stored, np.float64)
    if ours.shape != theirs.shape:
        return False
    finite = ours[np.isfinite(ours)]
    largest = float(np.abs(finite).max()) if finite.size else 0.0
    return bool(np.allclose(ours, theirs, rtol=tolerance, atol=tolerance * largest, equal_nan=True))


def _same_sparse(
    wanted: tuple[list[int], list[float]], stored: tuple[list[int], list[float]]
) -> bool:
    if not wanted[0] or not stored[0]:
        return not wanted[0] and not stored[0]
    # Those of others have no norm of 1: compare them as if they had.
    scale = float(np.linalg.norm(wanted[1])) or 1.0
    ours = (wanted[0], [value / scale for value in wanted[1]])
    return same(ours, (stored[0], [value / scale for value in stored[1]]))
