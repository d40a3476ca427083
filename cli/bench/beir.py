"""`csr bench beir`: a folder of texts, queries and judgements."""

from pathlib import Path
from typing import Annotated

import typer

from csr_qdrant.benchmarks.matrix.config import BenchConfig
from csr_qdrant.cli.bench.running import BenchFolder, EmbedderUri, run, work_folder
from csr_qdrant.cli.options import AsJson, Quiet, configured_as
from csr_qdrant.cli.output import Output


@configured_as("bench")
def beir(
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder in BEIR's layout.")],
    config: BenchConfig,
    split: Annotated[str, typer.Option(help="Judgements to measure by.")] = "test",
    train: Annotated[
        str, typer.Option(help="Judgements to learn from, where the folder has them.")
    ] = "train",
    output: BenchFolder = Path("bench-beir"),
    embedder: EmbedderUri = "wordllama",
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure on a BEIR folder: corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv, gzip or not."""
    from csr_qdrant.cli.bench.texts import TextsTask
    from csr_qdrant.cli.embedding import named_embedder

    out = Output(as_json=json, quiet=quiet)
    model = named_embedder(embedder, config.device)
    texts = TextsTask(out, source, model, work_folder(output, model.uri))
    run(out, texts.task(source.resolve().name, split, train), config, output)
