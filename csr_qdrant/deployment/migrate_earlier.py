"""Whether a target is the copy of an earlier run, and where that one stopped."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from csr_qdrant.deployment.migrate_journal import stored_record
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.stores.base import Json
from csr_qdrant.stores.whole_points import NewPlace, Setup, WholePoints

KEEPS = {"all": "neither rescore nor drop-dense", "rescore": "rescore", "none": "drop-dense"}


def refuse_itself(source: WholePoints, place: NewPlace) -> None:
    """Raise ConfigError for a target that is the source, or lies in its folder."""
    if source.location == place.location:
        aliases = ", ".join(map(repr, place.aliases()))
        leads = f" (which {aliases} stands for)" if aliases else ""
        raise ConfigError(
            f"{source.location}{leads} cannot be copied into itself: name another target, or the "
            "source by its own name"
        )
    if source.folder is not None and Path(place.location).is_relative_to(source.folder.resolve()):
        raise ConfigError(
            f"{place.location} lies in the folder of the source and would be lost with it: name "
            "one outside"
        )


def refuse_use(location: str, in_use: Sequence[str], phase: str, alias: str | None) -> None:
    """Refuse a copy that stands under another alias than asked for, or that stood under one.

    Raises ConfigError for the first and CsrError for the second; `in_use` are its aliases now.
    """
    if in_use and alias is not None and alias not in in_use:
        raise ConfigError(
            f"{location} is in use as {', '.join(map(repr, in_use))}, so its points are not "
            f"compared any more: move {alias!r} yourself"
        )
    if not in_use and phase == "swapped":
        raise CsrError(
            f"{location} was in use under an alias and may hold points of its own: choose another "
            "target, or set the alias back yourself"
        )


def phase_of(place: NewPlace, settings: Json, setup: Setup, alias: str | None) -> str:
    """Return where an earlier run stopped, `swapped` for a copy with an alias.

    Raises ConfigError for a target that is anything else than the copy of the same source with
    the same `settings`, whose vectors are those of `setup`; as `refuse_use` for one in use.
    """
    opened = place.open()
    try:
        stored = stored_record(opened.metadata(), place.location)
        theirs = opened.setup()
    finally:
        opened.close()
    if stored is None:
        raise ConfigError(
            f"{place.location} exists and is no copy that `csr migrate` made: choose another target"
        )
    for key, ours in settings.items():
        if stored.get(key) != ours:
            raise ConfigError(
                f"{place.location} is a copy with {_got(key, stored.get(key), ours)}: go on as it "
                "was begun, or choose another target"
            )
    if _kinds(theirs) != _kinds(setup):
        changed = {name or "the unnamed one" for name, *_ in _kinds(theirs) ^ _kinds(setup)}
        raise ConfigError(
            f"{settings['source']} and its copy {place.location} have different vectors by now "
            f"({', '.join(sorted(changed))}): choose another target"
        )
    in_use, phase = place.aliases(), str(stored["phase"])
    refuse_use(place.location, in_use, phase, alias)
    return "swapped" if in_use else phase


def _got(key: str, stored: Any, ours: Any) -> str:
    if key == "keep":
        return f"{KEEPS.get(str(stored), stored)}, got {KEEPS[ours]}"
    return f"{key} = {stored!r}, got {ours!r}"


def _kinds(setup: Setup) -> set[tuple[str, Any, str]]:
    """Return what a point's vectors must be like: names, dimensions and distances."""
    dense = {(name, each["size"], str(each["distance"])) for name, each in setup.vectors.items()}
    return dense | {(name, None, "sparse") for name in setup.sparse}
