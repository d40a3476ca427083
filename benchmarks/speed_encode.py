"""How long `Encoder.encode` takes, against the bare matrix product that no encoder can avoid.

    python -m csr_qdrant.benchmarks.speed_encode

Both read the same memory-mapped rows in blocks of the same size, on the same threads; the product
is discarded. Calls alternate, and the medians are compared.
"""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from csr_qdrant.benchmarks.measure import interleaved_medians
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.benchmarks.record import RESULTS, report, write_record
from csr_qdrant.benchmarks.synthetic import random_encoder, random_vectors
from csr_qdrant.encoder import BLOCK_BYTES, Encoder

GOALS = {"torch": 1.4, "numpy": 2.0}  # times the product's time, at most


def bare_product(encoder: Encoder, vectors: Matrix, kind: str) -> Callable[[], None]:
    """Return a call that multiplies all rows by W transposed, block by block."""
    step = max(64, BLOCK_BYTES // (4 * encoder.h))
    starts = range(0, len(vectors), step)
    if kind == "numpy":
        transposed, output = encoder.weight.T, np.empty((step, encoder.h), np.float32)

        def by_numpy() -> None:
            for start in starts:
                block = vectors[start : start + step]
                np.matmul(block, transposed, out=output[: len(block)])

        return by_numpy
    import torch

    weight, result = torch.from_numpy(encoder.weight).T, torch.empty(step, encoder.h)

    def by_torch() -> None:
        with torch.inference_mode():
            for start in starts:
                block = torch.from_numpy(vectors[start : start + step])
                torch.mm(block, weight, out=result[: len(block)])

    return by_torch


def measure(encoder: Encoder, vectors: Matrix, kind: str, rounds: int) -> dict[str, Any]:
    """Return the median seconds of encoding and product with `kind`, `torch` or `numpy`."""
    device = {"torch": "cpu", "numpy": "numpy"}[kind]
    calls = {
        "encode_s": lambda: encoder.encode(vectors, device=device),
        "product_s": bare_product(encoder, vectors, kind),
    }
    found = interleaved_medians(calls, rounds)
    return {**found, "ratio": found["encode_s"] / found["product_s"], "goal_at_most": GOALS[kind]}


def main(
    rows: Annotated[int, typer.Option(help="Rows of the memory map.")] = 100_000,
    d: Annotated[int, typer.Option(help="Dimensions.")] = 768,
    h: Annotated[int, typer.Option(help="Latents.")] = 3072,
    k: Annotated[int, typer.Option(help="Active latents.")] = 32,
    rounds: Annotated[int, typer.Option(help="Calls of each kind.")] = 7,
    output: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Time encoding against the bare product, with torch and with numpy."""
    encoder = random_encoder(d=d, h=h, k=k)
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")
    with tempfile.TemporaryDirectory() as folder:
        vectors = random_vectors(Path(folder) / "vectors.npy", rows, d)
        results = {kind: measure(encoder, vectors, kind, rounds) for kind in GOALS}
    params = {"rows": rows, "d": d, "h": h, "k": k, "rounds": rounds}
    path = write_record("speed_encode", params, results, output)
    lines = {
        kind: f"encode {r['encode_s']:.2f} s, product {r['product_s']:.2f} s, "
        f"ratio {r['ratio']:.2f} (goal: at most {r['goal_at_most']})"
        for kind, r in results.items()
    }
    report("speed_encode", lines, path)


if __name__ == "__main__":
    typer.run(main)
