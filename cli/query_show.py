"""How `csr query` shows what it finds."""

import textwrap
from collections.abc import Sequence
from typing import Any

from csr_qdrant.cli.output import Output, table
from csr_qdrant.stores.base import Group, Hit

SHOWN_CHARACTERS = 100  # of a hit's text


def show(
    out: Output, name: Any, found: Sequence[Hit | Group], *, titled: bool, grouped: bool
) -> None:
    """Write the hits, or the groups of hits, of one query."""
    heading = [f"\nquery {short(str(name))!r}"] if titled else []
    groups = [each for each in found if isinstance(each, Group)]
    hits = [each for each in found if isinstance(each, Hit)]
    if grouped:
        keyed = [{"key": each.key, "hits": _values(each.hits)} for each in groups]
        result = {"query": name, "groups": keyed}
    else:
        result = {"query": name, "hits": _values(hits)}
    if not found:
        out.row(result, *heading, "no hits")
        return
    views = [
        table(("rank", "score", "id", "text"), _rows(each.hits), f"group {short(str(each.key))}")
        for each in groups
    ]
    out.row(result, *heading, *(views or [table(("rank", "score", "id", "text"), _rows(hits))]))


def _values(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    return [{"id": id, "score": score, "payload": payload} for id, score, payload in hits]


def _rows(hits: Sequence[Hit]) -> list[tuple[Any, ...]]:
    return [
        (rank, f"{score:.4f}", id, _text(payload))
        for rank, (id, score, payload) in enumerate(hits, 1)
    ]


def _text(payload: dict[str, Any]) -> str:
    """Return what describes a hit best: its text, or its first field that is one."""
    texts = [value for value in payload.values() if isinstance(value, str)]
    text = payload.get("text")
    return short(text if isinstance(text, str) else texts[0] if texts else "")


def short(text: str) -> str:
    """Return the beginning of a text, on one line."""
    return textwrap.shorten(text, SHOWN_CHARACTERS, placeholder=" …")
