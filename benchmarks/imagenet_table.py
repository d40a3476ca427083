"""The authors' published embeddings and checkpoints, scored against their ImageNet table.

    python -m csr_qdrant.benchmarks.imagenet_table --gallery TRAIN.npz --queries VAL.npz \
        --encoder 8=K8.pth --encoder 32=K32.pth --unpacked FOLDER

The embeddings (`data`, `label`) are those of W1nd-navigator/CSR-precompute-embeds on the hub, or
parts of them in a folder each; the checkpoints are linked from neilwen987/CSR_Adaptive_Rep. An
encoder may also be a folder that `csr train` wrote. Nothing is trained here.

The protocol is the paper's (arXiv 2503.01776, table 4): the database is the train set, the queries
are the validation set, and a query is right if the database's nearest row by cosine has its label.
Search is exact over the sparse codes, which gives what FAISS finds over the same codes filled up
with zeros to h dimensions, without the 42 GB that these take.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from csr_qdrant.benchmarks.dims_systems import nearest_codes
from csr_qdrant.benchmarks.faiss_exact import ground_truth
from csr_qdrant.benchmarks.labelled_metrics import top1
from csr_qdrant.benchmarks.labelled_task import LabelledData, load_pair
from csr_qdrant.benchmarks.metrics import Floats, bootstrap_difference
from csr_qdrant.benchmarks.neighbours import Neighbours
from csr_qdrant.benchmarks.record import RESULTS, write_record
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.integrations.checkpoint import read_checkpoint

# arXiv 2503.01776, table 4: 1-NN top-1 in per cent by active latents, or dimensions for MRL.
PUBLISHED: Mapping[str, Mapping[int, float]] = {
    "CSR": {8: 67.78, 16: 69.17, 32: 70.15, 64: 70.94, 128: 70.99, 256: 71.31},
    "MRL": {8: 62.19, 16: 67.91, 32: 69.46, 64: 70.17, 128: 70.52, 256: 70.62},
}
PUBLISHED_DENSE = 71.19
DENSE = "dense"


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One line of the table, in per cent."""

    system: str  # `CSR` or `dense`
    active: int  # latents or dimensions
    top1: float
    low: float  # of the 95 % bootstrap interval over queries
    high: float
    published: float | None  # of the same system, where the paper gives it
    published_mrl: float | None

    @property
    def agrees(self) -> bool | None:
        """Whether the interval holds the published figure."""
        return None if self.published is None else self.low <= self.published <= self.high

    def to_json(self) -> dict[str, Any]:
        """Return the line for a record."""
        return {**self.__dict__, "agrees": self.agrees}


def scored(
    data: LabelledData,
    encoders: Mapping[int, Encoder],
    *,
    dense: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> list[Scored]:
    """Return 1-NN top-1 of the codes of each encoder at its k, and of the dense vectors if asked.

    Codes of both sides are held in memory: 8 bytes a latent and row. `progress` is told each step
    before it begins. Raises CsrError for vectors that an encoder does not take.
    """
    lines = []
    for k, encoder in sorted(encoders.items()):
        progress(f"encoding at k={k}")
        gallery, queries = (
            encoder.encode(rows.vectors, k, name=rows.name) for rows in (data.gallery, data.queries)
        )
        progress(f"searching codes of k={k}")
        found = nearest_codes(queries, gallery, 1)
        published = (PUBLISHED["CSR"].get(k), PUBLISHED["MRL"].get(k))
        lines.append(_line("CSR", k, data, found, *published))
    if dense:
        progress("searching dense vectors")
        found = ground_truth(data.queries.vectors, data.gallery.vectors, 1)
        d = data.gallery.vectors.shape[1]
        lines.append(_line(DENSE, d, data, found, PUBLISHED_DENSE, None))
    return lines


def _line(
    system: str,
    active: int,
    data: LabelledData,
    found: Neighbours,
    published: float | None,
    mrl: float | None,
) -> Scored:
    values: Floats = 100 * top1(found, data.gallery.labels, data.queries.labels)
    mean, low, high = bootstrap_difference(values, 0 * values)
    return Scored(
        system=system,
        active=active,
        top1=mean,
        low=low,
        high=high,
        published=published,
        published_mrl=mrl,
    )


def read_encoders(given: Sequence[str]) -> dict[int, Encoder]:
    """Return encoders by k of `K=PATH` settings: checkpoints of the authors, or our folders."""
    encoders: dict[int, Encoder] = {}
    for each in given:
        k, equals, path = each.partition("=")
        if not equals or not k.strip().isdecimal():
            raise ConfigError(f"encoders are written K=PATH, such as 8=k8.pth, got {each!r}")
        place = Path(path).expanduser()
        if place.is_dir():
            encoders[int(k)] = Encoder.load(place).with_k(int(k))
        else:
            encoders[int(k)] = read_checkpoint(place, int(k))
    return encoders


def show(lines: Sequence[Scored]) -> None:
    """Print the table."""
    columns = ("", "active", "top-1 %", "95 % interval", "published", "MRL, published", "agrees")
    table = Table(*columns, title="ImageNet, 1-NN")
    for line in lines:
        known = (line.published, line.published_mrl)
        published, mrl = ("–" if value is None else f"{value:.2f}" for value in known)
        verdict = {None: "–", True: "yes", False: "no"}[line.agrees]
        interval = f"{line.low:.2f}–{line.high:.2f}"
        cells = (f"{line.active}", f"{line.top1:.2f}", interval, published, mrl, verdict)
        table.add_row(line.system, *cells)
    Console(width=100).print(table)


def main(
    gallery: Annotated[Path, typer.Option(help="Train set: .npz, folder of parts, or .npy.")],
    queries: Annotated[Path, typer.Option(help="Validation set, likewise.")],
    encoder: Annotated[
        list[str], typer.Option(metavar="K=PATH", help="Checkpoint (.pth) or encoder folder.")
    ] = [],  # noqa: B006
    unpacked: Annotated[
        Path | None, typer.Option(help="Folder for unpacked .npz; default: in memory.")
    ] = None,
    dense: Annotated[bool, typer.Option("--dense", help="Score the dense vectors, too.")] = False,
    name: Annotated[str, typer.Option(help="Name of the record.")] = "imagenet",
    output: Annotated[Path, typer.Option(help="Folder of the record.")] = RESULTS,
) -> None:
    """Score encoders, print the table beside the published one, and write a record."""
    try:
        if not encoder and not dense:
            raise ConfigError("there is nothing to score: give --encoder K=PATH, or --dense")
        encoders = read_encoders(encoder)
        _tell("reading vectors")
        data = load_pair(gallery, queries, unpacked=unpacked)
        lines = scored(data, encoders, dense=dense, progress=_tell)
    except CsrError as error:
        typer.echo(f"imagenet_table: {error}", err=True)
        raise typer.Exit(error.exit_code) from error
    params = {"gallery": gallery.name, "queries": queries.name, "encoders": sorted(encoders)}
    results = {
        "gallery": len(data.gallery.labels),
        "queries": len(data.queries.labels),
        "classes": data.classes,
        "d": data.gallery.vectors.shape[1],
        "systems": [line.to_json() for line in lines],
    }
    path = write_record(name, params, results, output)
    show(lines)
    typer.echo(f"imagenet_table: written to {path}")


def _tell(step: str) -> None:
    typer.echo(f"imagenet_table: {step}", err=True)


if __name__ == "__main__":
    typer.run(main)
