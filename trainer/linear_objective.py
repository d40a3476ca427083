"""The loss of a linear adapter: one term on the cosines of the first m outputs, for some m."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from csr_qdrant.trainer.batch import TorchBatch
from csr_qdrant.trainer.terms import Term, distillation, paired, same_label


class Objective(NamedTuple):
    """The mean over some sizes of the supervision's term on that many outputs."""

    sizes: tuple[int, ...]
    temperature: float

    def blocks(self, matrix: Tensor, batch: TorchBatch) -> Iterator[tuple[Tensor, Term]]:
        """Yield each size's cosines, and the loss on them with its gradient.

        Args:
            matrix: the adapter's, (d, d).
            batch: rows, centred where the adapter takes them so, and their supervision.
        """
        outputs = batch.x @ matrix.T
        for size in self.sizes:
            left = right = F.normalize(outputs[:, :size], dim=1, eps=1e-8)
            if batch.matches is not None:
                queries, documents, _, _, negatives = batch.matches
                left, right = left[queries], right[torch.cat([documents, negatives])]
            cosines = left @ right.T
            yield cosines, self._term(cosines.detach(), batch)

    def losses(self, matrix: Tensor, batch: TorchBatch) -> list[float]:
        """Return the loss at each size."""
        with torch.no_grad():
            return [float(term.loss) for _, term in self.blocks(matrix, batch)]

    def _term(self, cosines: Tensor, batch: TorchBatch) -> Term:
        """Return the term as a mean over the rows that have one."""
        if batch.matches is not None:
            _, _, known, weights, _ = batch.matches
            return paired(cosines, known, weights, self.temperature)
        if batch.labels is not None:
            counts = batch.labels[batch.labels >= 0].bincount()
            rows = max(1, int(counts[counts > 1].sum()))
            term = same_label(cosines, batch.labels, 0, self.temperature)
        else:
            rows, unit = len(cosines), F.normalize(batch.x, dim=1, eps=1e-8)
            term = distillation(cosines, unit, unit, 0, self.temperature, self.temperature)
        return Term(*(part / rows for part in term))
