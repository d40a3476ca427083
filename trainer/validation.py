"""Held-out measures of a half-trained encoder: what Qdrant's user will get, and pay."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from csr_qdrant.trainer.model import Active, Autoencoder, densify

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
    def measure(self, model: Autoencoder, ks: tuple[int, ...], step: int) -> Validation:
        """Measure `model` at each k."""
        queries = _encode(model, self.queries, max(ks))
        documents = _encode(model, self.documents, max(ks))
        at = tuple(self._at(model, queries.first(k), documents.first(k), k) for k in ks)
        unused = _usage(documents, len(model.latent_bias)) == 0
        return Validation(step, float(unused.float().mean()), at)

    def _at(self, model: Autoencoder, queries: Active, documents: Active, k: int) -> AtK:
        h = len(model.latent_bias)
        lists = _usage(documents, h) / len(documents.values)  # share of documents in each list
        touched = _usage(queries, h) / len(queries.values)
        return AtK(
            k,
            self._recall(queries, documents, h),
            self._fvu(model, queries),
            float((lists * touched).sum()),
            float(lists.max()),
        )

    def _fvu(self, model: Autoencoder, queries: Active) -> float:
        """Squared error over squared distance from the documents' mean."""
        error = sum(
            float((model.decode(codes) - x).square().sum())
            for codes, x in zip(_parts(queries), _blocks(self.queries), strict=True)
        )
        variance = float((self.queries - self.documents.mean(0)).square().sum())
        return error / max(variance, 1e-12)

    def _recall(self, queries: Active, documents: Active, h: int) -> float:
        """Share of the ten best by codes that are as near as the tenth neighbour.

        Rows that tie with it are as good as it; rows that share no latent are not found at all.
        """
        hits = 0
        for codes, x, needed in zip(
            _parts(queries), _blocks(self.queries), _blocks(self.needed), strict=True
        ):
            scores = _cosines(codes, documents, h)
            best = scores.topk(min(NEIGHBOURS, scores.shape[1]), dim=1)
            near = F.cosine_similarity(x[:, None], self.documents[best.indices], dim=2)
            good = (near >= needed[:, None] - TIE) & (best.values > 0)
            hits += int(good.sum())
        return hits / (len(self.queries) * min(NEIGHBOURS, len(self.documents)))


def _cosines(queries: Active, documents: Active, h: int) -> Tensor:
    """Return the cosines of codes, (m, n), at no more than `BLOCK` dense codes a time."""
    asked = densify(queries.normalised(), h)
    parts = [asked @ densify(part.normalised(), h).T for part in _parts(documents)]
    return torch.cat(parts, 1)


def _encode(model: Autoencoder, x: Tensor, k: int) -> Active:
    parts = [model.active(model.pre_activations(block), k) for block in _blocks(x)]
    return Active(torch.cat([p.latents for p in parts]), torch.cat([p.values for p in parts]))


def _blocks(rows: Tensor) -> tuple[Tensor, ...]:
    blocks: tuple[Tensor, ...] = torch.split(rows, BLOCK)
    return blocks


def _parts(active: Active) -> Iterator[Active]:
    return map(Active, _blocks(active.latents), _blocks(active.values))


def _usage(active: Active, h: int) -> Tensor:
    """Number of rows in which each latent is active, (h,)."""
    return torch.bincount(active.latents[active.values > 0], minlength=h).float()
