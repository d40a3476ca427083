"""Encoding without torch: a matrix product, then TopK on two threads beside it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from csr_qdrant.encoder import groups

if TYPE_CHECKING:
    from csr_qdrant.encoder import F32, Encoder, TopK


def numpy_kernel(encoder: "Encoder", k: int) -> "Callable[[F32], TopK]":
    """Return a function from (n, d) to the k largest pre-activations of each row."""
    transposed, offset = encoder.weight.T, encoder.offset
    threads = min(8, cpu_count() or 1)

    def topk(rows: "F32") -> "TopK":
        activations = rows @ transposed
        activations += offset
        if threads == 1 or len(rows) < 2 * threads:
            return _strongest(activations, k)
        # numpy selects on one thread but lets go of the interpreter lock meanwhile.
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(lambda part: _strongest(part, k), _split(activations, threads)))
        return np.concatenate([i for i, _ in parts]), np.concatenate([v for _, v in parts])

    return topk


def _split(rows: "F32", parts: int) -> "list[npt.NDArray[Any]]":
    return np.array_split(rows, parts)


def _strongest(activations: "F32", k: int) -> "TopK":
    """Return the k largest entries of each row, folded first (see `groups`)."""
    n, h = activations.shape
    g = groups(h, k)
    if g == 1:
        return _plain_topk(activations, k)
    width = h // g
    columns, _ = _plain_topk(activations.reshape(n, g, width).max(axis=1), k)  # (n, k)
    candidates = (columns[:, None, :] + np.arange(g)[:, None] * width).reshape(n, g * k)
    chosen, values = _plain_topk(np.take_along_axis(activations, candidates, axis=1), k)
    return np.take_along_axis(candidates, chosen, axis=1), values


def _plain_topk(activations: "F32", k: int) -> "TopK":
    h = activations.shape[1]
    latents = (
        np.argpartition(activations, h - k, axis=1)[:, h - k :]
        if k < h
        else np.tile(np.arange(h), (len(activations), 1))
    )
    return latents, np.take_along_axis(activations, latents, axis=1)
