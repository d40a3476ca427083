"""Larger corpora out of real vectors: rows drawn again, moved within their own neighbourhood.

    python -m csr_qdrant.benchmarks.resampled million.npy --rows 1000000

Row i is a real row x_r, r drawn at random, plus noise made of the differences to its ten nearest
rows: y = x_r + s/√10 Σ_j g_j (x_j − x_r) with g_j normal, brought to the norm of x_r. Noise of this
kind stays in the directions in which the data vary around x_r; noise of equal size in every
direction moves queries away from all copies of a row alike, and their neighbours become ties.

The scale s is 1; docs/scale.md says how it was chosen and what the distances look like, `structure`
measures it. Copies of one row still lie closer to each other than new texts would, so a corpus
made like this serves for latency, bytes and recall of dense neighbours, never for task quality.

Output is made in chunks with a generator each, so a row depends on the seed and its number alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import typer

from csr_qdrant.atomic import replaced_file
from csr_qdrant.benchmarks.neighbours import Matrix, exact_neighbours, unit_rows
from csr_qdrant.errors import ConfigError

NEIGHBOURS, SCALE = 10, 1.0
CHUNK = 4096  # rows that share a generator
MOST_REAL = 32_768  # real rows that are drawn from: finding all their neighbours is quadratic
BLOCK = 16_384
HELD_OUT = 1000  # queries out of a file of vectors


@dataclass(frozen=True, eq=False, kw_only=True)
class Resampler:
    """Rows 0, 1, … without end, out of real ones; `fitted_to` finds the neighbours."""

    real: Matrix  # (n, d)
    neighbours: npt.NDArray[np.int64]  # (n, NEIGHBOURS) rows of `real`, nearest first
    scale: float = SCALE
    seed: int = 0

    @classmethod
    def fitted_to(
        cls, vectors: Matrix, *, scale: float = SCALE, seed: int = 0, most: int = MOST_REAL
    ) -> "Resampler":
        """Return a resampler of at most `most` rows, chosen by the seed, of `vectors` (n, d).

        Raises ConfigError for fewer rows than neighbours, and for a negative scale.
        """
        if len(vectors) <= NEIGHBOURS or most <= NEIGHBOURS:
            raise ConfigError(
                f"resampling needs more than {NEIGHBOURS} real rows, got {min(len(vectors), most)}"
            )
        if not scale >= 0:
            raise ConfigError(f"the scale of the noise must be at least 0, got {scale}")
        rows = np.arange(len(vectors))
        if len(vectors) > most:
            rows = np.sort(np.random.default_rng(seed).choice(len(vectors), most, replace=False))
        real = np.array(vectors[rows], np.float32)
        return cls(real=real, neighbours=_nearest_others(real), scale=scale, seed=seed)

    def rows(self, start: int, stop: int) -> Matrix:
        """Return rows start..stop-1, (stop - start, d) float32; however they are cut, the same."""
        if stop <= start:
            return np.empty((0, self.real.shape[1]), np.float32)
        first, last = start // CHUNK, (stop - 1) // CHUNK
        made = np.concatenate([self._chunk(number) for number in range(first, last + 1)])
        return made[start - first * CHUNK : stop - first * CHUNK]

    def _chunk(self, number: int) -> Matrix:
        random = np.random.default_rng([self.seed, number])
        drawn = random.integers(0, len(self.real), CHUNK)
        weights = random.standard_normal((CHUNK, NEIGHBOURS), dtype=np.float32)
        weights *= np.float32(self.scale / np.sqrt(NEIGHBOURS))
        rows = self.real[drawn]
        # Σ w_j (x_j − x) = Σ w_j x_j − (Σ w_j) x, one neighbour at a time: (CHUNK, d) each.
        moved = rows * (1 - weights.sum(axis=1, keepdims=True))
        for j in range(NEIGHBOURS):
            moved += weights[:, j, None] * self.real[self.neighbours[drawn, j]]
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(unit_rows(moved) * norms, np.float32)


def write_resampled(path: Path, resampler: Resampler, n: int, *, block: int = BLOCK) -> Matrix:
    """Write `n` rows to the `.npy` file `path`, whole or not at all; return it memory-mapped."""
    if n < 1 or block < 1:
        raise ConfigError(f"rows and block must be at least 1, got {n} and {block}")
    with replaced_file(path) as temporary:
        shape = (n, resampler.real.shape[1])
        written = np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
        for start in range(0, n, block):
            stop = min(start + block, n)
            written[start:stop] = resampler.rows(start, stop)
        written.flush()
        del written
    mapped: Matrix = np.load(path, mmap_mode="r")
    return mapped


class Structure(NamedTuple):
    """How near the nearest rows are: medians over queries."""

    cosine_1: float  # to the nearest row
    cosine_10: float
    cosine_100: float
    dimension: float  # local intrinsic dimension, see `structure`

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the columns."""
        return cls._fields


def structure(queries: Matrix, vectors: Matrix, *, itself: bool = False) -> Structure:
    """Return how near the rows of `vectors` (n, d) are to `queries` (m, d); n is over 100.

    The local intrinsic dimension is the maximum-likelihood estimate of Levina and Bickel (NIPS
    2004) from the distances of 20 neighbours: −1 / mean(log(d_i / d_20)). With `itself` the
    queries are rows of `vectors`, and each one's nearest, itself, doesn't count.
    """
    skipped = int(itself)
    if len(vectors) < 100 + skipped:
        raise ConfigError(f"structure needs {100 + skipped} rows, got {len(vectors)}")
    cosines = exact_neighbours(queries, vectors, 100 + skipped).scores[:, skipped:]
    distances = np.sqrt(np.maximum(2 - 2 * cosines[:, :20].astype(np.float64), 1e-9))
    ratios = np.log(distances[:, :19] / distances[:, 19:])
    dimension = -1 / np.minimum(ratios.mean(axis=1), -1e-9)
    first, tenth, hundredth = np.median(cosines[:, [0, 9, 99]], axis=0).tolist()
    return Structure(first, tenth, hundredth, float(np.median(dimension)))


def compared_structures(
    vectors: Matrix, queries: Matrix, *, share: int = 8, sample: int = 500, seed: int = 0
) -> dict[str, dict[str, Structure]]:
    """Return how well resampling foretells: all real rows, and as many made out of one in `share`.

    A corpus grown from n/8 rows to n is held against the n real ones, by the distances from
    `queries` (m, d) and from rows to their own neighbours, at most `sample` of each.
    """
    random = np.random.default_rng(seed)
    part = vectors[np.sort(random.choice(len(vectors), len(vectors) // share, replace=False))]
    grown = Resampler.fitted_to(part, seed=seed).rows(0, len(vectors))
    found: dict[str, dict[str, Structure]] = {}
    for name, corpus in (("real", vectors), ("part", part), ("resampled", grown)):
        own = corpus[random.choice(len(corpus), min(sample, len(corpus)), replace=False)]
        found[name] = {
            "queries": structure(queries[:sample], corpus),
            "rows": structure(own, corpus, itself=True),
        }
    return found


class Real(NamedTuple):
    """Real vectors, and queries that are not among them."""

    vectors: Matrix  # (n, d), maybe memory-mapped
    queries: Matrix  # (m, d)


def real_vectors(path: Path | None) -> Real:
    """Return what to resample, and queries: the shipped data set's, or those of a `.npy` file.

    Of a file's rows the last ones are the queries: a tenth, 1,000 at most. Raises ConfigError for a
    file that is no matrix of numbers.
    """
    if path is None:
        from csr_qdrant.benchmarks.nave import Nave
        from csr_qdrant.benchmarks.nave_task import EMBEDDER, embed
        from csr_qdrant.embedders import load_embedder

        embedded = embed(Nave(), load_embedder(EMBEDDER), ("test",))
        return Real(embedded.corpus, embedded.queries["test"])
    try:
        vectors: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as a .npy file: {error}") from error
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise ConfigError(f"{path} must hold a matrix of floats, (rows, dimensions)")
    last = min(HELD_OUT, len(vectors) // 10)
    return Real(
        vectors[: len(vectors) - last], np.array(vectors[len(vectors) - last :], np.float32)
    )


def _nearest_others(rows: Matrix) -> npt.NDArray[np.int64]:
    """Return the nearest rows of each row but itself, (n, NEIGHBOURS)."""
    found = exact_neighbours(rows, rows, NEIGHBOURS + 1).rows
    others = found != np.arange(len(rows))[:, None]
    # A row with many duplicates may not be among its own nearest: then the last one goes.
    others[others.all(axis=1), -1] = False
    return np.asarray(found[others].reshape(len(rows), NEIGHBOURS), np.int64)


def _listed(found: dict[str, dict[str, Structure]]) -> Iterator[str]:
    for corpus, kinds in found.items():
        for kind, each in kinds.items():
            figures = ", ".join(
                f"{name} {value:.3f}" for name, value in zip(each.names(), each, strict=True)
            )
            yield f"{corpus}, from {kind}: {figures}"


def main(
    output: Annotated[Path, typer.Argument(help="The .npy file to write.")],
    rows: Annotated[int, typer.Option(help="Rows to make.")] = 1_000_000,
    vectors: Annotated[
        Path | None, typer.Option(help="Real vectors, .npy; default: the shipped data set's.")
    ] = None,
    scale: Annotated[float, typer.Option(help="Scale of the noise.")] = SCALE,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    compare: Annotated[bool, typer.Option(help="Measure how well resampling foretells.")] = False,
) -> None:
    """Write a larger corpus that is made out of real vectors."""
    real, queries = real_vectors(vectors)
    write_resampled(output, Resampler.fitted_to(real, scale=scale, seed=seed), rows)
    typer.echo(f"resampled: {rows} rows out of {len(real)} written to {output}")
    if compare:
        for line in _listed(compared_structures(np.asarray(real), queries, seed=seed)):
            typer.echo(f"resampled: {line}")


if __name__ == "__main__":
    typer.run(main)
