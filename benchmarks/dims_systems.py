"""Ways to shorten vectors, and exact search by what they make: floats, signs or codes."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from csr_qdrant.benchmarks.neighbours import Matrix, Neighbours, unit_rows
from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import ConfigError

SCORES = 1 << 24  # scores that a search by codes holds at a time
ROWS = 4096  # rows that are read at a time
FLOAT_BYTES, LATENT_BYTES = 4, 8  # a latent's number and its value


class Made(NamedTuple):
    """Gallery and queries as a system searches them."""

    name: str
    supervision: str | None  # what it learned from, beside the gallery: labels, pairs
    active: int  # dimensions, or active latents at most
    bytes: float  # of a vector of the gallery, before any compression
    gallery: Any  # (n, m) numbers or (n, h) codes
    queries: Any


def nearest(made: Made, depth: int) -> Neighbours:
    """Return the `depth` rows of the gallery with the largest cosine to each query."""
    if isinstance(made.gallery, SparseCodes):
        return nearest_codes(made.queries, made.gallery, depth)
    return nearest_vectors(made.queries, made.gallery, depth)


def nearest_vectors(queries: Matrix, gallery: Matrix, depth: int) -> Neighbours:
    """Return the `depth` rows of `gallery` (n, d) with the largest cosine to each query (m, d).

    As `exact_neighbours`, but several times faster where depth is 1; it holds a copy of the
    gallery, and equal scores beyond the first stand in any order.
    """
    unit, asked = unit_rows(gallery), unit_rows(queries)
    return _search(lambda part: asked[part] @ unit.T, len(queries), len(gallery), depth)


def _search(score: Callable[[slice], Matrix], m: int, n: int, depth: int) -> Neighbours:
    """Find the `depth` best of n for each of m queries; `score` gives a block's scores, (b, n)."""
    if depth < 1 or n < 1:
        raise ConfigError(f"search needs depth >= 1 and a gallery, got {depth} and {n} rows")
    block = max(1, SCORES // n)
    found = [_best(score(slice(i, i + block)), min(depth, n)) for i in range(0, m, block)]
    return Neighbours(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))


def nearest_codes(queries: SparseCodes, gallery: SparseCodes, depth: int) -> Neighbours:
    """Return the `depth` codes with the largest cosine to each query, (m, depth), by exact search.

    Only codes that share a latent with the query are found, as in an inverted index: where there
    are too few, the row is -1 and the score 0.
    """
    columns = gallery.normalised().to_scipy().T.tocsr()  # (h, n): a posting list a latent
    asked = queries.normalised().to_scipy()
    rows, scores = _search(
        lambda part: (asked[part] @ columns).toarray(), len(queries), len(gallery), depth
    )
    return Neighbours(np.where(scores > 0, rows, -1), np.maximum(scores, 0))


def _best(scores: Matrix, depth: int) -> Neighbours:
    """Return the `depth` largest of each row of scores (b, n), best first."""
    if depth == 1:
        rows = scores.argmax(axis=1)[:, None]
        return Neighbours(rows, np.take_along_axis(scores, rows, axis=1))
    rows = np.argpartition(scores, -depth, axis=1)[:, -depth:]
    found = np.take_along_axis(scores, rows, axis=1)
    order = np.lexsort((rows, -found), axis=1)
    return Neighbours(np.take_along_axis(rows, order, 1), np.take_along_axis(found, order, 1))


def postings(queries: SparseCodes, gallery: SparseCodes) -> float:
    """Return how many entries of posting lists a query touches on average, in multiples of n."""
    lengths = np.bincount(gallery.indices, minlength=gallery.h)
    return float(lengths[queries.indices].sum() / max(1, len(queries)) / max(1, len(gallery)))


# --- without training -------------------------------------------------------------------------


def dense(gallery: Matrix, queries: Matrix) -> Made:
    """Return the vectors as they are."""
    d = gallery.shape[1]
    return Made("dense", None, d, FLOAT_BYTES * d, gallery, queries)


def truncated(gallery: Matrix, queries: Matrix, dims: int) -> Made:
    """Return the first `dims` dimensions."""
    return floats("truncation", gallery[:, :dims], queries[:, :dims])


def floats(name: str, gallery: Matrix, queries: Matrix, supervision: str | None = None) -> Made:
    """Return vectors of some name; a trained one's says what it learned from."""
    name = name if supervision is None else f"{name}, {supervision}"
    m = gallery.shape[1]
    return Made(name, supervision, m, FLOAT_BYTES * m, gallery, queries)


class Components(NamedTuple):
    """Principal components of a gallery."""

    mean: npt.NDArray[np.float64]  # (d,)
    axes: npt.NDArray[np.float64]  # (d, d), a column a component, by falling variance

    @classmethod
    def of(cls, gallery: Matrix, *, centred: bool = True) -> "Components":
        """Find them; without `centred`, those of the second moments about the origin."""
        d = gallery.shape[1]
        mean, moments = np.zeros(d), np.zeros((d, d))
        if centred:
            mean = sum((block.sum(0) for block in _blocks(gallery)), np.zeros(d)) / len(gallery)
        for block in _blocks(gallery):
            moments += (block - mean).T @ (block - mean)
        _, axes = np.linalg.eigh(moments)
        return cls(mean, axes[:, ::-1])

    def project(self, vectors: Matrix, dims: int) -> Matrix:
        """Return the first `dims` coordinates, (n, dims) float32."""
        axes = self.axes[:, :dims]
        parts = [(block - self.mean) @ axes for block in _blocks(vectors)]
        return np.concatenate(parts).astype(np.float32)


def principal(gallery: Matrix, queries: Matrix, dims: tuple[int, ...]) -> Iterator[Made]:
    """Yield PCA to each of `dims`, and the same without centring."""
    for name, centred in (("PCA", True), ("PCA, not centred", False)):
        components = Components.of(gallery, centred=centred)
        both = (components.project(rows, max(dims)) for rows in (gallery, queries))
        projected, asked = both
        for m in dims:
            yield floats(name, projected[:, :m], asked[:, :m])


def binary(gallery: Matrix, queries: Matrix, *, centred: bool) -> Made:
    """Return one bit a dimension, searched by float queries (asymmetric scoring).

    With `centred` bits tell on which side of the gallery's mean a value lies, without it their
    sign: of features that are never negative the latter hold nothing.
    """
    d = gallery.shape[1]
    mean = np.zeros(d, np.float32)
    if centred:
        sums = sum((block.sum(0) for block in _blocks(gallery)), np.zeros(d))
        mean = (sums / len(gallery)).astype(np.float32)
    signs = np.empty(gallery.shape, np.int8)
    for start in range(0, len(gallery), ROWS):
        signs[start : start + ROWS] = np.where(gallery[start : start + ROWS] > mean, 1, -1)
    name = "binary, centred" if centred else "binary"
    return Made(name, None, d, d / 8, signs, queries - mean)


def _blocks(vectors: Matrix) -> Iterator[npt.NDArray[np.float64]]:
    for start in range(0, len(vectors), ROWS):
        yield vectors[start : start + ROWS].astype(np.float64)


# --- codes ------------------------------------------------------------------------------------


def codes(gallery: SparseCodes, queries: SparseCodes, k: int, supervision: str | None) -> Made:
    """Return codes cut to `k` active latents."""
    name = "CSR" if supervision is None else f"CSR, {supervision}"
    return Made(name, supervision, k, LATENT_BYTES * k, gallery.truncated(k), queries.truncated(k))
