"""The inner loops of a training step on a GPU, over active latents alone; compiled by Triton.

They compute what `trainer.kernels` does on a CPU, with the same shapes: n rows, d columns, h
latents, K places a row, and a value of 0 marks a place without a latent. A program takes one row,
or one latent, so nothing is added from two sides at once and results do not change between runs.
All arrays are contiguous. With TRITON_INTERPRET=1 the same code runs on a CPU, slowly.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def, import-untyped"

import triton
import triton.language as tl


@triton.jit
def _bound(bits, wanted):
    """Return the largest number that `wanted` of `bits` reach, 0 if fewer are above it.

    Positive floats are in the order of their bits as integers, so 31 bits, from the highest
    down, give the `wanted`-th largest value exactly.
    """
    bound = tl.zeros([], tl.int32)
    for place in range(31):
        higher = bound | (1 << (30 - place))
        bound = tl.where(tl.sum((bits >= higher).to(tl.int32)) >= wanted, higher, bound)
    return bound


@triton.jit
def _strongest(bits, wanted):
    """Return which entries are the `wanted` largest positive ones; of equal ones, the first."""
    bound = _bound(bits, wanted)
    above = (bits > bound).to(tl.int32)
    level = ((bits == bound) & (bits > 0)).to(tl.int32)
    room = wanted - tl.sum(above)
    return (above > 0) | ((level > 0) & (tl.cumsum(level) <= room))


@triton.jit
def select(a, offset, latents, values, h, inner, outer, K: tl.constexpr, H: tl.constexpr):
    """Put what is among the `outer` but not the `inner` strongest of a row into its places.

    They are the places from `inner` on; `inner` may be 0. H is a power of two, at least h.
    """
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, H)
    entry = tl.load(a + row * h + column, mask=column < h, other=0.0)
    entry += tl.load(offset + column, mask=column < h, other=0.0)
    entry = tl.where(entry > 0, entry, 0.0)  # neither negative zeros nor NaN
    bits = entry.to(tl.int32, bitcast=True)
    chosen = _strongest(bits, outer)
    if inner > 0:
        chosen = chosen & (_strongest(bits, inner) == 0)
    place = row * K + inner + tl.cumsum(chosen.to(tl.int32)) - 1
    tl.store(latents + place, column.to(tl.int64), mask=chosen)
    tl.store(values + place, entry, mask=chosen)


@triton.jit
def add_rows(latents, values, matrix, few, many, d, k, K, D: tl.constexpr):
    """Add Σ z_l · matrix_l to a row of `many` (n, d); `few` gets what it is after k places.

    Both may be the same array.
    """
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * D + tl.arange(0, D)
    inside = column < d
    total = tl.load(many + row * d + column, mask=inside)
    for j in range(k):
        latent, value = tl.load(latents + row * K + j), tl.load(values + row * K + j)
        total += value * tl.load(matrix + latent * d + column, mask=inside)
    tl.store(few + row * d + column, total, mask=inside)
    for j in range(k, K):
        latent, value = tl.load(latents + row * K + j), tl.load(values + row * K + j)
        total += value * tl.load(matrix + latent * d + column, mask=inside)
    tl.store(many + row * d + column, total, mask=inside)


@triton.jit
def row_products(
    latents, values, matrix, first, rest, products, d, k, K, P: tl.constexpr, D: tl.constexpr
):
    """Put ⟨matrix_l, g⟩ of P places into `products`; g is of `first` up to k, then of `rest`."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * P + tl.arange(0, P)
    value = tl.load(values + row * K + place, mask=place < K, other=0.0)
    latent = tl.load(latents + row * K + place, mask=place < K, other=0)
    live = value > 0
    total = tl.zeros([P], tl.float32)
    for begin in range(0, d, D):
        column = begin + tl.arange(0, D)
        inside = column < d
        g = tl.where(
            (place < k)[:, None],
            tl.load(first + row * d + column, mask=inside, other=0.0)[None, :],
            tl.load(rest + row * d + column, mask=inside, other=0.0)[None, :],
        )
        tile = latent[:, None] * d + column[None, :]
        tile = tl.load(matrix + tile, mask=live[:, None] & inside[None, :], other=0.0)
        total += tl.sum(tile * g, axis=1)
    tl.store(products + row * K + place, total, mask=place < K)


@triton.jit
def add_by_latent(
    starts,
    entries,
    values,
    gradients,
    x,
    pre_bias,
    first,
    rest,
    by_weight,
    by_bias,
    d,
    k,
    K,
    D: tl.constexpr,
):
    """Put Σ da·(x − b_pre) + z·g of a latent's entries into `by_weight`, Σ da into `by_bias`.

    The entries of latent l lie at starts[l]:starts[l + 1] of `entries`; entry e is a place of
    the flattened (n, K).
    """
    latent = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * D + tl.arange(0, D)
    inside = column < d
    total = tl.zeros([D], tl.float32)
    bias = tl.zeros([], tl.float32)
    for p in range(tl.load(starts + latent), tl.load(starts + latent + 1)):
        entry = tl.load(entries + p)
        row = entry // K
        value, gradient = tl.load(values + entry), tl.load(gradients + entry)
        bias += gradient
        total += gradient * tl.load(x + row * d + column, mask=inside)
        if entry - row * K < k:
            total += value * tl.load(first + row * d + column, mask=inside)
        else:
            total += value * tl.load(rest + row * d + column, mask=inside)
    total -= bias * tl.load(pre_bias + column, mask=inside)
    tl.store(by_weight + latent * d + column, total, mask=inside)
    tl.store(by_bias + latent, bias, mask=tl.program_id(1) == 0)
