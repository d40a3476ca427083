"""Retrieval as a matrix product and top-k, in torch, on a CPU or on CUDA.

Documents are held in blocks of rows, so that no more than a block's scores exist at a time; both
products merge their blocks' best in the same way. The CUDA path is unverified: no GPU has run it.
"""

import warnings
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import ConfigError

ROW_BLOCK = 131_072


class Best(NamedTuple):
    """The best rows of m queries, best first, on the device; a row of score 0 shares no latent."""

    scores: Tensor  # (m, limit) float32
    rows: Tensor  # (m, limit) int64


class DenseProduct:
    """Q Xᵀ and top-k over dense vectors (n, d), as they are: for cosines give unit rows."""

    def __init__(
        self, vectors: Matrix, device: torch.device, *, row_block: int = ROW_BLOCK
    ) -> None:
        """Put `vectors` onto `device`; they may come from a memory map."""
        starts = range(0, len(vectors), row_block)
        blocks = (np.array(vectors[at : at + row_block], np.float32) for at in starts)
        self._blocks = [torch.from_numpy(block).to(device) for block in blocks]
        self._device = device

    def search(self, queries: Matrix, limit: int) -> Best:
        """Return the `limit` best rows of each query (m, d)."""
        asked = torch.from_numpy(np.ascontiguousarray(queries, np.float32)).to(self._device)
        return _best((asked @ block.T for block in self._blocks), limit)


class SparseProduct:
    """S Qᵀ and top-k over codes S (n, h) as compressed sparse rows; queries become dense ones."""

    def __init__(
        self, codes: SparseCodes, device: torch.device, *, row_block: int = ROW_BLOCK
    ) -> None:
        """Put `codes` onto `device`."""
        starts = range(0, len(codes), row_block)
        self._blocks = [_sparse_rows(codes[at : at + row_block], device) for at in starts]
        self._device = device

    def search(self, queries: SparseCodes, limit: int) -> Best:
        """Return the `limit` best rows of each query, (m, h) codes."""
        asked = torch.from_numpy(queries.to_dense()).to(self._device).T.contiguous()  # (h, m)
        return _best(((block @ asked).T for block in self._blocks), limit)


def device_of(name: str) -> torch.device:
    """Return the device `name`; raise ConfigError if it is not one or is not there."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"{name!r} is no device of torch: try cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"products run on cpu or cuda, got {name}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("torch sees no CUDA device here: use --device cpu")
    return device


def synchronise(device: torch.device) -> None:
    """Wait for what has been asked of `device`; a CPU has answered already."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _best(scored: Iterable[Tensor], limit: int) -> Best:
    """Return the best of blocks of scores, (m, b) each, rows counted over all blocks."""
    scores: list[Tensor] = []
    rows: list[Tensor] = []
    first = 0
    for block in scored:
        found = block.topk(min(limit, block.shape[1]), dim=1)
        scores.append(found.values)
        rows.append(found.indices + first)
        first += block.shape[1]
    every, numbers = torch.cat(scores, dim=1), torch.cat(rows, dim=1)
    best = every.topk(min(limit, every.shape[1]), dim=1)
    return Best(best.values, numbers.gather(1, best.indices))


def _sparse_rows(codes: SparseCodes, device: torch.device) -> Tensor:
    # 32-bit indices: what MKL and cuSPARSE take without copying; a block stays below 2^31 entries.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        rows = torch.sparse_csr_tensor(
            torch.from_numpy(codes.indptr.astype(np.int32)),
            torch.from_numpy(codes.indices.astype(np.int32)),
            torch.from_numpy(np.array(codes.values)),
            size=(len(codes), codes.h),
            check_invariants=False,  # SparseCodes has checked them
        )
    return rows.to(device)
