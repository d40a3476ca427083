"""One step's loss and gradients, found without a graph and without dense codes.

The equations stand where their terms are computed; written plainly, with three dense passes and
automatic differentiation, they stand in `benchmarks/plain.py`, and the tests hold both equal.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from csr_qdrant.trainer.auxiliary import auxiliary
from csr_qdrant.trainer.batch import TorchBatch
from csr_qdrant.trainer.config import TrainConfig
from csr_qdrant.trainer.data import Matches
from csr_qdrant.trainer.group import Alone, Group
from csr_qdrant.trainer.model import Autoencoder
from csr_qdrant.trainer.ops import Active, Ops
from csr_qdrant.trainer.similarities import Similarities
from csr_qdrant.trainer.terms import paired


class Outcome(NamedTuple):
    """What a step computes, beside the gradients that it leaves in the model."""

    loss: Tensor
    terms: dict[str, Tensor]  # unweighted
    used: Tensor  # (h,) bool: latents that are active in some document, at the largest k


def annealed_k(config: TrainConfig, k: int, h: int, progress: float) -> int:
    """Return the k of this moment: from k_anneal down to k over the first 70 % (CSRv2)."""
    if config.k_anneal is None:
        return k
    start = max(k, min(config.k_anneal, h // 4))
    return round(k + (start - k) * max(0.0, 1 - progress / 0.7))


GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo 1, fill the unit interval evenly


class Plan(NamedTuple):
    """What a step looks at."""

    k: int  # of this step's reconstruction
    largest: int  # k of the list: of the similarities, and it decides what is dead
    most: int  # latents of the second reconstruction

    @classmethod
    def of(cls, config: TrainConfig, h: int, step: int, progress: float) -> "Plan":
        """Choose one k of the list, each as often as it is large; all else goes by the largest.

        Similarities of the fewest latents are nearly all zero and teach little, not even to codes
        of so few; what makes short codes good is that they reconstruct.
        """
        ks = sorted({annealed_k(config, k, h, progress) for k in config.k}, reverse=True)
        most = min(4 * ks[0], h) if config.multi_k else ks[0]
        bounds = np.cumsum(ks)
        chosen = np.searchsorted(bounds, step * GOLDEN % 1 * bounds[-1], side="right")
        return cls(ks[int(chosen)], ks[0], most)


class Reconstruction(NamedTuple):
    """Both reconstructions' errors, as gradients by x̂."""

    first: Tensor  # (n, d) of both together
    rest: Tensor  # (n, d) of that from `most` latents
    by_values: Tensor  # (n, most)
    residual: Tensor  # (n, d) x − x̂ from k latents


class Step:
    """Computes the objective of a batch and its gradients by the parameters of `model`."""

    def __init__(
        self, model: Autoencoder, config: TrainConfig, ops: Ops, group: Group | None = None
    ) -> None:
        """Compute with `ops`; each process of `group` computes its share of a batch's rows."""
        self._model, self._config, self._ops = model, config.resolved(), ops
        self._group: Group = group or Alone()
        h = len(model.latent_bias)
        self._similarities = Similarities(self._config, ops, self._group, h)

    @torch.no_grad()
    def __call__(self, batch: TorchBatch, dead: Tensor, *, step: int, progress: float) -> Outcome:
        """Compute one batch and leave the gradients in the model's parameters.

        Args:
            batch: all rows and their supervision, the same in each process.
            dead: indices of dead latents, (m,), may be empty.
            step: number of the step, which chooses k.
            progress: share of the run that is over, 0..1.
        """
        model, h = self._model, len(self._model.latent_bias)
        plan = Plan.of(self._config, h, step, progress)
        share = self._group.share(len(batch.x))
        x = batch.x[share]
        dead = dead if self._config.aux else dead[:0]
        cuts = tuple(sorted(set(plan), reverse=True))
        active, columns = self._ops.encode(x, model.weight, model.offset, cuts, dead)

        terms: dict[str, Tensor] = {}
        made = self._reconstruct(active, plan.k, x, batch, terms)
        ours = active.first(plan.largest)
        made.by_values[:, : plan.largest] += self._similarities(ours, batch, terms)
        made.by_values.mul_(active.values > 0)
        by_weight, by_bias = self._ops.weight_gradients(
            active, made.by_values, plan.k, x, model.pre_bias, made.first, made.rest, h
        )
        by_pre = made.first.sum(0) - model.weight.T @ by_bias
        if len(dead):
            revival = auxiliary(
                columns,
                made.residual,
                x - model.pre_bias,
                model.weight[dead],
                self._config.k_aux,
                self._group,
                self._ops,
            )
            terms["aux"] = revival.loss
            by_weight.index_add_(0, dead, revival.by_weight, alpha=self._config.aux)
            by_bias.index_add_(0, dead, revival.by_bias, alpha=self._config.aux)
        used = x.new_zeros(h)
        # A latent that only queries use finds nothing: it is as good as dead.
        found = ours.rows(slice(max(0, (batch.documents or len(batch.x)) - share.start)))
        used[found.latents[found.values > 0]] = 1
        self._group.sum(by_weight, by_bias, by_pre, used, *terms.values())
        model.weight.grad, model.latent_bias.grad, model.pre_bias.grad = by_weight, by_bias, by_pre
        loss = torch.stack([getattr(self._config, n) * term for n, term in terms.items()]).sum()
        return Outcome(loss, terms, used > 0)

    def _reconstruct(
        self, active: Active, k: int, x: Tensor, batch: TorchBatch, terms: dict[str, Tensor]
    ) -> Reconstruction:
        """Mean over rows of ‖x̂ − x‖², from k and from 4k latents (arXiv 2503.01776, L_k).

        With g = 2 (x̂ − x) / B of each: ∂z_l = ⟨W_l, g⟩ and, from the decoder, ∂W_l = Σ z_l g.
        """
        model, config, total = self._model, self._config, len(batch.x)
        first, rest, residual = (torch.empty_like(x) for _ in range(3))
        by_values = torch.empty_like(active.values)

        def errors(start: int, stop: int) -> Tensor:
            rows = slice(start, stop)
            few, many = self._ops.decode(
                active.rows(rows), k, model.weight, model.pre_bias, x[rows]
            )
            torch.neg(few, out=residual[rows])
            torch.mul(many, 2 * config.multi_k / total, out=rest[rows])
            torch.add(rest[rows], few, alpha=2 * config.reconstruction / total, out=first[rows])
            return torch.stack([few.square().sum(), many.square().sum()])

        def gradients(start: int, stop: int) -> None:
            rows = slice(start, stop)
            by_values[rows] = self._ops.value_gradients(
                active.rows(rows), k, model.weight, first[rows], rest[rows]
            )

        sums = torch.stack(self._ops.over(len(x), errors)).sum(0) / total
        terms["reconstruction"] = sums[0]
        if config.multi_k:
            terms["multi_k"] = sums[1]
        if batch.matches is not None and config.reconstructed_pairs:
            loss, by_reconstruction = self._reconstructed_pairs(x - residual, batch.matches)
            terms["reconstructed_pairs"] = loss
            first.add_(by_reconstruction, alpha=config.reconstructed_pairs)
        self._ops.over(len(x), gradients)
        return Reconstruction(first, rest, by_values, residual)

    def _reconstructed_pairs(self, mine: Tensor, matches: Matches) -> tuple[Tensor, Tensor]:
        """CLIP's loss on reconstructions (arXiv 2503.01776, multimodal): loss, and ∂x̂ (n, d)."""
        every = self._group.gather(mine)
        documents = torch.cat([matches.documents, matches.negatives])
        q, d = (F.normalize(every[at], dim=1, eps=1e-8) for at in (matches.queries, documents))
        temperature = self._config.supervised_temperature
        assert temperature
        loss, by_cosines = paired(q @ d.T, matches.known, matches.weights, temperature)
        by_every = torch.zeros_like(every)
        for at, unit, by_unit in (
            (matches.queries, q, by_cosines @ d),
            (documents, d, by_cosines.T @ q),
        ):
            norms = every[at].norm(dim=1, keepdim=True).clamp(min=1e-8)
            along = (unit * by_unit).sum(1, keepdim=True)
            by_every.index_add_(0, at, (by_unit - unit * along) / norms)
        return loss / self._group.size, by_every[self._group.share(len(every))]
