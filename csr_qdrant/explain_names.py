"""Names of latents: the words that set a latent's top documents apart from the others.

Let a of the m top documents and b of the n documents of a background sample hold a word. Its
log-odds ratio, with half a document added everywhere so that nothing is divided by zero, is

    δ = ln((a + ½) / (m − a + ½)) − ln((b + ½) / (n − b + ½)),

its variance is about 1/(a + ½) + 1/(m − a + ½) + 1/(b + ½) + 1/(n − b + ½), and a word's score is
z = δ / √variance. A latent is named by the words of the highest z, if two documents hold them and
z ≥ 2; otherwise it has no name.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

TOP_DOCUMENTS = 20  # of a latent, that name it
LEAST_Z = 2.0
LEAST_DOCUMENTS = 2
WORDS = 3  # of a name, at most
CHARACTERS = 10_000  # of a text, that are read
_WORD = re.compile(r"[^\W\d_]{3,}")


class Word(NamedTuple):
    """A word that sets documents apart."""

    word: str
    z: float
    documents: int  # of the top ones, that hold it


class WordCounts:
    """In how many documents each word stands."""

    def __init__(self) -> None:
        """Start with no documents."""
        self.documents = 0
        self.counts: Counter[str] = Counter()

    def add(self, text: str) -> None:
        """Count a document."""
        self.documents += 1
        self.counts.update(words_of(text))

    @classmethod
    def of(cls, texts: Iterable[str]) -> "WordCounts":
        """Count documents."""
        counted = cls()
        for text in texts:
            counted.add(text)
        return counted


def words_of(text: str) -> set[str]:
    """Return the different words of three letters or more, in small letters."""
    return {found.casefold() for found in _WORD.findall(text[:CHARACTERS])}


def text_of(payload: Mapping[str, Any], field: str) -> str:
    """Return the text at `field`, a key or a path with dots; empty if there is none."""
    value: Any = payload.get(field)
    if value is None:
        value = payload
        for key in field.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, list):
        return " ".join(each for each in value if isinstance(each, str))
    return value if isinstance(value, str) else ""


def distinctive_words(top: WordCounts, background: WordCounts, limit: int = WORDS) -> list[Word]:
    """Return the words that set `top` apart from `background`, the most distinctive first."""
    found = [
        Word(word, _z(count, top.documents, background.counts[word], background.documents), count)
        for word, count in top.counts.items()
        if count >= LEAST_DOCUMENTS
    ]
    kept = [each for each in found if each.z >= LEAST_Z]
    return sorted(kept, key=lambda each: (-each.z, each.word))[:limit]


def name_of(top: WordCounts, background: WordCounts) -> str | None:
    """Return the distinctive words with commas between them, None if there are none."""
    return ", ".join(each.word for each in distinctive_words(top, background)) or None


def _z(a: int, m: int, b: int, n: int) -> float:
    cells = (a + 0.5, m - a + 0.5, b + 0.5, n - b + 0.5)
    odds = math.log(cells[0] / cells[1]) - math.log(cells[2] / cells[3])
    return odds / math.sqrt(sum(1 / cell for cell in cells))
