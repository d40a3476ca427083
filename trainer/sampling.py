"""Batches: which rows, labels and pairs each step sees, found from the seed and the step alone."""

from typing import NamedTuple, Protocol

import numpy as np

from csr_qdrant.trainer.data import Array, Batch, Index, Matches, Order, Split, gather
from csr_qdrant.trainer.supervision import Labels, Pairs


class Sampler(Protocol):
    """Makes the batch of any step."""

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps in which each training row appears once."""

    def at(self, step: int) -> Batch:
        """Return the batch of `step`."""


def sampler(
    vectors: Array,
    split: Split,
    labels: Labels | None,
    pairs: Pairs | None,
    batch_size: int,
    seed: int,
) -> Sampler:
    """Plan batches of at most `batch_size` rows of `vectors` that suit the supervision."""
    if pairs is not None:
        return PairSampler.of(vectors, split, pairs, batch_size, seed)
    if labels is not None:
        return LabelSampler.of(vectors, split, labels, batch_size, seed)
    return RowSampler(vectors, split, Order(split.training_rows, batch_size, (seed, 2)))


class RowSampler(NamedTuple):
    """Training rows, each once an epoch."""

    vectors: Array
    split: Split
    order: Order  # over training rows

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps in which each training row appears once."""
        return self.order.steps_per_epoch

    def at(self, step: int) -> Batch:
        """Return the batch of `step`."""
        return Batch(gather(self.vectors, self.split.training(self.order.at(step))))


class LabelSampler(NamedTuple):
    """Half a batch of training rows, each once an epoch, and for each one of the same label.

    With many labels, random rows alone would hardly ever share one.
    """

    vectors: Array
    labels: Labels
    split: Split
    order: Order  # over training rows
    by_label: Index  # training rows sorted by label, then by number, as label · n + row
    seed: int

    @classmethod
    def of(
        cls, vectors: Array, split: Split, labels: Labels, batch_size: int, seed: int
    ) -> "LabelSampler":
        """Sort the training rows by label."""
        rows = split.training(np.arange(split.training_rows))
        keys = (labels.of_row * len(vectors))[rows] + rows
        order = Order(split.training_rows, max(1, batch_size // 2), (seed, 2))
        return cls(vectors, labels, split, order, np.sort(keys), seed)

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps in which each training row appears once."""
        return self.order.steps_per_epoch

    def at(self, step: int) -> Batch:
        """Return the batch of `step`."""
        rows = self.split.training(self.order.at(step))
        rows = np.unique(np.concatenate([rows, self.partners(rows, step)]))
        return Batch(gather(self.vectors, rows), self.labels.of_row[rows])

    def partners(self, rows: Index, step: int) -> Index:
        """Return another training row of the same label for each of `rows`, or any if none is."""
        rng = np.random.default_rng((self.seed, 6, step))
        n, labels = len(self.vectors), self.labels.of_row[rows]
        start, stop = (np.searchsorted(self.by_label, (labels + more) * n) for more in (0, 1))
        alone = (labels < 0) | (stop - start < 2)
        start, stop = np.where(alone, 0, start), np.where(alone, len(self.by_label), stop)
        own = np.searchsorted(self.by_label, labels * n + rows)
        # Going on round the label's rows by less than their count never ends at the row itself.
        hops = rng.integers(1, np.maximum(stop - start, 2))
        found = self.by_label[start + (own - start + hops) % (stop - start)]
        return np.asarray(found % n)


class PairSampler(NamedTuple):
    """Half a batch of training rows and queries, half of pairs; each row in it stands once.

    Hard negatives of the pairs' queries come on top, one a pair at most.

    Pairs may name held-out rows: what validation measures, agreement with the dense neighbours, is
    not what pairs teach.
    """

    vectors: Array
    split: Split
    pairs: Pairs
    order: Order  # over training rows, and after them the queries
    pair_order: Order
    seed: int

    @classmethod
    def of(
        cls, vectors: Array, split: Split, pairs: Pairs, batch_size: int, seed: int
    ) -> "PairSampler":
        """Plan both halves."""
        order = Order(split.training_rows + len(pairs.queries), batch_size // 2, (seed, 2))
        pair_order = Order(len(pairs.query_rows), batch_size // 4, (seed, 3))
        return cls(vectors, split, pairs, order, pair_order, seed)

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps in which each training row appears once."""
        return self.order.steps_per_epoch

    def at(self, step: int) -> Batch:
        """Return the batch of `step`: its document rows, then its queries."""
        positions, chosen = self.order.at(step), self.pair_order.at(step)
        is_query = positions >= self.split.training_rows
        q, r = self.pairs.query_rows[chosen], self.pairs.document_rows[chosen]
        rng = np.random.default_rng((self.seed, 7, step))
        wrong = self.pairs.negatives_of(q, len(q), rng)
        plain = self.split.training(positions[~is_query])
        documents = np.unique(np.concatenate([plain, r, wrong]))
        queries = np.union1d(positions[is_query] - self.split.training_rows, q)
        x = np.concatenate(
            [gather(self.vectors, documents), gather(self.pairs.queries, queries, "the queries")]
        )
        matches = Matches(
            len(documents) + np.searchsorted(queries, q),
            np.searchsorted(documents, r),
            self.pairs.known(q, r, wrong),
            self.pairs.scores[chosen],
            np.searchsorted(documents, wrong),
        )
        return Batch(x, None, matches, len(documents))
