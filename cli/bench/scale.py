"""`csr bench scale`: what codes would cost at a hundred million vectors."""

from pathlib import Path
from typing import Annotated

import typer

from csr_qdrant.cli.options import AsJson, Quiet
from csr_qdrant.cli.output import Output


def scale(
    vectors: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="Real vectors, .npy; default: the shipped data's."),
    ] = None,
    fitted: Annotated[list[int] | None, typer.Option(help="Sizes to fit the model to.")] = None,
    checked: Annotated[list[int] | None, typer.Option(help="Sizes to check it at.")] = None,
    h: Annotated[int, typer.Option(help="Latents.")] = 4096,
    k: Annotated[int, typer.Option(help="Active latents of documents.")] = 32,
    steps: Annotated[int, typer.Option(help="Steps of training.")] = 600,
    datatype: Annotated[str, typer.Option(help="f32 or u8.")] = "f32",
    queries: Annotated[int, typer.Option(help="Queries that are timed.")] = 200,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the record.")] = Path(),
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Predict latency and RAM of large collections from runs that fit this machine.

    Real vectors are resampled with noise to each size, encoded and indexed; a model of floor,
    documents and postings is fitted to the smaller sizes and checked at the larger.
    """
    from csr_qdrant.benchmarks.scale import simulated
    from csr_qdrant.benchmarks.scale_report import lines

    out = Output(as_json=json, quiet=quiet)
    results, path = simulated(
        vectors=vectors,
        fitted=tuple(fitted or ()),
        checked=tuple(checked or ()),
        h=h,
        k=k,
        steps=steps,
        datatype=datatype,
        queries=queries,
        output=output,
    )
    out.result(results, *[f"{name}: {line}" for name, line in lines(results)])
    out.note(f"record: {path}")
