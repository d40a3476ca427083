"""Held-out measures of a half-trained encoder: what Qdrant's user will get, and pay."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from csr_qdrant.trainer.model import Active, Autoencoder, densify

NEIGHBOURS = 10
BLOCK = 2048


class AtK(NamedTuple):
    """Measures with k active latents, in queries and documents alike."""

    k: int
    recall: float  # recall@10 of the dense vectors' neighbours
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
    """Held-out queries, a sample of documents, and the dense neighbours among them."""

    queries: Tensor  # (m, d)
    documents: Tensor  # (n, d)
    neighbours: Tensor  # (m, 10)

    @classmethod
    def of(cls, queries: Tensor, documents: Tensor) -> "Validator":
        """Find the dense neighbours by cosine, blockwise."""
        similar = F.normalize(queries, dim=1) @ F.normalize(documents, dim=1).T
        neighbours = similar.topk(min(NEIGHBOURS, len(documents)), dim=1).indices
        return cls(queries, documents, neighbours)

    @torch.no_grad()
    def measure(self, model: Autoencoder, ks: tuple[int, ...], step: int) -> Validation:
        """Measure `model` at each k."""
        most = max(ks)
        queries, documents = (
            _encode(model, self.queries, most),
            _encode(model, self.documents, most),
        )
        h = len(model.latent_bias)
        at = tuple(self._at(model, queries.first(k), documents.first(k), k) for k in ks)
        dead = float((_usage(documents, h) == 0).float().mean())
        return Validation(step, dead, at)

    def _at(self, model: Autoencoder, queries: Active, documents: Active, k: int) -> AtK:
        h = len(model.latent_bias)
        lists = _usage(documents, h) / len(documents.values)  # share of documents in each list
        touched = _usage(queries, h) / len(queries.values)
        error = (model.decode(queries) - self.queries).square().sum()
        variance = (self.queries - self.queries.mean(0)).square().sum()
        return AtK(
            k,
            self._recall(queries, documents, h),
            float(error / variance),
            float((lists * touched).sum()),
            float(lists.max()),
        )

    def _recall(self, queries: Active, documents: Active, h: int) -> float:
        asked = F.normalize(densify(queries, h), dim=1)
        scores = [
            asked @ F.normalize(densify(Active(latents, values), h), dim=1).T
            for latents, values in zip(
                documents.latents.split(BLOCK), documents.values.split(BLOCK), strict=True
            )
        ]
        found = torch.cat(scores, 1).topk(self.neighbours.shape[1], dim=1).indices
        shared = (found[:, :, None] == self.neighbours[:, None, :]).any(2)
        return float(shared.float().mean())


def _encode(model: Autoencoder, x: Tensor, k: int) -> Active:
    parts = [model.active(model.pre_activations(block), k) for block in x.split(BLOCK)]
    return Active(torch.cat([p.latents for p in parts]), torch.cat([p.values for p in parts]))


def _usage(active: Active, h: int) -> Tensor:
    """Number of rows in which each latent is active, (h,)."""
    return torch.bincount(active.latents[active.values > 0], minlength=h).float()
