"""Frozen dataclasses as command-line options, environment variables and TOML settings.

`@configured` replaces every parameter of a command that is annotated with a dataclass by one
option a field. A value comes from, in this order: the flag, the variable `CSR_<COMMAND>_<FIELD>`,
the `--config FILE.toml`, the field's default. In the file, settings stand flat or in a table
named after the command (`[train]`), which wins; tables of other commands are left alone, and
unknown names are refused.

Types of fields: str, int, float, bool, Path, Literal, tuple[T, ...] (given as `8,32` or by
repeating the flag) and `X | None` of these (the word `none` stands for None). What `metadata` of
a field may say:

    help     one sentence for --help
    short    a second, short flag, such as "-k"
    metavar  what stands for the value in --help
    env      a tuple of further environment variables, such as ("QDRANT_URL",)
    flag     False: no flag, for secrets; environment or file only
"""

import inspect
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import typer

from csr_qdrant.cli.values import convert, inner_type, metavar
from csr_qdrant.errors import ConfigError

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan; write nothing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes.")]


class Setting(NamedTuple):
    """One field of a config dataclass, as a command knows it."""

    field: "Field[Any]"
    hint: Any
    variables: tuple[str, ...]  # environment variables, the first one set wins

    @property
    def name(self) -> str:
        """The field's name: the key in a TOML file."""
        return self.field.name

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return "--" + self.name.replace("_", "-")

    def default(self) -> Any:
        """Return the default, or MISSING if there is none."""
        if self.field.default_factory is not MISSING:
            return self.field.default_factory()
        return self.field.default


def configured(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each dataclass in a command's signature by one option per field, and `--config`."""
    return _configured(command.__name__, (), command)


def configured_as(
    section: str, others: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return `configured` for commands that share the variables and the table of `section`.

    `others` names settings that only some of them have; the rest leave those alone.
    """
    return partial(_configured, section, others)


def _configured(
    section: str, others: Collection[str], command: Callable[..., None]
) -> Callable[..., None]:
    parameters = inspect.signature(command, eval_str=True).parameters
    configs: dict[str, Any] = {
        n: p.annotation for n, p in parameters.items() if is_dataclass(p.annotation)
    }
    own = [p for n, p in parameters.items() if n not in configs]
    settings = {n: _settings(section, cls) for n, cls in configs.items()}
    every = [setting for group in settings.values() for setting in group]
    _check_names([p.name for p in own] + [s.name for s in every])

    @wraps(command)
    def run(*, config_file: Path | None = None, **values: Any) -> None:
        known = [*others, *(s.name for s in every)]
        file = read_settings(config_file, section, known)
        _refuse_unknown_variables(section, others, every)
        flags = {s.name: values.pop(s.name, None) for s in every}
        # A class may make itself of what was given, so that one setting chooses others' defaults.
        made = {
            n: getattr(cls, "from_settings", cls)(**_resolve(settings[n], flags, file, config_file))
            for n, cls in configs.items()
        }
        command(**values, **made)

    options = [_option(s) for s in every if s.field.metadata.get("flag", True)]
    keyword = [p.replace(kind=p.KEYWORD_ONLY) for p in own]
    signature = [*keyword, *options, _config_option(section)]
    run.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in signature}
    return run


def read_settings(path: Path | None, command: str, names: list[str]) -> dict[str, Any]:
    """Return the settings for `command` in a TOML file; {} without a file.

    Raises ConfigError if the file cannot be read or names settings that the command lacks.
    """
    import tomllib

    from csr_qdrant.cli.main import COMMANDS

    if path is None:
        return {}
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path} cannot be read as a TOML file: {reason}") from error
    own = content.pop(command, {})
    flat = {k: v for k, v in content.items() if not (isinstance(v, dict) and k in COMMANDS)}
    found = flat | own if isinstance(own, dict) else flat | {command: own}
    if unknown := sorted(found.keys() - set(names)):
        raise ConfigError(
            f"{path}: csr {command} has no setting {', '.join(map(repr, unknown))}: "
            f"it has {', '.join(sorted(names))}"
        )
    return found


def _settings(command: str, cls: Any) -> list[Setting]:
    hints = get_type_hints(cls)
    return [
        Setting(f, hints[f.name], (f"CSR_{command}_{f.name}".upper(), *f.metadata.get("env", ())))
        for f in fields(cls)
        if f.init
    ]


def _check_names(names: list[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TypeError(f"two parameters of one command share the name {', '.join(twice)}")


def _resolve(
    settings: list[Setting],
    flags: Mapping[str, Any],
    file: Mapping[str, Any],
    path: Path | None,
) -> dict[str, Any]:
    """Return the values that were given; fields left out keep their defaults."""
    given: dict[str, Any] = {}
    for setting in settings:
        variable = next((v for v in setting.variables if os.environ.get(v)), None)
        if flags[setting.name] is not None:
            given[setting.name] = convert(setting.hint, flags[setting.name], setting.flag)
        elif variable is not None:
            given[setting.name] = convert(setting.hint, os.environ[variable], variable)
        elif setting.name in file:
            value, origin = file[setting.name], f"{path}: {setting.name}"
            given[setting.name] = convert(setting.hint, value, origin)
        elif setting.default() is MISSING:
            raise ConfigError(
                f"{setting.flag} is missing: give it, set {setting.variables[0]}, or put "
                f"{setting.name} into a --config file"
            )
    return given


def _refuse_unknown_variables(
    command: str, others: Collection[str], settings: list[Setting]
) -> None:
    prefix = f"CSR_{command}_".upper()
    known = {variable for setting in settings for variable in setting.variables}
    known |= {f"{prefix}{name.upper()}" for name in others}
    if unknown := sorted(v for v in os.environ if v.startswith(prefix) and v not in known):
        raise ConfigError(
            f"{unknown[0]} sets nothing: csr {command} has no setting "
            f"{unknown[0].removeprefix(prefix).lower()!r}"
        )


def _option(setting: Setting) -> inspect.Parameter:
    """Return the option of one field; it stays None unless the flag is given."""
    kind = inner_type(setting.hint)
    names = [setting.flag]
    if kind is bool:
        names = [f"{setting.flag}/--no-{setting.flag[2:]}"]
    info: dict[str, Any] = {"help": _help(setting), "show_default": False}
    if kind is not bool:
        info["metavar"] = setting.field.metadata.get("metavar") or metavar(setting.hint)
    if get_origin(kind) is Literal:
        choices = [str(choice) for choice in get_args(kind)]
        info["autocompletion"] = lambda: choices
    if short := setting.field.metadata.get("short"):
        names.append(short)
    raw: Any = {bool: bool, Path: Path}.get(kind, str)
    annotation = list[raw] if get_origin(kind) is tuple else raw
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[annotation | None, typer.Option(*names, **info)],
    )


def _help(setting: Setting) -> str:
    default = setting.default()
    remark = ""
    if default is MISSING:
        remark = "[required]"
    elif default is True:
        remark = f"[default: {setting.flag[2:]}]"
    elif isinstance(default, tuple) and default:
        remark = f"[default: {','.join(map(str, default))}]"
    elif default is not None and default is not False and default not in ("", ()):
        remark = f"[default: {default}]"
    return f"{setting.field.metadata.get('help', '')}  {remark}".strip()


def _config_option(command: str) -> inspect.Parameter:
    text = (
        f"TOML file of settings, flat or under [{command}]. CSR_{command.upper()}_<OPTION> "
        "variables win over it, flags over both."
    )
    return inspect.Parameter(
        "config_file",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            Path | None, typer.Option("--config", metavar="FILE", help=text, show_default=False)
        ],
    )
