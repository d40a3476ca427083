"""`csr bench retrieval-time`: the paper's figure 3, beside the engine."""

from pathlib import Path
from typing import Annotated

import typer

from csr_qdrant.cli.options import AsJson, Quiet
from csr_qdrant.cli.output import Output, table


def retrieval_time(
    rows: Annotated[list[int] | None, typer.Option(help="Sizes of the database.")] = None,
    h: Annotated[list[int] | None, typer.Option(help="Latents.")] = None,
    k: Annotated[list[int] | None, typer.Option(help="Active latents.")] = None,
    d: Annotated[int, typer.Option(help="Dimensions of the dense vectors.")] = 768,
    batch: Annotated[int, typer.Option(help="Queries of a batch.")] = 512,
    rounds: Annotated[int, typer.Option(help="Batches that are timed.")] = 5,
    device: Annotated[str, typer.Option(help="cpu, or cuda (unverified).")] = "cpu",
    engine: Annotated[bool, typer.Option(help="Time the engine, too.")] = True,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the record.")] = Path(),
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Time dense and sparse matrix products and the engine, over size, h and k.

    The paper times products of batches; a database answers one query at a time. Both are here.
    """
    from csr_qdrant.benchmarks.retrieval_time import RetrievalConfig, recorded

    out = Output(as_json=json, quiet=quiet)
    grid = RetrievalConfig()
    config = RetrievalConfig(
        rows=tuple(rows or grid.rows),
        hs=tuple(h or grid.hs),
        ks=tuple(k or grid.ks),
        d=d,
        batch=batch,
        singles=min(grid.singles, batch),
        rounds=rounds,
        device=device,
        engine=engine,
    )
    cells, path = recorded(config, output, out.note)
    shown = [
        (
            f"{cell['rows']:,}",
            f"{cell['h']:,}",
            cell["k"],
            way,
            f"{ms['batch_ms']:.1f}",
            f"{ms['single_p50_ms']:.3f}",
        )
        for cell in cells
        for way, ms in cell["ways"].items()
    ]
    columns = ("rows", "h", "k", "way", f"ms a batch of {batch}", "ms a query")
    out.result({"cells": cells, "record": str(path)}, table(columns, shown))
