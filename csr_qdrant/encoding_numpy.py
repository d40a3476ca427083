"""Encoding without torch, and the choice of the strongest latents for torch's products too."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import CsrError

if TYPE_CHECKING:
    from csr_qdrant.encoder import F32, Encoder

ROWS_WORTH_A_THREAD = 64
CHUNK_BYTES = 1 << 20  # of pre-activations that every pass but the first finds in a core's cache
N = TypeVar("N", np.float32, np.int16)
SMALLEST = np.nextafter(np.float32(0), np.float32(1))  # above zero


def numpy_kernel(encoder: "Encoder", k: int) -> "Callable[[F32], SparseCodes]":
    """Return a function from (n, d) vectors to their codes of at most `k` latents."""
    transposed, offset = encoder.weight.T, encoder.offset
    held = np.empty((0, encoder.h), np.float32)

    def encode(rows: "F32") -> SparseCodes:
        nonlocal held
        if len(held) < len(rows):  # used again by every block: fresh memory costs page faults
            held = np.empty((len(rows), encoder.h), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # `strongest_codes` reports it
            products = np.matmul(rows, transposed, out=held[: len(rows)])
        return strongest_codes(products, offset, k, cpu_count() or 1)

    return encode


def strongest_codes(products: "F32", offset: "F32", k: int, threads: int) -> SparseCodes:
    """Return the positive ones among the `k` largest entries of each row of `products + offset`.

    `products`, (n, h), is overwritten by the sums. Raises CsrError for rows that overflowed.
    """
    threads = min(8, threads, len(products) // ROWS_WORTH_A_THREAD)
    if threads < 2:
        return _strongest(products, offset, k)
    # numpy works on one thread but lets go of the interpreter lock meanwhile.
    with ThreadPoolExecutor(threads) as pool:
        parts = [
            pool.submit(_strongest, part, offset, k) for part in np.array_split(products, threads)
        ]
        return SparseCodes.concatenate([part.result() for part in parts])


def _strongest(products: "F32", offset: "F32", k: int) -> SparseCodes:
    n, h = products.shape
    step = max(1, CHUNK_BYTES // (4 * h))
    chunks = [_candidates(products[at : at + step], offset, k) + at * h for at in range(0, n, step)]
    candidates = np.concatenate([*chunks, np.zeros(0, np.int64)])
    indptr = np.searchsorted(candidates, np.arange(n + 1) * h)
    latents = candidates - np.repeat(np.arange(n) * h, np.diff(indptr))
    values = products.ravel()[candidates]
    return SparseCodes(indptr, latents.astype(np.uint32), values, h).truncated(k)


def _candidates(activations: "F32", offset: "F32", k: int) -> "npt.NDArray[np.intp]":
    """Return the places, counted through all rows, of the k largest and of few more.

    Two passes over the array, where finding exactly the k largest at once takes many.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        activations += offset
    bounds = lower_bounds(activations, k)
    if not np.isfinite(bounds).all():
        raise CsrError("the dense vectors overflow float32 in the encoder: scale them as trained")
    return np.flatnonzero(activations >= np.maximum(bounds, SMALLEST)[:, None])


def lower_bounds(activations: "npt.NDArray[N]", k: int) -> "npt.NDArray[N]":
    """Return a number a row, (n,), that at least k of its entries reach, and few more than k.

    Each row is folded into strips of at least 4k columns and the largest entry of each column is
    kept. The k-th largest of these maxima is such a bound: k columns reach it. About one entry in
    eight that do is not among the k largest, since columns with two of them are rare.
    """
    n, h = activations.shape
    strips = max(1, h // max(4 * k, 64))
    width = h // strips
    maxima = activations
    if strips > 1:  # columns left over at the end are not needed for a bound
        maxima = activations[:, : strips * width].reshape(n, strips, width).max(axis=1)
    bounds: npt.NDArray[N] = np.partition(maxima, width - k, axis=1)[:, width - k]
    return bounds
