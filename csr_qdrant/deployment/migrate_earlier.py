"""Whether a target is the copy of an earlier run, and where that one stopped."""

from pathlib import Path
from typing import Any

from csr_qdrant.deployment.migrate_journal import stored_record
from csr_qdrant.errors import ConfigError
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


def phase_of(place: NewPlace, settings: Json, setup: Setup) -> str:
    """Return where an earlier run stopped, `swapped` for a copy with an alias.

    Raises ConfigError for a target that is anything else than the copy of the same source with
    the same `settings`, whose vectors are those of `setup`.
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
    return "swapped" if place.aliases() else str(stored["phase"])


def _got(key: str, stored: Any, ours: Any) -> str:
    if key == "keep":
        return f"{KEEPS.get(str(stored), stored)}, got {KEEPS[ours]}"
    return f"{key} = {stored!r}, got {ours!r}"


def _kinds(setup: Setup) -> set[tuple[str, Any, str]]:
    """Return what a point's vectors must be like: names, dimensions and distances."""
    dense = {(name, each["size"], str(each["distance"])) for name, each in setup.vectors.items()}
    return dense | {(name, None, "sparse") for name in setup.sparse}
