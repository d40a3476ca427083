"""Groups of commands that import a command's module only to run it: `--help` stays fast.

A group is a mapping from a command's name to its line of help, and the package whose module of the
same name holds it: one function of that name, or a group of its own called `group`.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

SETTINGS: dict[str, Any] = {"rich_markup_mode": None, "pretty_exceptions_enable": False}


def lazy_group(
    package: str,
    commands: Mapping[str, str],
    base: type[TyperGroup] = TyperGroup,
    **settings: Any,
) -> typer.Typer:
    """Return a Typer app that lists `commands` and loads each from `package` when it is run."""

    class Lazy(base):  # type: ignore[misc, valid-type]
        """See the module."""

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            """Put the real command in the place of its entry in the list, then resolve as usual."""
            if args and args[0] in commands:
                self.commands[args[0]] = load(package, args[0])
            return super().resolve_command(ctx, args)

    app = typer.Typer(cls=Lazy, no_args_is_help=True, **SETTINGS, **settings)
    for name, line in commands.items():
        app.command(name, help=line)(_entry)
    return app


def load(package: str, name: str) -> Any:
    """Import the command `name` of `package` and return it as a click command or group."""
    module_name = name.replace("-", "_")
    module = import_module(f"{package}.{module_name}")
    if (group := getattr(module, "group", None)) is not None:
        return get_command(group)
    single = typer.Typer(add_completion=False, **SETTINGS)
    single.command(name, help=None)(getattr(module, module_name))
    return get_command(single)


def _entry() -> None:
    """Stand in the list of commands until the real one is loaded."""
