"""Held-out measures of a half-trained encoder: what Qdrant's user will get, and pay."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from csr_qdrant.trainer.model import Autoencoder
from csr_qdrant.trainer.ops import Active, Ops

NEIGHBOURS = 10
BLOCK = 1024  # rows at once
TIE = 1e-5  # cosines closer than that are equal: they are computed in two orders of summation


class AtK(NamedTuple):
    """Measures with k active latents, in queries and documents alike."""

    k: int
    recall: float  # recall@10 of the neighbours by dense (where there is one, adapted) vectors
    fvu: float  # fraction of variance unexplained by the reconstruction
    postings: float  # expected postings touched a query, as a multiple of the corpus size N
    longest_list: float  # share of the documents in the longest posting list


class Validation(NamedTuple):
    """One validation."""

    step: int
    dead: float  # share of latents that no document of the sample uses at the largest k
    at: tuple[AtK, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers."""
        at = [measure._asdict() for measure in self.at]
        return {"step": self.step, "dead": self.dead, "at": at}


@dataclass(frozen=True)
class Validator:
    """Held-out queries, a sample of documents, and how near the dense neighbours among them are."""

    queries: Tensor  # (m, d)
    documents: Tensor  # (n, d)
    needed: Tensor  # (m,) cosine of the tenth neighbour, or of the last if there are fewer

    @classmethod
    def of(cls, queries: Tensor, documents: Tensor) -> "Validator":
        """Find the dense neighbours by cosine."""
        unit, wanted = F.normalize(documents, dim=1), min(NEIGHBOURS, len(documents))
        needed = [
            (F.normalize(block, dim=1) @ unit.T).topk(wanted, dim=1).values[:, -1]
            for block in _blocks(queries)
        ]
        return cls(queries, documents, torch.cat(needed))

    @torch.no_grad()
    def measure(self, model: Autoencoder, ops: Ops, ks: tuple[int, ...], step: int) -> Validation:
        """Measure `model` at each k."""
        cuts, nothing = tuple(sorted(ks, reverse=True)), torch.empty(0, dtype=torch.int64)
        queries, documents = (
            ops.encode(x, model.weight, model.offset, cuts, nothing.to(x.device)).active
            for x in (self.queries, self.documents)
        )
        at = tuple(self._at(model, ops, queries.first(k), documents.first(k), k) for k in ks)
        unused = _usage(documents, len(model.latent_bias)) == 0
        return Validation(step, float(unused.float().mean()), at)

    def _at(self, model: Autoencoder, ops: Ops, queries: Active, documents: Active, k: int) -> AtK:
        h = len(model.latent_bias)
        lists = _usage(documents, h) / len(documents.values)  # share of documents in each list
        touched = _usage(queries, h) / len(queries.values)
        return AtK(
            k,
            self._recall(ops, queries, documents, h),
            self._fvu(model, ops, queries),
            float((lists * touched).sum()),
            float(lists.max()),
        )

    def _fvu(self, model: Autoencoder, ops: Ops, queries: Active) -> float:
        """Squared error over squared distance from the documents' mean."""

        def work(start: int, stop: int) -> Tensor:
            rows, k = slice(start, stop), queries.values.shape[1]
            error, _ = ops.decode(
                queries.rows(rows), k, model.weight, model.pre_bias, self.queries[rows]
            )
            return error.square().sum()

        error = float(sum(ops.over(len(self.queries), work)))
        variance = float((self.queries - self.documents.mean(0)).square().sum())
        return error / max(variance, 1e-12)

    def _recall(self, ops: Ops, queries: Active, documents: Active, h: int) -> float:
        """Share of the ten best by codes that are as near as the tenth neighbour.

        Rows that tie with it are as good as it; rows that share no latent are not found at all.
        """
        wanted = min(NEIGHBOURS, len(self.documents))
        asked, lists = queries.normalised(), ops.lists(documents.normalised(), h)

        def work(start: int, stop: int) -> int:
            hits = 0
            for first in range(start, stop, lists.block_rows):
                rows = slice(first, min(first + lists.block_rows, stop))
                best = lists.cosines(asked.rows(rows)).topk(wanted, dim=1)
                x = self.queries[rows, None]
                near = F.cosine_similarity(x, self.documents[best.indices], dim=2)
                good = (near >= self.needed[rows, None] - TIE) & (best.values > 0)
                hits += int(good.sum())
            return hits

        return sum(ops.over(len(self.queries), work)) / (len(self.queries) * wanted)


def _blocks(rows: Tensor) -> tuple[Tensor, ...]:
    blocks: tuple[Tensor, ...] = torch.split(rows, BLOCK)
    return blocks


def _usage(active: Active, h: int) -> Tensor:
    """Number of rows in which each latent is active, (h,)."""
    return torch.bincount(active.latents[active.values > 0], minlength=h).float()
