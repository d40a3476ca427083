"""What the benchmarks' commands share: running one, and showing its report."""

import hashlib
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csr_qdrant.benchmarks.matrix.config import WORK, BenchConfig
from csr_qdrant.cli.keys import KEY_HELP
from csr_qdrant.cli.output import Output
from csr_qdrant.cli.places import ServerPlace, ServerSettings
from csr_qdrant.cli.rows import about
from csr_qdrant.errors import CsrError

if TYPE_CHECKING:
    from csr_qdrant.benchmarks.engine import Engine
    from csr_qdrant.benchmarks.matrix.models import Watch
    from csr_qdrant.benchmarks.matrix.task import BenchTask

SECTION = "bench"  # of settings files, and in variables
# Settings that only some of them have.
OF_SOME = ("url", "collection", "api_key_file", "grpc", "timeout")

BenchFolder = Annotated[
    Path,
    typer.Option("--output", "-o", help="Folder of indexes, figures and reports; taken up again."),
]
EmbedderUri = Annotated[
    str, typer.Option("--embedder", metavar="URI", help="What makes vectors of texts.")
]


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Which engine holds the indexes: the embedded one, or a server."""

    url: str | None = field(
        default=None,
        metadata=about(
            "Qdrant server that is measured instead of the embedded engine, in temporary "
            "collections csr-bench-….",
            "URL",
        ),
    )
    api_key_file: Path | None = field(default=None, metadata=about(KEY_HELP, "FILE"))
    grpc: bool = field(default=False, metadata=about("Speak gRPC with the server."))
    timeout: int | None = field(
        default=None, metadata=about("Seconds to wait for an answer of the server.", "SECONDS")
    )


def work_folder(output: Path, embedder: str, source: Path) -> Path:
    """Return where a benchmark keeps the vectors that an embedder makes of a source."""
    made_of = f"{embedder} {source.resolve()}"
    return output / WORK / hashlib.sha256(made_of.encode()).hexdigest()[:8]


def run(
    out: Output,
    task: "BenchTask",
    config: BenchConfig,
    folder: Path,
    server: EngineSettings = EngineSettings(),
) -> None:
    """Measure `task`, write all reports into `folder`, and show the table."""
    from csr_qdrant.benchmarks.matrix.run import run_benchmark
    from csr_qdrant.stores.server_config import without_passwords

    command = "csr " + shlex.join(without_passwords(sys.argv[1:]))
    with _engine(out, folder, server) as engine:
        report = run_benchmark(
            task, config, folder, out.note, watching(out, config), command, engine
        )
    show(out, folder, report)


def watching(out: Output, config: BenchConfig) -> "Watch":
    """Return what shows each training of a benchmark as it goes on."""

    @contextmanager
    def watch(name: str) -> Iterator[Any]:
        from csr_qdrant.cli.watch import Watch
        from csr_qdrant.trainer import TrainConfig

        out.note(name)
        with Watch(out, TrainConfig(minutes=config.minutes)) as shown:
            yield shown.listeners

    return watch


@contextmanager
def _engine(out: Output, folder: Path, server: EngineSettings) -> Iterator["Engine"]:
    if server.url is None:
        from csr_qdrant.benchmarks.edge_engine import EdgeEngine

        yield EdgeEngine()
        return
    from csr_qdrant.benchmarks.server_engine import ServerEngine

    reached = ServerSettings(**asdict(server))
    client = ServerPlace(server.url, "", reached).client
    with ServerEngine(client, folder, out.warn, owns_client=True) as engine:
        yield engine


def show(out: Output, folder: Path, document: dict[str, Any]) -> None:
    """Write the reports of a finished run into `folder` and show them."""
    from csr_qdrant.benchmarks.report.format import parse_report
    from csr_qdrant.benchmarks.report.markdown import write_markdown
    from csr_qdrant.benchmarks.report.page import write_page
    from csr_qdrant.benchmarks.report.png import write_png
    from csr_qdrant.benchmarks.report.terminal import terminal_sentences, terminal_table

    report = parse_report(document)
    write_markdown(folder / "report.md", report)
    write_page(folder / "report.html", report)
    try:
        write_png(folder / "report.png", report)
    except CsrError as error:  # nothing to plot, or no matplotlib: the page has all of it
        out.note(f"no report.png: {error}")
    out.result(document, terminal_table(report), *terminal_sentences(report))
    out.note(f"report: {folder / 'report.html'}, report.md, report.json")
