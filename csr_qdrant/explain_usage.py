"""How evenly a collection uses its latents, which is what a search in it costs."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from csr_qdrant.explain_names import WordCounts, text_of
from csr_qdrant.explain_sample import sample_points
from csr_qdrant.stores.base import Store

SAMPLE = 10_000


class Usage(NamedTuple):
    """What was counted in a sample of a collection's points."""

    points: int  # in the collection
    sampled: int
    without_code: int  # of the sampled
    documents: npt.NDArray[np.int64]  # (h,), of the sampled, in which each latent is active
    energy: npt.NDArray[np.float64]  # (h,), sum of the squared weights
    words: WordCounts | None  # of the sampled, if a field was named

    @property
    def complete(self) -> bool:
        """Whether all points were read, so that counts are exact."""
        return self.sampled >= self.points

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """Share of the documents in each latent's posting list, (h,)."""
        return self.documents / max(1, self.sampled)

    @property
    def dead(self) -> npt.NDArray[np.int64]:
        """Latents that no sampled document uses."""
        return np.flatnonzero(self.documents == 0)

    @property
    def dead_share_bound(self) -> float:
        """What share of documents may use such a latent at most, with 95 % confidence.

        Zero if all points were read. Otherwise 1 − 0.05^(1/n), for n points drawn independently,
        which pages of a sample are only about.
        """
        return 0.0 if self.complete or not self.sampled else 1 - 0.05 ** (1 / self.sampled)

    @property
    def postings_per_query(self) -> float:
        """Postings that a query touches, as a multiple of the points, if it is like a document."""
        return float(np.square(self.shares).sum())

    @property
    def effective_latents(self) -> float:
        """How many latents, used evenly, would make lists that cost as much: (Σp)² / Σp²."""
        squares = self.postings_per_query
        return float(self.shares.sum() ** 2 / squares) if squares else 0.0

    def longest(self, n: int) -> list[int]:
        """Return the `n` latents with the longest posting lists, dead ones left out."""
        return _largest(self.documents, n)

    def heaviest(self, n: int) -> list[int]:
        """Return the `n` latents with the most energy: those that make most of the scores."""
        return _largest(self.energy, n)


def latent_usage(store: Store, sample: int = SAMPLE, text: str | None = None) -> Usage:
    """Count the latents of at most `sample` points, and the words of their field `text`.

    Memory is that of one page of points. Raises ConfigError for a sample below 1.
    """
    h, total = store.schema.h, store.count()
    documents, energy = np.zeros(h, np.int64), np.zeros(h, np.float64)
    words = WordCounts() if text else None
    sampled = empty = 0
    for page in sample_points(store, sample):
        for point in page:
            indices, values = point.code or ([], [])
            empty += not indices
            documents[indices] += 1
            energy[indices] += np.square(np.asarray(values, np.float64))
            if words is not None and text:
                words.add(text_of(point.payload, text))
        sampled += len(page)
    return Usage(total, sampled, empty, documents, energy, words)


def _largest(values: npt.NDArray[np.float64] | npt.NDArray[np.int64], n: int) -> list[int]:
    order = np.argsort(-values, kind="stable")[:n]
    return [int(latent) for latent in order if values[latent] > 0]
