"""`csr bench labels`: vectors with labels, such as image features of ImageNet."""

from pathlib import Path
from typing import Annotated

import typer

from csr_qdrant.benchmarks.matrix.config import WORK, BenchConfig
from csr_qdrant.cli.bench.running import OF_SOME, SECTION, BenchFolder, EngineSettings, run
from csr_qdrant.cli.options import AsJson, Quiet, configured_as
from csr_qdrant.cli.output import Output


@configured_as(SECTION, OF_SOME)
def labels(
    gallery: Annotated[
        Path,
        typer.Argument(
            metavar="GALLERY",
            help="Vectors that are searched: .npz with data and label, a folder of such parts, "
            "or .npy with labels beside it.",
        ),
    ],
    queries: Annotated[Path, typer.Argument(metavar="QUERIES", help="Vectors to search for.")],
    config: BenchConfig,
    server: EngineSettings,
    rank: Annotated[list[int] | None, typer.Option(help="mAP@k and P@k.  [default: 10]")] = None,
    knn: Annotated[list[int] | None, typer.Option(help="Neighbours of a k-NN vote.")] = None,
    output: BenchFolder = Path("bench-labels"),
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure nearest-neighbour classification: 1-NN top-1, k-NN, mAP@k and P@k.

    As the papers measure ImageNet: the train set is searched for each validation image. Encoders
    and adapters are trained on the gallery alone and with its labels.
    """
    from csr_qdrant.benchmarks.image_bench import labelled_bench
    from csr_qdrant.benchmarks.labelled_task import load_pair

    out = Output(as_json=json, quiet=quiet)
    data = load_pair(gallery, queries, unpacked=output / WORK)
    ranks, voters = tuple(rank or (10,)), tuple(knn or ())
    run(out, labelled_bench(gallery.stem, data, ranks=ranks, knn=voters), config, output, server)
