"""Made-up vectors, codes and encoders for measuring speed; every seed is fixed."""

from pathlib import Path

import numpy as np

from csr_qdrant.benchmarks.neighbours import Matrix, unit_rows
from csr_qdrant.codes import SparseCodes
from csr_qdrant.encoder import Encoder

BLOCK = 16_384


def random_vectors(path: Path, n: int, d: int, *, seed: int = 0) -> Matrix:
    """Write (n, d) float32 unit vectors to the `.npy` file `path`, and return it memory-mapped."""
    generator = np.random.default_rng(seed)
    written = np.lib.format.open_memmap(path, "w+", np.float32, (n, d))
    for start in range(0, n, BLOCK):
        size = min(BLOCK, n - start)
        written[start : start + size] = unit_rows(
            generator.standard_normal((size, d), dtype=np.float32)
        )
    written.flush()
    del written
    mapped: Matrix = np.load(path, mmap_mode="r")
    return mapped


def random_encoder(*, d: int, h: int, k: int, seed: int = 0) -> Encoder:
    """Return an untrained encoder: speed does not depend on what the weights mean."""
    generator = np.random.default_rng(seed)
    weight = unit_rows(generator.standard_normal((h, d), dtype=np.float32))
    small = generator.standard_normal(h + d, dtype=np.float32) * np.float32(0.01)
    return Encoder(weight=weight, latent_bias=small[:h], pre_bias=small[h:], k=k)


def random_codes(n: int, *, h: int, k: int, seed: int = 0) -> SparseCodes:
    """Return n normalised codes of k latents each, used evenly, with falling values."""
    generator = np.random.default_rng(seed)
    blocks = []
    for start in range(0, n, BLOCK):
        size = min(BLOCK, n - start)
        # One latent from each of k strips: distinct without sorting h numbers a row.
        latents = generator.integers(0, h // k, (size, k)) + np.arange(k) * (h // k)
        values = generator.exponential(1.0, (size, k)).astype(np.float32) + np.float32(0.01)
        blocks.append(SparseCodes.from_topk(latents, values, h))
    return SparseCodes.concatenate(blocks).normalised()
