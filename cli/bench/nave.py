"""`csr bench nave`: the data set that comes with the package."""

from pathlib import Path

from csr_qdrant.benchmarks.matrix.config import BenchConfig
from csr_qdrant.cli.bench.running import (
    OF_SOME,
    SECTION,
    BenchFolder,
    EmbedderUri,
    EngineSettings,
    run,
    work_folder,
)
from csr_qdrant.cli.options import AsJson, Quiet, configured_as
from csr_qdrant.cli.output import Output


@configured_as(SECTION, OF_SOME)
def nave(
    config: BenchConfig,
    server: EngineSettings,
    output: BenchFolder = Path("bench-nave"),
    embedder: EmbedderUri = "wordllama",
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure on Nave's Topical Bible: 2,609 test topics over 31,095 verses.

    Encoders and adapters are trained on the verses alone and with the train topics' pairs.
    """
    from csr_qdrant.benchmarks.nave import Nave
    from csr_qdrant.cli.bench.texts import TextsTask
    from csr_qdrant.cli.embedding import named_embedder

    out, data = Output(as_json=json, quiet=quiet), Nave()
    model = named_embedder(embedder, config.device)
    texts = TextsTask(out, data.folder, model, work_folder(output, model.uri, data.folder))
    run(out, texts.task("nave", "test", "train"), config, output, server)
