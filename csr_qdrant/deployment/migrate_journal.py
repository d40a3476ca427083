"""What a migration records of its progress, in the copy itself, with its settings."""

from typing import Any

from csr_qdrant.deployment.journal import Journal
from csr_qdrant.errors import CsrError
from csr_qdrant.stores.base import Json
from csr_qdrant.stores.whole_points import WholePoints

KEY = "csr_qdrant_migrate"
PHASES = ("copy", "verify", "done", "swapped")


def first_record(settings: Json) -> Json:
    """Return what a new copy's metadata say, from its first moment on."""
    return {**settings, "phase": "copy", "offset": None}


def stored_record(metadata: Json, location: str) -> Json | None:
    """Return what an earlier run recorded, None if there was none; CsrError if it is damaged."""
    stored: Any = metadata.get(KEY)
    if stored is None:
        return None
    if not isinstance(stored, dict) or stored.get("phase") not in PHASES:
        raise CsrError(f"the record of migrating in {location} is damaged: choose a new target")
    return stored


def migrate_journal(target: WholePoints, settings: Json) -> Journal:
    """Return where an earlier run with these settings stopped."""
    stored = stored_record(target.metadata(), target.location) or first_record({})
    return Journal(target, KEY, stored, settings)
