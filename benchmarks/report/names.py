"""Names in a report may hold any text; what is shown of them stays on its line."""

import re

# Control characters, line breaks, and what turns the direction of writing.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def plain(text: str) -> str:
    """Return `text` without what would move a cursor, break a line, or have no UTF-8."""
    return _CONTROL.sub(" ", text).encode("utf-8", "replace").decode("utf-8")
