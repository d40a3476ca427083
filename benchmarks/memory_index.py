"""How much memory indexing takes beyond what the engine itself needs.

    python -m csr_qdrant.benchmarks.memory_index --folder /a/disk/with/20/GB

One process indexes a memory-mapped `.npy` of dense vectors with `index_source`; another upserts
the same codes, encoded beforehand and read from a file block by block, in a plain loop. This
process samples the anonymous resident memory (RssAnon) of each; the difference of the peaks is
what reading, encoding and checking add. Files are deleted afterwards.
"""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from csr_qdrant.benchmarks.memory_peaks import peak_of, prepare, record_peaks
from csr_qdrant.benchmarks.record import RESULTS
from csr_qdrant.codes_file import CodesFile
from csr_qdrant.collection import Collection
from csr_qdrant.encoder import Encoder
from csr_qdrant.indexing import FLUSH_ROWS, IndexConfig, index_source
from csr_qdrant.sources import open_source
from csr_qdrant.stores.base import Schema
from csr_qdrant.stores.edge import EdgeStore

UPSERT_ROWS = 256


def index_vectors(folder: Path, optimise: bool) -> None:
    """Index `vectors.npy` of `folder` with its encoder: the run that is measured."""
    encoder = Encoder.load(folder / "encoder")
    source = open_source(folder / "vectors.npy")
    with Collection.create(folder / "ours", encoder) as collection:
        index_source(source, collection, IndexConfig(optimise=optimise))


def upsert_codes(folder: Path, optimise: bool) -> None:
    """Upsert `codes.safetensors` of `folder` in a loop: what it is compared with."""
    import qdrant_edge

    with CodesFile(folder / "codes.safetensors") as file:
        store = EdgeStore.create(folder / "loop", Schema(h=file.h))
        shard: Any = vars(store)["_handle"]
        for start in range(0, len(file), UPSERT_ROWS):
            codes = file.read(start, start + UPSERT_ROWS).to_edge()
            points = [qdrant_edge.Point(start + i, {"csr": c}, {}) for i, c in enumerate(codes)]
            shard.update(qdrant_edge.UpdateOperation.upsert_points(points))
            if (start + UPSERT_ROWS) % FLUSH_ROWS == 0:
                shard.flush()
        shard.flush()
        if optimise:
            shard.optimize()
        store.close()


RUNS = {"index_vectors": index_vectors, "upsert_codes": upsert_codes}


def main(
    rows: Annotated[int, typer.Option(help="Rows of the memory map.")] = 2_000_000,
    d: Annotated[int, typer.Option(help="Dimensions.")] = 768,
    h: Annotated[int, typer.Option(help="Latents.")] = 3072,
    k: Annotated[int, typer.Option(help="Active latents.")] = 32,
    optimise: Annotated[bool, typer.Option(help="Build the index at the end.")] = True,
    folder: Annotated[Path | None, typer.Option(help="Where to put the temporary files.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    run: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Sample the peak memory of indexing vectors and of upserting their codes."""
    if run is not None:
        RUNS[run](folder or Path(), optimise)
        return
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        prepare(Path(temporary), rows, d, h, k)
        flag = "--optimise" if optimise else "--no-optimise"
        peaks = {name: peak_of(__spec__.name, name, Path(temporary), flag) for name in RUNS}
    params = {"rows": rows, "d": d, "h": h, "k": k, "optimise": optimise}
    record_peaks("memory_index", params, "index_vectors", "upsert_codes", peaks, output)


if __name__ == "__main__":
    typer.run(main)
