"""Training in several processes, as `torchrun` starts them: who writes, and who goes first."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from csr_qdrant.errors import ConfigError


def several() -> bool:
    """Tell whether this process is one of many."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def leads() -> bool:
    """Tell whether this process is the one that reports and writes."""
    return not several() or os.environ.get("RANK", "0") == "0"


@contextmanager
def joined(device: str | None) -> Iterator[str | None]:
    """Join the other processes for the length of a block; yields the device of this one."""
    if not several():
        yield device
        return
    from csr_qdrant.trainer.group import joined as join

    with join(device) as (_, own):
        yield own


@contextmanager
def in_turn() -> Iterator[None]:
    """Let the leading process go through a block before the others, which find its files."""
    if not several():
        yield
        return
    from csr_qdrant.trainer.group import current_group
    from csr_qdrant.trainer.group import in_turn as turns

    with turns(current_group()):
        yield


def refuse_several(what: str) -> None:
    """Raise ConfigError if this process is one of many, for what one process does alone."""
    if several():
        raise ConfigError(f"{what} run in one process, got {os.environ['WORLD_SIZE']} of torchrun")
