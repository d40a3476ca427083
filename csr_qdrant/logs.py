"""Lines of JSON for those who collect logs: one object a line, on standard error."""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

VARIABLE = "CSR_LOG"


def as_json() -> bool:
    """Tell whether CSR_LOG=json asks for lines of JSON."""
    return os.environ.get(VARIABLE, "").strip().lower() == "json"


def log_line(level: str, message: str, fields: Mapping[str, Any] | None = None) -> str:
    """Return one line: `time` (UTC), `level`, `message` and `fields`, as JSON without a newline."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": now, "level": level, "message": message, **(fields or {})})
