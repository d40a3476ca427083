"""All terms that look at the cosines of a batch's codes, S = Z Zᵀ, block of rows by block."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from csr_qdrant.trainer.batch import TorchBatch
from csr_qdrant.trainer.config import TrainConfig
from csr_qdrant.trainer.data import Matches
from csr_qdrant.trainer.group import Group
from csr_qdrant.trainer.ops import Active, Lists, Ops
from csr_qdrant.trainer.terms import (
    Term,
    balance,
    contrastive,
    distillation,
    paired,
    same_label,
)


class RowTerms(NamedTuple):
    """The terms that look at each row's cosines with all others."""

    config: TrainConfig
    names: tuple[str, ...]
    total: int  # rows of the batch
    unit: Tensor | None  # (B, d) dense vectors at L2 norm 1
    labels: Tensor | None  # (B,)
    anchors: int  # rows with another one of their label
    wanted: bool

    @classmethod
    def of(cls, config: TrainConfig, batch: TorchBatch) -> "RowTerms":
        """Find out which terms have a weight, and what they need of the batch."""
        names = [
            name for name in ("contrastive", "balance", "distillation") if getattr(config, name)
        ]
        labels, anchors = batch.labels if config.supervised else None, 0
        if labels is not None:
            names.append("supervised")
            counts = labels[labels >= 0].bincount()
            anchors = int(counts[counts > 1].sum())
        unit = F.normalize(batch.x, dim=1, eps=1e-8) if config.distillation else None
        pairs = batch.matches is not None and config.supervised
        # A row alone is like no other.
        wanted = len(batch.x) > 1 and (bool(names) or bool(pairs))
        return cls(config, tuple(names), len(batch.x), unit, labels, anchors, wanted)

    def rows(self, cosines: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Return each term's loss, (terms,), and the weighted gradient by `cosines`, (n, B)."""
        losses, gradient = [], torch.zeros_like(cosines)
        for name in self.names:
            count = max(1, self.anchors) if name == "supervised" else self.total
            loss, by_cosines = self._term(name, cosines, first)
            losses.append(loss / count)
            gradient.add_(by_cosines, alpha=getattr(self.config, name) / count)
        return torch.stack(losses) if losses else cosines.new_zeros(0), gradient

    def _term(self, name: str, cosines: Tensor, first: int) -> Term:
        config = self.config
        if name == "contrastive":
            return contrastive(cosines, first, config.contrastive_temperature)
        if name == "balance":
            return balance(cosines, first)
        if name == "distillation":
            unit = self.unit
            assert unit is not None
            assert config.distillation_temperature and config.dense_temperature
            mine = unit[first : first + len(cosines)]
            temperatures = config.distillation_temperature, config.dense_temperature
            return distillation(cosines, mine, unit, first, *temperatures)
        assert self.labels is not None and config.supervised_temperature
        return same_label(cosines, self.labels, first, config.supervised_temperature)


class Similarities:
    """Computes the terms on `ops`, for the rows of one process of `group`."""

    def __init__(self, config: TrainConfig, ops: Ops, group: Group, h: int) -> None:
        """Take what stays the same from step to step."""
        self._config, self._ops, self._group, self._h = config, ops, group, h

    def __call__(self, mine: Active, batch: TorchBatch, terms: dict[str, Tensor]) -> Tensor:
        """Add the terms' losses to `terms`; return their gradient by the values of `mine`, (n, k).

        `mine` are the codes of this process's rows, not normalised.

        ∂Z = (∂S + ∂Sᵀ) Z, and through z = v / ‖v‖: ∂v = (∂z − z ⟨z, ∂z⟩) / ‖v‖.
        """
        codes = mine.normalised()
        weigh = RowTerms.of(self._config, batch)
        if not weigh.wanted:
            return torch.zeros_like(codes.values)
        every = Active(*map(self._group.gather, codes))
        lists = self._ops.lists(every, self._h)
        share = self._group.share(len(batch.x))
        by_codes = torch.zeros_like(every.values)

        def work(start: int, stop: int) -> tuple[Tensor, Tensor]:
            listed, losses = lists.no_gradient(), []
            # Once at least: a process may have no rows.
            for begin in range(start, max(stop, start + 1), lists.block_rows):
                rows = slice(begin, min(begin + lists.block_rows, stop))
                found, by_cosines = weigh.rows(lists.cosines(codes.rows(rows)), share.start + begin)
                own = by_codes[share][rows]
                lists.add_gradient(codes.rows(rows), by_cosines, own, listed)
                losses.append(found)
            return torch.stack(losses).sum(0), listed

        losses, listed = zip(*self._ops.over(len(codes.values), work), strict=True)
        terms |= zip(weigh.names, torch.stack(losses).sum(0).unbind(), strict=True)
        by_codes += lists.by_values(torch.stack(listed).sum(0))
        if batch.matches is not None and self._config.supervised:
            terms["supervised"] = self._pairs(every, lists, batch.matches, by_codes)
        self._group.sum(by_codes)
        by_z, z = by_codes[share], codes.values
        norms = mine.values.norm(dim=1, keepdim=True)
        by_values = (by_z - z * (z * by_z).sum(1, keepdim=True)) / norms
        return torch.where(norms > 1e-8, by_values, 0.0)

    def _pairs(self, every: Active, lists: Lists, matches: Matches, by_codes: Tensor) -> Tensor:
        """Add the pairs' term to `by_codes`; each process takes a share of the pairs back."""
        weight, temperature = self._config.supervised, self._config.supervised_temperature
        assert weight and temperature
        queries, documents = matches.queries, torch.cat([matches.documents, matches.negatives])
        cosines = lists.cosines(every.rows(queries))
        loss, by_block = paired(
            cosines[:, documents],
            matches.known,
            matches.weights,
            temperature,
        )
        share = self._group.share(len(queries))
        by_cosines = torch.zeros_like(cosines[share])
        by_cosines.index_add_(1, documents, by_block[share], alpha=weight)
        own, listed = torch.zeros_like(by_codes[queries[share]]), lists.no_gradient()
        lists.add_gradient(every.rows(queries[share]), by_cosines, own, listed)
        by_codes.index_add_(0, queries[share], own)
        by_codes += lists.by_values(listed)
        return loss / self._group.size
