"""`csr bench export`: codes for qdrant/vector-db-benchmark."""

from pathlib import Path
from typing import Annotated

import typer

from csr_qdrant.cli.options import AsJson, Overwrite, Quiet
from csr_qdrant.cli.output import Output


def export(
    documents: Annotated[
        Path, typer.Argument(metavar="DOCUMENTS", help="Codes that csr embed wrote, .safetensors.")
    ],
    queries: Annotated[Path, typer.Argument(metavar="QUERIES", help="Codes of the queries.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    depth: Annotated[int, typer.Option(help="Exact results of each query.")] = 100,
    overwrite: Overwrite = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write codes and their exact results in vector-db-benchmark's sparse format.

    Put the folder under that benchmark's datasets/, and dataset.json's entry into its list.
    """
    from csr_qdrant.benchmarks.export_vector_db import export as write
    from csr_qdrant.codes import SparseCodes
    from csr_qdrant.codes_file import CodesFile

    out = Output(as_json=json, quiet=quiet)
    with CodesFile(documents) as stored:
        made = write(output, stored, SparseCodes.load(queries), depth=depth, overwrite=overwrite)
    short = ""
    if made.short_queries:
        short = (
            f"; {made.short_queries:,} queries have fewer than {depth} results, so no engine "
            "reaches precision 1 there"
        )
    out.result(
        {**made._asdict(), "folder": str(output)},
        f"wrote {made.documents:,} documents and {made.queries:,} queries to {output}{short}",
    )
