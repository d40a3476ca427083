"""`csr bench mteb`: retrieval tasks of MTEB, in its own protocol and file format."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csr_qdrant.benchmarks.matrix.config import BenchConfig
from csr_qdrant.cli.bench.running import OF_SOME, SECTION, BenchFolder, EmbedderUri, watching
from csr_qdrant.cli.options import AsJson, Quiet, configured_as
from csr_qdrant.cli.output import Output, table
from csr_qdrant.errors import ConfigError

if TYPE_CHECKING:
    from csr_qdrant.benchmarks.mteb_run import Scored


@configured_as(SECTION, OF_SOME)
def mteb(
    tasks: Annotated[list[str], typer.Argument(metavar="TASK…", help="Such as SciFact NFCorpus.")],
    config: BenchConfig,
    local: Annotated[
        Path | None, typer.Option(help="Folder with a copy of the data, instead of the hub.")
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Splits.  [default: the leaderboard's]")
    ] = None,
    subset: Annotated[list[str] | None, typer.Option(help="Such as languages.")] = None,
    depth: Annotated[
        int | None, typer.Option(help="Results a query.  [default: mteb's, 1,000]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Score anew.")] = False,
    output: BenchFolder = Path("bench-mteb"),
    embedder: EmbedderUri = "wordllama",
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score the matrix of systems on retrieval tasks of MTEB.

    Results lie in --output as mteb itself writes them, ready for its leaderboard. Each system is
    built anew for its scores: --systems names those that are wanted. Latency and bytes are measured
    by the other commands; what they alone need means nothing here.
    """
    from csr_qdrant.benchmarks.mteb_matrix import matrix_systems
    from csr_qdrant.benchmarks.mteb_run import run_mteb
    from csr_qdrant.cli.embedding import named_embedder

    out = Output(as_json=json, quiet=quiet)
    if local is not None and len(tasks) > 1:
        raise ConfigError(f"--local holds the data of one task, got {', '.join(tasks)}")
    model: Any = named_embedder(embedder, config.device)
    rows: list[dict[str, Any]] = []
    systems = matrix_systems(config, embedder=model.uri, watch=watching(out, config), tell=out.note)
    for name in tasks:
        scored = run_mteb(
            name,
            model,
            systems,
            output,
            local=local,
            splits=split,
            subsets=subset,
            depth=depth,
            overwrite=overwrite,
            tell=out.note,
        )
        rows += [{"task": name, **row} for row in _rows(scored)]
    out.result(rows, table(COLUMNS, [_cells(row) for row in rows]))


COLUMNS = ("task", "part", "system", "main score", "against the first system, 95 %")


def _rows(scored: "Sequence[Scored]") -> Iterator[dict[str, Any]]:
    """Yield each system's score of each part, and how it differs from the first system's."""
    from csr_qdrant.benchmarks.matrix.statistics import compared, holm

    for place, part in enumerate(scored[0].main_scores):
        expected = scored[0].by_query[place].ndcg
        gaps = {each.system: compared(each.by_query[place].ndcg, expected) for each in scored[1:]}
        adjusted = holm({system: gap.p for system, gap in gaps.items()})
        for each in scored:
            gap = gaps.get(each.system)
            yield {
                "split": part.split,
                "subset": part.subset,
                "system": each.system,
                "main_score": each.main_scores[part],
                "difference": None if gap is None else gap.difference._asdict(),
                "p_holm": adjusted.get(each.system),
                "result": str(each.result),
            }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    gap = row["difference"]
    said = "–" if gap is None else "{mean:+.4f} ({low:+.4f} … {high:+.4f})".format(**gap)
    part = f"{row['split']} {row['subset']}".removesuffix(" default")
    return row["task"], part, row["system"], f"{row['main_score']:.4f}", said
