"""What a trainer may know beside the vectors: labels of rows, or pairs that belong together."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from csr_qdrant.errors import CsrError
from csr_qdrant.trainer.data import Array, Batch, Index, Order, Split, check_vectors, gather


@dataclass(frozen=True)
class Labels:
    """One label a row; (n,) integers from 0 on, −1 where there is none."""

    of_row: Index

    @classmethod
    def of(cls, labels: npt.ArrayLike, n: int) -> "Labels":
        """Number any labels (integers, strings) for `n` rows.

        Raises CsrError if their count is not n, or all are the same.
        """
        array = np.asarray(labels)
        if array.ndim != 1 or len(array) != n:
            raise CsrError(f"labels must be one a row: {n} rows, got labels of shape {array.shape}")
        names, of_row = np.unique(array, return_inverse=True)
        if len(names) < 2:
            raise CsrError("labels must differ, got a single label: train without --labels")
        return cls(of_row.astype(np.int64))


@dataclass(frozen=True)
class Pairs:
    """Queries, and which documents (rows of the training vectors) answer them."""

    queries: Array  # (m, d)
    query_rows: Index  # (p,) rows of `queries`
    document_rows: Index  # (p,) rows of the training vectors
    scores: npt.NDArray[np.float32]  # (p,) above 0

    @classmethod
    def of(
        cls,
        queries: Array,
        query_rows: npt.ArrayLike,
        document_rows: npt.ArrayLike,
        scores: npt.ArrayLike | None = None,
    ) -> "Pairs":
        """Make pairs, leaving out those with a score of 0 or less."""
        check_vectors(queries, "the query vectors")
        q, r = np.asarray(query_rows, np.int64), np.asarray(document_rows, np.int64)
        s = np.ones(len(q), np.float32) if scores is None else np.asarray(scores, np.float32)
        if not len(q) == len(r) == len(s):
            raise CsrError(f"pairs need equal counts, got {len(q)}, {len(r)} and {len(s)}")
        kept = s > 0
        if not kept.any():
            raise CsrError("pairs need at least one with a score above 0, got none")
        return cls(queries, q[kept], r[kept], s[kept])

    def check(self, vectors: Array) -> None:
        """Raise CsrError if a pair names a row that does not exist, or dimensions differ."""
        if self.queries.shape[1] != vectors.shape[1]:
            raise CsrError(
                f"queries and documents need equal dimensions, got {self.queries.shape[1]} "
                f"and {vectors.shape[1]}: embed both with one model"
            )
        for name, rows, n in (
            ("query", self.query_rows, len(self.queries)),
            ("document", self.document_rows, len(vectors)),
        ):
            if rows.min() < 0 or rows.max() >= n:
                raise CsrError(f"pairs name {name} row {rows.max()}, but there are {n} rows")


class Sampler(NamedTuple):
    """Makes the batch of any step from the vectors and the supervision."""

    vectors: Array
    split: Split
    labels: Labels | None
    pairs: Pairs | None
    order: Order  # over training rows, and after them the queries
    pair_order: Order | None

    @classmethod
    def of(
        cls,
        vectors: Array,
        split: Split,
        labels: Labels | None,
        pairs: Pairs | None,
        batch_size: int,
        seed: int,
    ) -> "Sampler":
        """Plan batches of `batch_size` rows: half of them for pairs, where there are pairs."""
        n = split.training_rows + (len(pairs.queries) if pairs else 0)
        if pairs is None:
            return cls(vectors, split, labels, None, Order(n, batch_size, (seed, 2)), None)
        order = Order(n, batch_size // 2, (seed, 2))
        pair_order = Order(len(pairs.query_rows), max(1, batch_size // 4), (seed, 3))
        return cls(vectors, split, labels, pairs, order, pair_order)

    def at(self, step: int) -> Batch:
        """Return the batch of `step`."""
        positions = self.order.at(step)
        if self.pairs is None or self.pair_order is None:
            rows = self.split.training(positions)
            labels = None if self.labels is None else self.labels.of_row[rows]
            return Batch(gather(self.vectors, rows), labels)
        return self._with_pairs(self.pairs, positions, self.pair_order.at(step))

    def _with_pairs(self, pairs: Pairs, positions: Index, chosen: Index) -> Batch:
        is_query = positions >= self.split.training_rows
        documents = self.split.training(positions[~is_query])
        queries = positions[is_query] - self.split.training_rows
        q, r = pairs.query_rows[chosen], pairs.document_rows[chosen]
        document_rows = gather(self.vectors, np.concatenate([documents, r]))
        query_rows = gather(pairs.queries, np.concatenate([queries, q]), "the query vectors")
        parts = (
            document_rows[: len(documents)],
            query_rows,
            document_rows[len(documents) :],
        )
        known = same_pair(q, r)
        return Batch(np.concatenate(parts), None, len(chosen), known, pairs.scores[chosen])


def same_pair(query_rows: Index, document_rows: Index) -> Any:
    """Return (p, p) bool: entries off the diagonal that share a query or a document."""
    known = (query_rows[:, None] == query_rows) | (document_rows[:, None] == document_rows)
    np.fill_diagonal(known, False)
    return known
