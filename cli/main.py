"""The `csr` command: its list of commands, each loaded only when it is run.

How to add a command: write `cli/NAME.py` with one function NAME, and add a line to `COMMANDS`.
The function's docstring is its help text, its parameters are Typer's. Take settings from frozen
dataclasses through `@configured` (see `options.py`), write results through `Output` (`output.py`)
and raise `CsrError` for anything that the user can mend (`errors.py`):

    @configured
    def train(vectors: Path, config: TrainConfig, json: AsJson = False) -> None:
        \"\"\"Train an encoder on dense vectors.\"\"\"
        from csr_qdrant.trainer.loop import fit  # heavy imports stay inside the function

        output = Output(as_json=json)
        ...
        output.result({"encoder": str(folder)}, f"wrote {folder}")
"""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from csr_qdrant import __version__, long_calls
from csr_qdrant.cli import lazy
from csr_qdrant.cli.errors import reported
from csr_qdrant.cli.interrupts import killed_by_ctrl_c

COMMANDS = {
    "demo": "See it work on real data, next to dense vectors.",
    "train": "Train an encoder on dense vectors or texts.",
    "embed": "Turn texts or vectors into dense vectors or codes on disk.",
    "index": "Write codes into a Qdrant collection, embedded or on a server.",
    "attach": "Add codes to an existing collection, in place.",
    "detach": "Remove the codes that attach added.",
    "migrate": "Copy a collection into a new one, with codes.",
    "query": "Search a collection by text or by vectors.",
    "explain": "Explain why a query finds what it finds.",
    "latents": "List latents: the longest, the most used, the dead.",
    "tune": "Choose queries' k and candidates, for a recall or a latency.",
    "doctor": "Examine a collection and what it needs; only reads.",
    "bench": "Measure every way to shrink vectors, on your data.",
    "push": "Put an encoder on the Hugging Face Hub.",
    "info": "Describe an encoder, a collection or a file of codes.",
}
PACKAGE = "csr_qdrant.cli"


class Reporting(TyperGroup):
    """A group whose commands' errors become sentences and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with reported():
            return super().invoke(ctx)


def load(name: str) -> Any:
    """Import the command `name` and return it as a click command or group."""
    return lazy.load(PACKAGE, name)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"csr-qdrant {__version__}")
        raise typer.Exit()


app = lazy.lazy_group(PACKAGE, COMMANDS, Reporting, name="csr")


@app.callback()
def csr(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """CSR codes for Qdrant: train an encoder on dense vectors, index its codes, search them."""


def main() -> None:
    """Run the `csr` command."""
    long_calls.around = killed_by_ctrl_c
    app(prog_name="csr")
