"""What `attach` records of its progress: the phase is `backfill`, `verify` or `done`."""

from collections.abc import Mapping
from typing import Any

from csr_qdrant.deployment.journal import Journal
from csr_qdrant.stores.writing import CodeWriter

KEY = "csr_qdrant_attach"


def stored_phase(metadata: Mapping[str, Any]) -> str | None:
    """Return the phase in which an earlier run stopped, None if there was none."""
    stored: Any = metadata.get(KEY)
    return str(stored["phase"]) if isinstance(stored, dict) else None


def attach_journal(writer: CodeWriter) -> Journal:
    """Return where an earlier run stopped; a finished one starts over."""
    stored: Any = writer.metadata().get(KEY)
    if not isinstance(stored, dict) or stored.get("phase") not in ("backfill", "verify"):
        stored = {"phase": "backfill"}
    return Journal(writer, KEY, stored, {})
