"""How families of systems are drawn: the same colours and marks in the page and in the PNG."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

Mark = Literal["circle", "square", "diamond", "triangle", "wedge"]


class Look(NamedTuple):
    """Colours on a light and on a dark ground, and the mark (one a kind of shrinking)."""

    light: str
    dark: str
    mark: Mark


# Whole vectors are diamonds, shorter ones triangles, quantised ones squares, codes circles.
_LOOKS = {
    "dense": Look("#1f2328", "#e6e8eb", "diamond"),
    "HNSW": Look("#6b7280", "#9aa3af", "diamond"),
    "dense adapter": Look("#8a5a2b", "#c99763", "diamond"),
    "truncated": Look("#b45309", "#f0a04b", "triangle"),
    "MRL adapter": Look("#d97706", "#fbbf24", "triangle"),
    "PCA": Look("#7a7a00", "#c6c64a", "wedge"),
    "int8": Look("#0369a1", "#5cb8ec", "square"),
    "binary": Look("#1d4ed8", "#82a5ff", "square"),
    "TurboQuant": Look("#0f766e", "#3ec9b8", "square"),
    "CSR": Look("#be123c", "#ff7b95", "circle"),
    "CSR labels": Look("#7e22ce", "#c690ff", "circle"),
    "CSR pairs": Look("#c026d3", "#f285ff", "circle"),
}
_OTHERS = (
    Look("#4d7c0f", "#a3d65c", "wedge"),
    Look("#475569", "#a8b5c8", "wedge"),
    Look("#9f1239", "#ff9aac", "wedge"),
    Look("#166534", "#6ed191", "wedge"),
)


def looks(families: Iterable[str]) -> dict[str, Look]:
    """Return the look of each family, known ones in their usual order and others after them."""
    given = dict.fromkeys(families)
    known = {family: look for family, look in _LOOKS.items() if family in given}
    others = [family for family in given if family not in known]
    return known | {each: _OTHERS[i % len(_OTHERS)] for i, each in enumerate(others)}
