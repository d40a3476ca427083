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

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from csr_qdrant import __version__
from csr_qdrant.cli.errors import reported

COMMANDS = {
    "demo": "See it work on real data, next to dense vectors.",
    "train": "Train an encoder on dense vectors or texts.",
    "embed": "Turn texts or vectors into dense vectors or codes on disk.",
    "index": "Write codes into a Qdrant collection, embedded or on a server.",
    "query": "Search a collection by text or by vectors.",
    "info": "Describe an encoder, a collection or a file of codes.",
}
_SETTINGS: dict[str, Any] = {"rich_markup_mode": None, "pretty_exceptions_enable": False}


class LazyGroup(TyperGroup):
    """A group that imports a command's module only to run it: `csr --help` stays fast."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Put the real command in the place of its entry in the list, then resolve as usual."""
        if args and args[0] in COMMANDS:
            self.commands[args[0]] = load(args[0])
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; its errors become sentences and exit codes."""
        with reported():
            return super().invoke(ctx)


def load(name: str) -> Any:
    """Import the command `name` and return it as a click command."""
    module = import_module(f"csr_qdrant.cli.{name}")
    single = typer.Typer(add_completion=False, **_SETTINGS)
    single.command(name, help=None)(getattr(module, name))
    return get_command(single)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"csr-qdrant {__version__}")
        raise typer.Exit()


app = typer.Typer(name="csr", cls=LazyGroup, no_args_is_help=True, **_SETTINGS)


@app.callback()
def csr(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """CSR codes for Qdrant: train an encoder on dense vectors, index its codes, search them."""


def _entry() -> None:
    """Stand in the list of commands until the real one is loaded."""


for _name, _help in COMMANDS.items():
    app.command(_name, help=_help)(_entry)


def main() -> None:
    """Run the `csr` command."""
    app(prog_name="csr")
