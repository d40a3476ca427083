"""Text from a flag or a variable, and TOML values, as the types that config fields have."""

from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from csr_qdrant.errors import ConfigError

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_NAMES = {
    int: "an integer",
    float: "a number",
    str: "a text",
    Path: "a path",
    bool: "true or false",
}
_METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


def inner_type(hint: Any) -> Any:
    """Return X for `X | None`, and other types as they are."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    inner = [each for each in get_args(hint) if each is not NoneType]
    if len(inner) != 1:
        raise TypeError(f"a setting has one type, or one and None, got {hint}")
    return inner[0]


def metavar(hint: Any) -> str:
    """Return what stands for a value of this type in --help."""
    kind = inner_type(hint)
    if get_origin(kind) is Literal:
        return f"[{'|'.join(map(str, get_args(kind)))}]"
    if get_origin(kind) is tuple:
        return f"{metavar(get_args(kind)[0])},…"
    if kind not in _METAVARS:
        raise TypeError(f"settings of type {hint} are not supported")
    return _METAVARS[kind]


def convert(hint: Any, raw: Any, origin: str) -> Any:
    """Return `raw` as a value of type `hint`.

    Raises ConfigError that names `origin` (a flag, a variable or a key of a file) if it is none.
    """
    kind = inner_type(hint)
    if kind is not hint and (raw is None or str(raw).lower() == "none"):
        return None
    if get_origin(kind) is Literal:
        return _choice(get_args(kind), raw, origin)
    if get_origin(kind) is tuple:
        return tuple(convert(get_args(kind)[0], item, origin) for item in _items(raw))
    if isinstance(raw, list | dict):
        raise ConfigError(f"{origin} must be {_NAMES[kind]}, got {raw!r}")
    return _scalar(kind, raw, origin)


def _choice(choices: tuple[Any, ...], raw: Any, origin: str) -> Any:
    for choice in choices:
        if str(choice) == str(raw):
            return choice
    raise ConfigError(f"{origin} must be one of {', '.join(map(str, choices))}, got {raw!r}")


def _items(raw: Any) -> list[Any]:
    """Return the items of a list, a text with commas, or a list of such texts."""
    parts = raw if isinstance(raw, list | tuple) else [raw]
    items: list[Any] = []
    for part in parts:
        items += [text.strip() for text in part.split(",")] if isinstance(part, str) else [part]
    return [item for item in items if item != ""]


def _scalar(kind: Any, raw: Any, origin: str) -> Any:
    try:
        if isinstance(raw, str) and kind in (int, float):
            return kind(raw)
        if kind is bool and isinstance(raw, str) and raw.lower() in _TRUE + _FALSE:
            return raw.lower() in _TRUE
    except ValueError:
        pass
    if kind is float and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    if kind is Path and isinstance(raw, str | Path):
        return Path(raw).expanduser()
    if isinstance(raw, kind) and not (kind is int and isinstance(raw, bool)):
        return raw
    raise ConfigError(f"{origin} must be {_NAMES[kind]}, got {raw!r}")
