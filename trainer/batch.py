"""A batch where the step computes."""

from typing import NamedTuple

from torch import Tensor

from csr_qdrant.trainer.data import Matches


class TorchBatch(NamedTuple):
    """A `data.Batch` on the device."""

    x: Tensor  # (B, d), scaled and adapted
    labels: Tensor | None = None
    matches: Matches | None = None
