"""Encoding on CPUs that multiply bfloat16 many times as fast as float32 (Intel AMX).

A product in bfloat16 tells which latents can be among the k strongest: those that come, as far as
rounding can have moved them, up to the k-th. Only these, about twice k, are multiplied in float32,
and the k strongest of them are the code. So codes are those of the float32 product, up to its own
rounding, at about half of its time.

With u = bf16(x), v_i = bf16(w_i) and an offset o_i that is the sum of two bfloat16 numbers up to a
rest r_i, the error of a sum u·v_i + o_i, accumulated in float32, is by Cauchy and Schwarz at most

    M = |x − u| |w_i| + |u| |w_i − v_i| + |r_i| + 2⁻²³ (d + 2) (|u| |v_i| + |o_i|),

where the last term bounds what accumulating loses here and in float32, both. Written as bfloat16, a
sum changes by at most 2⁻⁹ of itself. If k of them reach L, the k strongest latents are therefore
worth at least L (1 − 2⁻⁹) − M, and their sums at least T = (L (1 − 2⁻⁹) − 2 M) (1 − 2⁻⁹).
"""

import threading
import warnings
from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch

from csr_qdrant.codes import SparseCodes
from csr_qdrant.encoder import F32, Encoder
from csr_qdrant.encoding_numpy import lower_bounds
from csr_qdrant.torch_blocks import Room, tensor

LEAST_WORK = 2**20  # d h, in multiplications: below, choosing takes longer than multiplying
LEAST_ROWS = 64  # of a block: fewer are not worth a second copy of the weights
LEAST_LATENTS = 48  # h / k: below, too many latents come near the k-th
STEP = 1 - 2.0**-9  # what rounding to bfloat16 leaves of a number, at least
SMALLEST, LARGEST = 1e-12, 1e12  # norms between which nothing under- or overflows
I16 = npt.NDArray[np.int16]
Encode = Callable[[F32], SparseCodes]
_COPIES: "WeakKeyDictionary[Encoder, _Weights]" = WeakKeyDictionary()
_MAKING = threading.Lock()  # blocks are encoded by several threads


def worth_bf16(encoder: Encoder, k: int) -> bool:
    """Tell whether this way of encoding is the faster one here."""
    return has_amx() and encoder.d * encoder.h >= LEAST_WORK and encoder.h >= LEAST_LATENTS * k


def has_amx() -> bool:
    """Tell whether torch multiplies bfloat16 by this CPU's matrix unit."""
    supported: Callable[[], bool] = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return supported() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def bf16_encode(encoder: Encoder, k: int, exact: Encode) -> Encode:
    """Return a function from (n, d) rows to codes; `exact` encodes few rows and unusual ones."""
    room = Room(encoder.h, torch.bfloat16)

    @torch.inference_mode()
    def encode(rows: F32) -> SparseCodes:
        if len(rows) < LEAST_ROWS:
            return exact(rows)
        weights = _weights(encoder)
        x = tensor(rows)
        rounded, errors = weights.rounded(x)
        sums = torch.mm(rounded, weights.transposed, out=room.of(len(rows)))
        # As integers, positive bfloat16 numbers are in the same order.
        ordered = sums.view(torch.int16).numpy()
        least = _thresholds(lower_bounds(ordered, k), errors)
        sound = least > 0
        if sound.all():
            return weights.chosen(x, ordered >= least[:, None]).truncated(k)
        usual, unusual = np.flatnonzero(sound), np.flatnonzero(~sound)
        near = ordered[usual] >= least[usual, None]
        both = [weights.chosen(x[usual], near).truncated(k), exact(rows[unusual])]
        return SparseCodes.concatenate(both)[np.argsort(np.concatenate([usual, unusual]))]

    return encode


def _weights(encoder: Encoder) -> "_Weights":
    with _MAKING:
        if encoder not in _COPIES:
            _COPIES[encoder] = _Weights.of(encoder)
        return _COPIES[encoder]


def _thresholds(bounds: I16, errors: F32) -> I16:
    """Return T of each row, (n,), as ordered integers; 0 where none can be told."""
    reached = bounds.astype(np.int32) << 16
    with np.errstate(invalid="ignore", over="ignore"):
        least = (reached.view(np.float32) * STEP - 2 * errors) * STEP
    least[(bounds <= 0) | ~(least > 0)] = 0  # NaN is one of the latter
    down = least.astype(np.float32).view(np.int32) >> 16
    return down.astype(np.int16)


class _Weights(NamedTuple):
    """An encoder's weights in both precisions, and what rounding them may do."""

    exact: torch.Tensor  # Wᵀ, (d, h), float32
    offset: F32  # (h,)
    transposed: torch.Tensor  # (d + 2, h), bfloat16: Wᵀ, and the offset as a sum of two rows
    longest: float  # the largest |w_i|
    farthest: float  # the largest |w_i − v_i|
    rest: float  # the largest part of an offset that both its rows leave out
    largest_offset: float

    @classmethod
    def of(cls, encoder: Encoder) -> "_Weights":
        """Return the weights of an encoder."""
        with warnings.catch_warnings():  # of a beta state, once a process: provoke it here
            warnings.simplefilter("ignore")
            torch.sparse_csr_tensor([0, 0], [], [], (1, 1))
        weight, offset = (torch.from_numpy(np.array(a)) for a in (encoder.weight, encoder.offset))
        rounded, high = weight.bfloat16(), offset.bfloat16()
        low = (offset - high.float()).bfloat16()
        return cls(
            exact=weight.T,
            offset=encoder.offset,
            transposed=torch.cat([rounded, high[:, None], low[:, None]], dim=1).T,
            longest=float(weight.norm(dim=1).max()),
            farthest=float((weight - rounded.float()).norm(dim=1).max()),
            rest=float((offset - high.float() - low.float()).abs().max()),
            largest_offset=float(offset.abs().max()),
        )

    def rounded(self, x: torch.Tensor) -> tuple[torch.Tensor, F32]:
        """Return rows as bfloat16 with two ones at the end, and M of each; NaN: cannot be told."""
        n, d = x.shape
        made = torch.ones((n, d + 2), dtype=torch.bfloat16)
        made[:, :d] = x
        back = made[:, :d].float()
        norms = back.norm(dim=1)
        errors = (x - back).norm(dim=1) * self.longest + norms * self.farthest + self.rest
        lengths = norms * (self.longest + self.farthest) + self.largest_offset
        errors += 2.0**-23 * (d + 2) * lengths
        usual = (norms > SMALLEST) & (norms < LARGEST) & (self.longest > SMALLEST)
        return made, torch.where(usual, errors, torch.nan).numpy()

    def chosen(self, x: torch.Tensor, near: npt.NDArray[np.bool_]) -> SparseCodes:
        """Return the values, in float32, of the latents that are `near`, (n, h), to the best."""
        n, h = near.shape
        places = np.flatnonzero(near)
        indptr = np.searchsorted(places, np.arange(n + 1) * h)
        latents = (places - np.repeat(np.arange(n) * h, np.diff(indptr))).astype(np.int32)
        pattern = torch.sparse_csr_tensor(
            torch.from_numpy(indptr.astype(np.int32)),
            torch.from_numpy(latents),
            torch.zeros(len(latents)),
            (n, h),
            check_invariants=False,
        )
        products = torch.sparse.sampled_addmm(pattern, x, self.exact, beta=0.0).values().numpy()
        values = products + self.offset[latents]
        return SparseCodes(indptr, latents.view(np.uint32), values, h)
