"""What a trainer may know beside the vectors: labels of rows, or pairs that belong together."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.trainer.data import Array, Index, check_vectors


@dataclass(frozen=True)
class Labels:
    """One label a row; (n,) integers from 0 on, −1 where there is none."""

    of_row: Index

    @property
    def classes(self) -> int:
        """Number of different labels."""
        return int(self.of_row.max()) + 1

    @classmethod
    def of(cls, labels: npt.ArrayLike, n: int) -> "Labels":
        """Number any labels (integers, strings) for `n` rows; None, NaN and "" mean no label.

        Raises CsrError if their count is not n, or they do not tell rows apart.
        """
        array = np.asarray(labels)
        if array.ndim != 1 or len(array) != n:
            raise CsrError(f"labels must be one a row: {n} rows, got labels of shape {array.shape}")
        given = _given(array)
        try:
            names, numbers = np.unique(array[given], return_inverse=True)
        except TypeError:
            raise CsrError("labels must be all numbers or all strings, got a mixture") from None
        if len(names) < 2:
            some = "a single label" if len(names) else "none at all"
            raise CsrError(f"labels must differ, got {some}: train without labels")
        if len(names) == len(numbers):
            raise CsrError("labels must be shared by rows, got a different one for each")
        of_row = np.full(n, -1, np.int64)
        of_row[given] = numbers
        return cls(of_row)


def _given(labels: Array) -> npt.NDArray[np.bool_]:
    """Tell which rows have a label, (n,)."""
    if labels.dtype.kind == "f":
        return ~np.isnan(labels)
    if labels.dtype.kind in "US":
        return np.asarray(np.char.str_len(labels) > 0)
    if labels.dtype.kind == "O":
        missing = (each is None or each == "" or each != each for each in labels)
        return ~np.fromiter(missing, np.bool_, len(labels))
    return np.ones(len(labels), np.bool_)


@dataclass(frozen=True)
class Pairs:
    """Queries, and which documents (rows of the training vectors) answer them."""

    queries: Array  # (m, d)
    query_rows: Index  # (p,) rows of `queries`
    document_rows: Index  # (p,) rows of the training vectors
    scores: npt.NDArray[np.float32]  # (p,) above 0
    negatives: Index = field(default_factory=lambda: np.empty((0, 2), np.int64))
    # (m, 2) rows of queries and of documents that are known not to answer them, sorted

    @classmethod
    def of(
        cls,
        queries: Array,
        query_rows: npt.ArrayLike,
        document_rows: npt.ArrayLike,
        scores: npt.ArrayLike | None = None,
    ) -> "Pairs":
        """Make pairs; those with a score of 0 or less are hard negatives of their query."""
        check_vectors(queries, "the query vectors")
        q, r = np.asarray(query_rows, np.int64), np.asarray(document_rows, np.int64)
        s = np.ones(len(q), np.float32) if scores is None else np.asarray(scores, np.float32)
        if not len(q) == len(r) == len(s):
            raise CsrError(f"pairs need equal counts, got {len(q)}, {len(r)} and {len(s)}")
        if not np.isfinite(s).all():
            raise CsrError("scores of pairs must be finite, got NaN or infinity")
        kept = s > 0
        if not kept.any():
            raise CsrError("pairs need at least one with a score above 0, got none")
        negatives = np.unique(np.stack([q[~kept], r[~kept]], 1), axis=0)
        return cls(queries, q[kept], r[kept], s[kept], negatives)

    def negatives_of(self, query_rows: Index, most: int, rng: np.random.Generator) -> Index:
        """Return up to `most` different documents that do not answer some of the queries."""
        if not len(self.negatives):
            return self.negatives[:, 1]
        wanted = np.isin(self.negatives[:, 0], query_rows)
        documents = np.unique(self.negatives[wanted, 1])
        return np.sort(rng.permutation(documents)[:most])

    def known(self, query_rows: Index, documents: Index, negatives: Index) -> Any:
        """Return (p, p + m) bool: which other pairs in a batch are no negatives.

        Args:
            query_rows: rows of the p queries.
            documents: rows of the p documents.
            negatives: rows of m more documents.
        """
        square = same_pair(query_rows, documents)
        if not len(negatives):
            return square
        n = max(int(self.document_rows.max()), int(negatives.max(initial=0))) + 1
        answers = self.query_rows * n + self.document_rows
        asked = np.isin(query_rows[:, None] * n + negatives, answers)
        return np.concatenate([square, asked], axis=1)

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
            ("query", self.negatives[:, 0], len(self.queries)),
            ("document", self.negatives[:, 1], len(vectors)),
        ):
            missing = rows[(rows < 0) | (rows >= n)]
            if len(missing):
                raise CsrError(
                    f"pairs name {name} row {missing[0]}, but there are {n}: rows count from 0"
                )


def checked_supervision(vectors: Array, labels: Any, pairs: Pairs | None) -> Labels | None:
    """Check what a training is given beside `vectors` (n, d), and return its labels, numbered.

    Raises ConfigError for labels and pairs together, CsrError for either that does not fit.
    """
    if labels is not None and pairs is not None:
        raise ConfigError("labels and pairs cannot be learned together: give one of them")
    if pairs is not None:
        pairs.check(vectors)
    return None if labels is None else Labels.of(labels, len(vectors))


def same_pair(query_rows: Index, document_rows: Index) -> Any:
    """Return (p, p) bool: entries off the diagonal that share a query or a document.

    They are no negatives: the query of the one is answered by the document of the other.
    """
    known = (query_rows[:, None] == query_rows) | (document_rows[:, None] == document_rows)
    np.fill_diagonal(known, False)
    return known
