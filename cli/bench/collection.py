"""`csr bench collection`: a collection that is there already, by its own vectors."""

import os
from pathlib import Path
from typing import Annotated

import typer

from csr_qdrant.benchmarks.matrix.config import WORK, BenchConfig
from csr_qdrant.cli.bench.running import OF_SOME, SECTION, BenchFolder, EngineSettings, run
from csr_qdrant.cli.opening import open_vectors
from csr_qdrant.cli.options import AsJson, Quiet, configured_as
from csr_qdrant.cli.output import Output
from csr_qdrant.cli.places import URL_VARIABLE, ServerSettings, place_of
from csr_qdrant.errors import ConfigError


@configured_as(SECTION, OF_SOME)
def collection(
    config: BenchConfig,
    server: ServerSettings,
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="FOLDER", help="Folder of a collection; left out with --url."),
    ] = None,
    vector: Annotated[
        str | None, typer.Option(help="Name of the dense vector.  [default: the only one]")
    ] = None,
    sampled: Annotated[int, typer.Option(help="Points that are held out as queries.")] = 1000,
    by_cosine: Annotated[
        bool, typer.Option("--by-cosine", help="Measure by cosine what compares otherwise.")
    ] = False,
    on_server: Annotated[
        bool,
        typer.Option(
            "--on-server",
            help="Measure on that server too, in temporary collections, not on this machine.",
        ),
    ] = False,
    output: BenchFolder = Path("bench-collection"),
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure recall@10 on a collection's own dense vectors; nothing is written to it.

    Points drawn at random are held out as queries, the rest is indexed anew: on this machine, or
    with --on-server in collections of their own.
    Right is what exact search over the same dense vectors finds.
    """
    from csr_qdrant.benchmarks.collection_task import collection_task
    from csr_qdrant.benchmarks.matrix.task import own_vectors

    out = Output(as_json=json, quiet=quiet)
    engine = _engine(server, on_server)
    with open_vectors(place_of(folder, server), vector, owns_client=True) as points:
        (output / WORK).mkdir(parents=True, exist_ok=True)
        read = collection_task(
            points,
            output / WORK / "collection",
            queries=sampled,
            seed=config.seed,
            by_cosine=by_cosine,
            tell=out.note,
        )
    run(out, own_vectors(read), config, output, engine)


def _engine(server: ServerSettings, on_server: bool) -> EngineSettings:
    if not on_server:
        return EngineSettings()
    if not server.given:
        raise ConfigError("--on-server needs a server: pass --url with --collection")
    return EngineSettings(
        url=server.url or os.environ.get(URL_VARIABLE),
        api_key_file=server.api_key_file,
        grpc=server.grpc,
        timeout=server.timeout,
    )
