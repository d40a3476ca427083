"""The inner loops of a training step on a CPU, over active latents alone; compiled by numba.

Shapes: n rows, d dimensions, h latents, K places a row for active latents, the k strongest of them
first. A value of 0 marks a place without a latent. An entry is a place of the flattened (n, K), so
entry e belongs to row e // K. All loops release the interpreter lock, so that threads can share
the rows. `trainer.dense_ops` computes the same with products of dense codes.
"""

# mypy: disable-error-code="untyped-decorator, assignment"

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

# Sums may be taken in any order; NaN and infinity keep their meaning, unlike under fastmath=True.
_compiled: Any = njit(
    nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy"
)


@_compiled
def _bound(values: Floats, low: float, high: float, wanted: int, enough: int) -> tuple[float, int]:
    """Return a bound that `wanted` to `enough` values reach, and how many do.

    At least `wanted` reach `low`. Where values are equal, more than `enough` may reach the bound.
    Counting all values again and again takes no branch, so it beats a quickselect.
    """
    reaching = len(values)
    while True:
        middle = np.float32(0.5) * (low + high)
        if middle <= low or middle >= high:
            return low, reaching
        count = np.int32(0)
        for j in range(len(values)):
            count += np.int32(values[j] >= middle)
        if count < wanted:
            high = middle
        else:
            low, reaching = middle, np.int64(count)
            if reaching <= enough:
                return low, reaching


@_compiled
def _to_front(values: Floats, places: Ints, cut: int, spare: Floats, spare_places: Ints) -> None:
    """Bring the `cut` largest of `values` to the front, with their places."""
    low, high = values[0], values[0]
    for j in range(len(values)):
        low, high = min(low, values[j]), max(high, values[j])
    bound, reaching = _bound(values, low, np.float32(2) * high, cut, cut)
    room = cut  # for values equal to the bound
    if reaching > cut:
        for j in range(len(values)):
            room -= values[j] > bound
    front, back = 0, cut
    for j in range(len(values)):
        chosen = values[j] > bound
        if values[j] == bound and room > 0:
            chosen = True
            room -= 1
        at = front if chosen else back
        spare[at] = values[j]
        spare_places[at] = places[j]
        front += chosen
        back += not chosen
    values[:] = spare[: len(values)]
    places[:] = spare_places[: len(values)]


@_compiled
def select(a: Floats, offset: Floats, cuts: Ints, latents: Ints, values: Floats) -> None:
    """Put the strongest positive entries of each row of `a + offset` (n, h) into (n, K) places.

    `cuts` are falling numbers of latents, the first of them K: for each cut c the c strongest
    stand in the first c places.
    """
    n, h = a.shape
    most = cuts[0]
    active = np.empty(h, np.float32)
    found, spare = np.empty(h + 1, np.float32), np.empty(h + 1, np.float32)
    places, spare_places = np.empty(h + 1, np.int64), np.empty(h + 1, np.int64)
    for i in range(n):
        row = a[i]
        largest, positive = np.float32(0), np.int32(0)
        for j in range(h):
            value = max(row[j] + offset[j], np.float32(0))
            active[j] = value
            largest = max(largest, value)
            positive += np.int32(value > 0)
        bound = np.float32(0)
        if positive > most:
            bound, _ = _bound(active, bound, np.float32(2) * largest, most, most + most // 8)
        span = 0
        for j in range(h):
            found[span] = active[j]
            places[span] = j
            span += (active[j] >= bound) & (active[j] > 0)
        count = min(span, most)
        for cut in cuts:
            if span > cut:
                _to_front(found[:span], places[:span], cut, spare, spare_places)
                span = cut
        for j in range(count):
            latents[i, j] = places[j]
            values[i, j] = found[j]
        for j in range(count, most):
            latents[i, j] = 0
            values[i, j] = 0


@_compiled
def kth_largest(a: Floats, k: int, found: Floats) -> None:
    """Put a bound that the k largest of each row of `a` (n, m) reach, and no others, into `found`.

    Where values are equal, more may reach it.
    """
    for i in range(len(a)):
        low, high = a[i, 0], a[i, 0]
        for j in range(a.shape[1]):
            low, high = min(low, a[i, j]), max(high, a[i, j])
        found[i], _ = _bound(a[i], low, high + abs(high) + np.float32(1), k, k)


@_compiled
def decode(
    latents: Ints,
    values: Floats,
    k: int,
    weight: Floats,
    pre_bias: Floats,
    x: Floats,
    few: Floats,
    many: Floats,
) -> None:
    """Put the errors x̂ − x of reconstructing from k and from all K latents into `few`, `many`."""
    n, most = latents.shape
    d = weight.shape[1]
    error = np.empty(d, np.float32)
    for i in range(n):
        for c in range(d):
            error[c] = pre_bias[c] - x[i, c]
        for j in range(most):
            if j == k:
                few[i] = error
            value = values[i, j]
            if value > 0:
                row = weight[latents[i, j]]
                for c in range(d):
                    error[c] += value * row[c]
        if k == most:
            few[i] = error
        many[i] = error


@_compiled
def value_gradients(
    latents: Ints,
    values: Floats,
    k: int,
    weight: Floats,
    first: Floats,
    rest: Floats,
    gradients: Floats,
) -> None:
    """Put ⟨W_l, g⟩ of each place into `gradients`; g is a row of `first` up to k, then `rest`."""
    n, most = latents.shape
    d = weight.shape[1]
    for i in range(n):
        for j in range(most):
            total = np.float32(0)
            if values[i, j] > 0:
                row = weight[latents[i, j]]
                g = first[i] if j < k else rest[i]
                for c in range(d):
                    total += row[c] * g[c]
            gradients[i, j] = total


@_compiled
def invert(latents: Ints, values: Floats, starts: Ints, entries: Ints) -> None:
    """List the entries of each latent: those of l lie at starts[l]:starts[l + 1] of `entries`."""
    n, most = latents.shape
    starts[:] = 0
    for i in range(n):
        for j in range(most):
            if values[i, j] > 0:
                starts[latents[i, j] + 1] += 1
    for latent in range(len(starts) - 1):
        starts[latent + 1] += starts[latent]
    free = starts[:-1].copy()
    for i in range(n):
        for j in range(most):
            if values[i, j] > 0:
                latent = latents[i, j]
                entries[free[latent]] = i * most + j
                free[latent] += 1


@_compiled
def weight_gradients(
    first_latent: int,
    last_latent: int,
    starts: Ints,
    entries: Ints,
    values: Floats,
    gradients: Floats,
    k: int,
    x: Floats,
    pre_bias: Floats,
    first: Floats,
    rest: Floats,
    by_weight: Floats,
    by_bias: Floats,
) -> None:
    """Put Σ da·(x − b_pre) + z·g of some latents into `by_weight` (h, d), Σ da into `by_bias`."""
    most, d = values.shape[1], x.shape[1]
    for latent in range(first_latent, last_latent):
        total = by_weight[latent]
        total[:] = 0
        bias = np.float32(0)
        for p in range(starts[latent], starts[latent + 1]):
            i = entries[p] // most
            j = entries[p] - i * most
            value, gradient = values[i, j], gradients[i, j]
            bias += gradient
            row = x[i]
            g = first[i] if j < k else rest[i]
            for c in range(d):
                total[c] += gradient * row[c] + value * g[c]
        for c in range(d):
            total[c] -= bias * pre_bias[c]
        by_bias[latent] = bias


@_compiled
def cosines(
    latents: Ints,
    values: Floats,
    starts: Ints,
    rows: Ints,
    weights: Floats,
    similarities: Floats,
) -> None:
    """Put the dot products of some codes with all listed ones into `similarities` (n, B).

    `rows` and `weights` are the row and the value of each listed entry.
    """
    n, k = latents.shape
    for i in range(n):
        scores = similarities[i]
        scores[:] = 0
        for j in range(k):
            value = values[i, j]
            if value > 0:
                latent = latents[i, j]
                for p in range(starts[latent], starts[latent + 1]):
                    scores[rows[p]] += value * weights[p]


@_compiled
def cosine_gradients(
    latents: Ints,
    values: Floats,
    starts: Ints,
    rows: Ints,
    weights: Floats,
    by_similarity: Floats,
    own: Floats,
    listed: Floats,
) -> None:
    """Take the gradient by `similarities` (n, B) back to both sides of each product.

    Adds to `own` (n, k), the gradient by the values of these codes, and to `listed` (entries,).
    """
    n, k = latents.shape
    for i in range(n):
        by_score = by_similarity[i]
        for j in range(k):
            value = values[i, j]
            if value > 0:
                latent = latents[i, j]
                total = np.float32(0)
                for p in range(starts[latent], starts[latent + 1]):
                    by = by_score[rows[p]]
                    total += by * weights[p]
                    listed[p] += by * value
                own[i, j] += total
