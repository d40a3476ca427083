"""What a linear adapter learns from: batches of rows, of labelled rows, or of pairs alone."""

from typing import NamedTuple

import numpy as np

from csr_qdrant.trainer.data import Array, Batch, Index, Matches, Order, Split, gather
from csr_qdrant.trainer.sampling import Sampler, sampler
from csr_qdrant.trainer.supervision import Labels, Pairs


class MatchSampler(NamedTuple):
    """Batches of pairs and of their hard negatives, as those that a folded adapter learns from.

    A row that is in several pairs of a batch stands in it as often.
    """

    vectors: Array
    pairs: Pairs
    chosen: Index  # (p,) which of the pairs
    order: Order  # over them
    seed: int

    @classmethod
    def of(
        cls, vectors: Array, pairs: Pairs, chosen: Index, batch_size: int, seed: int
    ) -> "MatchSampler":
        """Plan batches of at most `batch_size` of the `chosen` pairs."""
        return cls(vectors, pairs, chosen, Order(len(chosen), batch_size, (seed, 4)), seed)

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps in which each pair appears once."""
        return self.order.steps_per_epoch

    def at(self, step: int) -> Batch:
        """Return the batch of `step`: documents of the pairs, hard negatives, queries."""
        pairs, chosen = self.pairs, self.chosen[self.order.at(step)]
        q, r = pairs.query_rows[chosen], pairs.document_rows[chosen]
        wrong = pairs.negatives_of(q, len(q), np.random.default_rng((self.seed, 8, step)))
        documents = gather(self.vectors, np.concatenate([r, wrong]))
        x = np.concatenate([documents, gather(pairs.queries, q, "the query vectors")])
        p, m = len(q), len(wrong)
        matches = Matches(
            np.arange(p) + p + m,
            np.arange(p),
            pairs.known(q, r, wrong),
            pairs.scores[chosen],
            np.arange(p, p + m),
        )
        return Batch(x, None, matches)


class Batches(NamedTuple):
    """What is trained on, and what is kept from it."""

    training: Sampler
    split: Split  # of the rows
    held_out_pairs: MatchSampler | None = None  # all pairs of some queries


def plan_batches(
    vectors: Array,
    labels: Labels | None,
    pairs: Pairs | None,
    *,
    batch_size: int,
    held_out: int,
    seed: int,
) -> Batches:
    """Plan batches that suit the supervision; at most `held_out` rows and queries are kept.

    Pairs may name held-out rows, as in `sampling.PairSampler`.
    """
    split = Split.random(len(vectors), held_out, seed)
    if pairs is None:
        return Batches(sampler(vectors, split, labels, None, batch_size, seed), split)
    asked = np.unique(pairs.query_rows)
    kept = asked[Split.random(len(asked), held_out, seed).held_out]
    is_kept = np.isin(pairs.query_rows, kept)
    made = (
        MatchSampler.of(vectors, pairs, np.flatnonzero(part), batch_size, seed)
        for part in (~is_kept, is_kept)
    )
    training, validation = made
    return Batches(training, split, validation if is_kept.any() else None)
