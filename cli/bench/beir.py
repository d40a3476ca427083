"""`csr bench beir`: a folder of texts, queries and judgements."""

from pathlib import Path
from typing import Annotated

import typer

from csr_qdrant.benchmarks.matrix.config import BenchConfig
from csr_qdrant.cli.bench.running import (
    OF_SOME,
    SECTION,
    EmbedderUri,
    EngineSettings,
    run,
    work_folder,
)
from csr_qdrant.cli.options import AsJson, Quiet, configured_as
from csr_qdrant.cli.output import Output


@configured_as(SECTION, OF_SOME)
def beir(
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder in BEIR's layout.")],
    config: BenchConfig,
    server: EngineSettings,
    split: Annotated[str, typer.Option(help="Judgements to measure by.")] = "test",
    train: Annotated[
        str, typer.Option(help="Judgements to learn from, where the folder has them.")
    ] = "train",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the run.  [default: bench-NAME]"),
    ] = None,
    embedder: EmbedderUri = "wordllama",
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure on a BEIR folder: corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv, gzip or not."""
    from csr_qdrant.cli.bench.texts import TextsTask
    from csr_qdrant.cli.embedding import named_embedder

    out = Output(as_json=json, quiet=quiet)
    model = named_embedder(embedder, config.device)
    name = source.resolve().name
    folder = output or Path(f"bench-{name}")
    texts = TextsTask(out, source, model, work_folder(folder, model.uri, source))
    run(out, texts.task(name, split, train), config, folder, server)
