"""`csr bench report`: reports of finished runs, written anew or together."""

from pathlib import Path
from typing import Annotated, Any

import typer

from csr_qdrant.cli.options import AsJson, Quiet
from csr_qdrant.cli.output import Output


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN…", help="Folders of runs, or their report.json.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The page to write.")
    ] = Path("report.html"),
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show the tables of finished runs, and put all of them on one page."""
    from csr_qdrant.benchmarks.report.format import load_report
    from csr_qdrant.benchmarks.report.page import write_page
    from csr_qdrant.benchmarks.report.terminal import terminal_sentences, terminal_table

    out = Output(as_json=json, quiet=quiet)
    reports = [load_report(path / "report.json" if path.is_dir() else path) for path in runs]
    write_page(output, *reports)
    views: list[Any] = []
    for each in reports:
        views += [terminal_table(each), *terminal_sentences(each)]
    out.result({"page": str(output), "tasks": [each.task.name for each in reports]}, *views)
    out.note(f"page: {output}")
