"""What `tune` reads of stored codes: how long lists are, and whether points can be asked."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.codes import SparseCodes
from csr_qdrant.collection import Collection
from csr_qdrant.deployment.attach_codes import same
from csr_qdrant.errors import ConfigError
from csr_qdrant.ids import PointId
from csr_qdrant.stores.writing import Code

IDS_AT_ONCE = 100  # points that are retrieved with their vectors
OTHER_CODES = 0.1  # of the sampled points, that rounding may give


class Postings(NamedTuple):
    """How often documents use each latent, from the stored codes of a sample of them."""

    collection: Collection
    queries: Matrix  # (m, d)
    shares: npt.NDArray[np.float64]  # (h,): of the documents, that use a latent
    points: int  # of the collection

    @classmethod
    def of(
        cls, collection: Collection, documents: Sequence[PointId], queries: Matrix, points: int
    ) -> "Postings":
        """Count the latents of the sampled documents; `queries` (m, d) are those to be asked."""
        counts = np.zeros(collection.encoder.h)
        for code in stored_codes(collection, documents):
            if code is not None:
                counts[code[0]] += 1
        shares = counts / max(1, len(documents))
        return cls(collection, queries, shares, points)

    def touched(self, k: int) -> float:
        """Return the entries that a query of k latents touches, on average over the queries."""
        codes: SparseCodes = self.collection.encode(self.queries, k, name="the queries")
        return float(self.shares[codes.indices].sum() / len(codes) * self.points)


def stored_codes(collection: Collection, ids: Sequence[PointId]) -> Iterator[Code | None]:
    """Yield the codes of points in this order, None where there is none."""
    for start in range(0, len(ids), IDS_AT_ONCE):
        some = ids[start : start + IDS_AT_ONCE]
        found = {point.id: point.code for point in collection.store.retrieve(some)}
        yield from (found.get(point) for point in some)


def check_norms(collection: Collection, own: Sequence[PointId | None], vectors: Matrix) -> None:
    """Raise ConfigError if sampled points cannot stand for queries, for they lost their norms.

    A collection of csr-qdrant's own keeps dense vectors at norm 1. Where its codes were made of
    vectors of other norms, those of the kept vectors are other codes.
    """
    if collection.store.schema.attached or not len(own) or own[0] is None:
        return
    ids = [point for point in own if point is not None]
    made = collection.encode(vectors, collection.identity.k, name="the queries")
    pairs = zip(made.normalised().to_lists(), stored_codes(collection, ids), strict=True)
    other = sum(stored is not None and not same(code, stored) for code, stored in pairs)
    if other > OTHER_CODES * len(ids):
        raise ConfigError(
            f"{other} of {len(ids)} sampled points have other codes than the vectors that "
            f"{collection.store.location} keeps, which are at norm 1: their own norms are lost, so "
            "they cannot stand for queries; give some with --vectors"
        )
