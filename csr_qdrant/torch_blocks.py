"""What both ways of encoding with torch on a CPU take: tensors of rows, and room for sums."""

import threading

import numpy as np
import torch

from csr_qdrant.encoder import F32


def tensor(array: F32) -> torch.Tensor:
    """Return a tensor of the same memory; of a copy if it is read-only, which torch warns of."""
    return torch.from_numpy(array if array.flags.writeable else np.array(array))


class Room:
    """Memory that a thread uses again for each of its blocks: fresh pages cost time."""

    def __init__(self, columns: int, dtype: torch.dtype) -> None:
        """Prepare rows of so many columns; none is allocated yet."""
        self._columns, self._dtype = columns, dtype
        self._held = threading.local()

    def of(self, rows: int) -> torch.Tensor:
        """Return (rows, columns) with any content, valid until this thread's next call."""
        memory: torch.Tensor | None = getattr(self._held, "memory", None)
        if memory is None or len(memory) < rows:
            memory = self._held.memory = torch.empty((rows, self._columns), dtype=self._dtype)
        return memory[:rows]
