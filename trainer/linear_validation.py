"""Held-out measures of a linear adapter at each of its sizes."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from csr_qdrant.trainer.data import Array, Split, gather
from csr_qdrant.trainer.supervision import Labels
from csr_qdrant.trainer.validation import BLOCK, NEIGHBOURS, TIE, Validator

SAMPLE = 20_000  # documents that validation searches


class AtDims(NamedTuple):
    """Measures of the first `dims` outputs."""

    dims: int
    recall: float | None  # recall@10 of held-out rows' neighbours by the vectors as they came
    accuracy: float | None  # with labels: share of held-out rows whose nearest row has their label
    loss: float | None  # with pairs: that of the pairs of held-out queries


@dataclass(frozen=True)
class LinearValidator:
    """Held-out rows, a sample of the others, and what is near them by the vectors as they came."""

    queries: Tensor  # (m, d), scaled
    documents: Tensor  # (n, d), scaled
    needed: Tensor  # (m,) cosine of the tenth neighbour
    query_labels: Tensor | None  # (m,), −1: none
    document_labels: Tensor | None  # (n,)

    @classmethod
    def of(
        cls,
        vectors: Array,
        scale: float,
        split: Split,
        labels: Labels | None,
        seed: int,
        device: torch.device,
    ) -> "LinearValidator | None":
        """Choose the sample, and divide it by `scale`; None if no rows are held out."""
        if not len(split.held_out):
            return None
        rng = np.random.default_rng((seed, 5))
        count = min(split.training_rows, SAMPLE)
        chosen = rng.choice(split.training_rows, count, replace=False)
        rows = split.held_out, np.sort(split.training(chosen))
        queries, documents = (torch.from_numpy(gather(vectors, r)).to(device) / scale for r in rows)
        numbers: list[Any] = [None, None]
        if labels is not None:
            numbers = [torch.from_numpy(labels.of_row[r]).to(device) for r in rows]
        return cls(queries, documents, Validator.of(queries, documents).needed, *numbers)

    def recall(self, queries: Tensor, documents: Tensor) -> float:
        """Share of the ten nearest by adapted vectors that are as near as the tenth neighbour."""
        wanted, hits = min(NEIGHBOURS, len(documents)), 0
        for start in range(0, len(queries), BLOCK):
            rows = slice(start, start + BLOCK)
            found = _nearest(queries[rows], documents, wanted)
            near = F.cosine_similarity(self.queries[rows, None], self.documents[found], dim=2)
            hits += int((near >= self.needed[rows, None] - TIE).sum())
        return hits / (len(queries) * wanted)

    def accuracy(self, queries: Tensor, documents: Tensor) -> float | None:
        """Share of labelled held-out rows whose nearest labelled row has their label."""
        if self.query_labels is None or self.document_labels is None:
            return None
        asked, there = self.query_labels >= 0, self.document_labels >= 0
        if not (asked.any() and there.any()):
            return None
        given, known = self.query_labels[asked], self.document_labels[there]
        right, queries, documents = 0, queries[asked], documents[there]
        for start in range(0, len(queries), BLOCK):
            rows = slice(start, start + BLOCK)
            nearest = _nearest(queries[rows], documents, 1)[:, 0]
            right += int((known[nearest] == given[rows]).sum())
        return right / len(queries)


def _nearest(queries: Tensor, documents: Tensor, count: int) -> Tensor:
    cosines = F.normalize(queries, dim=1) @ F.normalize(documents, dim=1).T
    return cosines.topk(count, dim=1).indices
