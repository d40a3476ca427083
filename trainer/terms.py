"""Terms of the objective that look at similarities of codes: each with its gradient.

A term takes a block of rows of S, the cosines (n, B) of some of a batch's codes with all of them;
row i of the block is row `first + i` of the batch. It returns the sum of its rows' losses and the
gradient of that sum by the block. Nothing of the size of the whole S is needed, and no graph.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

TINY = 1e-8


class Term(NamedTuple):
    """A term's value on some rows."""

    loss: Tensor  # () sum over the rows
    by_similarity: Tensor  # (n, B) its gradient


def contrastive(similarities: Tensor, first: int, temperature: float) -> Term:
    """The papers' contrastive term (arXiv 2503.01776, L_cl).

    Both views of a row are the same code there, so its positive has similarity 1 and each other
    row counts twice: −log(e^{1/τ} / (e^{1/τ} + 2 Σ_{j≠i} e^{s_ij/τ})).
    """
    # Over e^{1/τ}, for no cosine is above 1: nothing overflows at any temperature.
    shares = similarities.sub(1).mul_(1 / temperature).exp_()
    _own(shares, first).fill_(0)
    total = shares.sum(1).mul_(2).add_(1)
    return Term(total.log().sum(), shares.mul_((2 / temperature / total)[:, None]))


def balance(similarities: Tensor, first: int) -> Term:
    """Mean cosine with the other rows: over a batch, the squared length of the mean code.

    The more rows share a latent, the longer its posting list and the more queries that touch it,
    so this is the count of postings a query with values in the place of counts.
    """
    by_similarity = torch.full_like(similarities, 1 / (similarities.shape[1] - 1))
    _own(by_similarity, first).fill_(0)
    loss = torch.dot(similarities.flatten(), by_similarity.flatten())
    return Term(loss, by_similarity)


def distillation(
    similarities: Tensor,
    x: Tensor,
    everything: Tensor,
    first: int,
    temperature: float,
    dense_temperature: float,
) -> Term:
    """KL divergence from the dense similarities' softmax over the batch to the codes'.

    Args:
        similarities: (n, B).
        x: dense vectors of these rows at L2 norm 1, (n, d).
        everything: those of the batch, (B, d).
        first: number of the first row.
        temperature: τ of the codes' similarities.
        dense_temperature: τ of the dense ones.
    """
    target = _log_shares(x @ everything.T, first, dense_temperature)
    learned = _log_shares(similarities.clone(), first, temperature)
    shares = target.exp()
    # The row itself is −inf in both; its true share is nothing.
    differences = target.sub_(learned)
    _own(differences, first).fill_(0)
    loss = torch.dot(shares.flatten(), differences.flatten())
    return Term(loss, learned.exp_().sub_(shares).mul_(1 / temperature))


def same_label(similarities: Tensor, labels: Tensor, first: int, temperature: float) -> Term:
    """Supervised contrastive term: −log(Σ_pos / (Σ_pos + Σ_neg)) (arXiv 2602.05735).

    Rows without another row of their label (B,) in the batch have no loss. Rows without a label
    (−1) are neither positive nor negative.
    """
    own = labels[first : first + len(similarities)]
    labelled = labels >= 0
    positive = (own[:, None] == labels[None, :]) & labelled
    _own(positive, first).fill_(False)
    anchors = positive.any(1)[:, None]
    scores = (similarities / temperature).masked_fill(~labelled, float("-inf"))
    _own(scores, first).fill_(float("-inf"))
    pulled = scores.masked_fill(~positive, float("-inf"))
    loss = (scores.logsumexp(1) - pulled.logsumexp(1))[anchors[:, 0]].sum()
    gradient = (scores.softmax(1) - pulled.softmax(1)) / temperature
    return Term(loss, torch.where(anchors, gradient, 0.0))


def paired(similarities: Tensor, known: Tensor, weights: Tensor, temperature: float) -> Term:
    """Cross-entropy of each query's document among those of the batch, in both directions.

    Unlike the others, the term needs all its rows at once, and is a mean.

    Args:
        similarities: cosines (p, p + m) of queries (rows) with their documents (pair i is at
            (i, i)) and with m more documents, which are negatives only.
        known: (p, p + m) bool, other pairs that must not count as negatives.
        weights: (p,) relevance of each pair.
        temperature: τ.
    """
    p = len(similarities)
    scores = (similarities / temperature).masked_fill(known, float("-inf"))
    square, truth = scores[:, :p], torch.arange(p, device=scores.device)
    forth = F.cross_entropy(scores, truth, reduction="none")
    back = F.cross_entropy(square.T, truth, reduction="none")
    shares = weights / weights.sum()
    loss = ((forth + back) / 2 * shares).sum()
    gradient = scores.softmax(1) * shares[:, None]
    gradient[:, :p] += square.softmax(0) * shares[None, :]
    gradient.diagonal().sub_(2 * shares)
    return Term(loss, gradient / (2 * temperature))


def _own(block: Tensor, first: int) -> Tensor:
    """Return the places where rows of the block meet themselves, a view."""
    return block.diagonal(first)


def _log_shares(scores: Tensor, first: int, temperature: float) -> Tensor:
    """Return the log of each row's softmax over the others; −inf at itself. Changes `scores`."""
    scores.mul_(1 / temperature)
    _own(scores, first).fill_(float("-inf"))
    return torch.log_softmax(scores, 1)
