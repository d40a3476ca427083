"""`csr demo`: the whole way on real data, and one table."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from csr_qdrant.atomic import remove_whole
from csr_qdrant.benchmarks.demo_config import DemoConfig
from csr_qdrant.cli.options import AsJson, Overwrite, configured
from csr_qdrant.cli.output import Output, table
from csr_qdrant.errors import ConfigError

if TYPE_CHECKING:
    from csr_qdrant.benchmarks.compare import Measured
    from csr_qdrant.benchmarks.demo import Answer
    from csr_qdrant.trainer import Listeners

Folder = Annotated[
    Path, typer.Option("--output", "-o", help="Folder for encoders and collections.")
]


@configured
def demo(
    config: DemoConfig,
    output: Folder = Path("demo-out"),
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """See it work on real data, next to dense vectors.

    Embeds 31,095 verses, trains an encoder on them alone and one with pairs of topics and verses,
    indexes them into Qdrant Edge, answers three queries, and measures every way to shrink the
    vectors on topics that the training did not see.
    """
    from csr_qdrant.benchmarks.demo import COLUMNS, cells, plain_row, run_demo

    started = time.monotonic()
    out = Output(as_json=json)
    _make_room(output, overwrite)
    result = run_demo(output, config, out.note, lambda name: _training(out, name))
    rows = [cells(plain_row(measured)) for measured in result.measured]
    out.result(
        {
            "indexed": result.indexed,
            "answers": result.answers,
            "systems": [plain_row(measured) for measured in result.measured],
        },
        *[_answer_view(answer) for answer in result.answers],
        table(COLUMNS, rows, title="Nave's Topical Bible, test topics; WordLlama, 256 dimensions"),
        _remarks(result.measured, output, config),
    )
    out.note(f"done in {time.monotonic() - started:.0f} s")


def _make_room(folder: Path, overwrite: bool) -> None:
    """Remove an earlier demonstration, and nothing else, if that was asked for."""
    if not folder.exists():
        return
    ours = {"encoder", "encoder-pairs", "verses", "systems"}
    if not overwrite or not folder.is_dir() or {p.name for p in folder.iterdir()} - ours:
        raise ConfigError(
            f"{folder} already exists: choose another with --output, or pass --overwrite if it "
            f"holds an earlier demonstration and nothing else"
        )
    remove_whole(folder)


@contextmanager
def _training(out: Output, name: str) -> "Iterator[Listeners]":
    from csr_qdrant.trainer import Listeners, StepReport, Validation

    with out.progress(name, 100, "%") as bar:

        def on_step(report: StepReport) -> None:
            bar.update(round(100 * report.progress), f"step {report.step}, loss {report.loss:.3f}")

        def on_validation(found: Validation) -> None:
            best = found.at[-1]
            bar.update(bar.done, f"recall@10 {best.recall:.3f} at k={best.k}")

        yield Listeners(on_step, on_validation)


def _answer_view(answer: "Answer") -> str:
    lines = [f"{hit.score:.3f}  {hit.id:<12} {hit.payload['text'][:90]}" for hit in answer.hits]
    return "\n".join([f"\n“{answer.query}”", *lines])


def _remarks(measured: "list[Measured]", folder: Path, config: DemoConfig) -> str:
    binary = next(each for each in measured if each.name == "binary")
    codes = next(each for each in measured if each.name == "CSR alone k=32")
    better = "binary" if binary.ndcg.mean() >= codes.ndcg.mean() else "CSR"
    training = "a few steps" if config.quick else f"{config.minutes:g} minutes each"
    return (
        f"recall@10: of the dense vectors' own ten nearest. B/vector: what a search reads; "
        f"rescoring also reads 1,024 B of a candidate's float32 vector from disk. p50: searching, "
        f"encoding not included. Trained {training}, on a CPU.\n"
        f"WordLlama is a small static backbone, not one of the papers': at 256 dimensions binary "
        f"quantisation costs little, and here {better} is ahead without rescoring. Codes keep "
        f"their size as dimensions grow: measure on your own vectors.\n"
        f'Try: csr query {folder / "verses"} "love your enemies" --rescore 100'
    )
