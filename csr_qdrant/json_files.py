"""JSON files that describe data, read without trusting them."""

import json
from pathlib import Path
from typing import Any

MAX_BYTES = 16 * 2**20  # parsed, JSON takes up to thirty times its size


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises OSError if it cannot be read, ValueError if it holds more than `MAX_BYTES` bytes, is no
    JSON in UTF-8, or nests its values too deeply.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES >> 20} MiB")
    try:
        return json.loads(content.decode())
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
