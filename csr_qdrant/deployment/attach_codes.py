"""From points as they were read to codes, and whether stored codes are still the right ones."""

from collections.abc import Sequence
from operator import mul
from typing import NamedTuple

import numpy as np

from csr_qdrant.codes import SparseCodes
from csr_qdrant.deployment.attach_config import BadPoint
from csr_qdrant.encoder import F32, Encoder
from csr_qdrant.errors import CsrError
from csr_qdrant.ids import PointId
from csr_qdrant.stores.writing import Code, CodedPoint

# Squared distance of two codes of norm 1 that count as the same. The weakest latents of a code can
# be so near to each other that rounding decides which of them is in.
TOLERANCE = 1e-3


class Vectors(NamedTuple):
    """Points that were read."""

    ids: list[PointId]
    dense: F32  # (n, d)
    stored: list[Code | None]  # the codes that the points have


class Encoded(NamedTuple):
    """The codes of points, and the points that have none."""

    ids: list[PointId]
    codes: SparseCodes  # (n, h) of `ids`, normalised, without empty rows
    without_code: list[PointId]  # no latent is active
    bad: list[BadPoint]


class Coder(NamedTuple):
    """Makes the codes of one collection."""

    encoder: Encoder
    k: int
    device: str | None

    def vectors(self, points: Sequence[CodedPoint]) -> Vectors:
        """Return the points that have a dense vector; another may have taken it away meanwhile."""
        kept = [point for point in points if point.dense is not None]
        dense = np.empty((len(kept), self.encoder.d), np.float32)
        for row, point in enumerate(kept):
            dense[row] = point.dense
        return Vectors([point.id for point in kept], dense, [point.code for point in kept])

    def encode(self, vectors: Vectors) -> Encoded:
        """Return the codes of the points that can have one."""
        ids, dense, _ = vectors
        finite = np.asarray(np.isfinite(dense).all(axis=1))
        directed = finite & np.asarray(dense.any(axis=1))
        bad = [
            BadPoint(ids[row], "all zeros" if finite[row] else "NaN or an infinity")
            for row in np.flatnonzero(~directed)
        ]
        kept = np.flatnonzero(directed)
        codes, overflowing = self._codes(dense if directed.all() else dense[kept])
        bad += [BadPoint(ids[kept[row]], "values too large") for row in overflowing]
        lengths = codes.lengths
        active = np.flatnonzero(lengths)
        overflown = set(overflowing)
        empty = [row for row in np.flatnonzero(lengths == 0).tolist() if row not in overflown]
        return Encoded(
            [ids[row] for row in kept[active]],
            (codes if lengths.all() else codes[active]).normalised(),
            [ids[row] for row in kept[empty]],
            bad,
        )

    def _codes(self, dense: F32, first: int = 0) -> tuple[SparseCodes, list[int]]:
        """Return codes, (n, h), and the rows whose products overflow; these have an empty code."""
        try:
            return self.encoder.encode(dense, self.k, device=self.device), []
        except CsrError:
            if len(dense) == 1:
                indices, values = np.zeros(0, np.uint32), np.zeros(0, np.float32)
                empty = SparseCodes(np.zeros(2, np.int64), indices, values, self.encoder.h)
                return empty, [first]
        middle = len(dense) // 2
        left, left_rows = self._codes(dense[:middle], first)
        right, right_rows = self._codes(dense[middle:], first + middle)
        return SparseCodes.concatenate([left, right]), left_rows + right_rows


class Compared(NamedTuple):
    """What is wrong with stored codes."""

    rows: list[int]  # of `Encoded`: their code is missing or another one
    surplus: list[PointId]  # points that have a code and should have none

    @property
    def wrong(self) -> int:
        """Points with a wrong code, a missing one or one too many."""
        return len(self.rows) + len(self.surplus)


def compare(vectors: Vectors, encoded: Encoded) -> Compared:
    """Compare the codes that points have with those that they should have."""
    stored = dict(zip(vectors.ids, vectors.stored, strict=True))
    pairs = zip(encoded.ids, encoded.codes.to_lists(), strict=True)
    rows = [row for row, (point, code) in enumerate(pairs) if not same(code, stored[point])]
    codeless = [*encoded.without_code, *(each.id for each in encoded.bad)]
    return Compared(rows, [point for point in codeless if stored[point] is not None])


def same(code: Code, stored: Code | None) -> bool:
    """Tell whether a stored code is `code`, up to rounding."""
    if stored is None:
        return False
    (indices, values), (other_indices, other_values) = code, stored
    if indices == other_indices:
        product = sum(map(mul, values, other_values))
    else:
        others = dict(zip(other_indices, other_values, strict=True))
        product = sum(v * others.get(i, 0.0) for i, v in zip(indices, values, strict=True))
    squares = sum(map(mul, values, values)) + sum(map(mul, other_values, other_values))
    return bool(squares - 2 * product <= TOLERANCE)
