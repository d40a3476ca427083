"""The data set that comes with the package: topics of Nave's Topical Bible over their verses.

Its README in `data/nave` says how it was made. Queries are split by topic; a verse may belong to
topics of several splits, so supervised encoders have met some of the verses that test queries ask
for: `seen_in_training` names those.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

from csr_qdrant.errors import CsrError
from csr_qdrant.sources.beir import open_beir, read_beir
from csr_qdrant.sources.options import SourceOptions

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Split:
    """The queries of one split, and the judgements of each in the same order."""

    query_ids: Sequence[str]
    texts: Sequence[str]
    qrels: dict[str, dict[str, int]]  # query id -> verse id -> grade


class Nave:
    """The data set; nothing is read before it is asked for, and each part once."""

    @cached_property
    def folder(self) -> Path:
        """The BEIR folder; raises CsrError if the package was installed without it."""
        folder = Path(str(resources.files("csr_qdrant.benchmarks") / "data" / "nave"))
        if not folder.is_dir():
            raise CsrError(f"{folder} is missing: install csr-qdrant from its wheel or its source")
        return folder

    @property
    def ids(self) -> list[str]:
        """Ids of all verses, (31,095)."""
        return self._corpus[0]

    @property
    def texts(self) -> list[str]:
        """Texts of all verses, in the order of `ids`."""
        return self._corpus[1]

    @cached_property
    def _corpus(self) -> tuple[list[str], list[str]]:
        source = open_beir(self.folder, SourceOptions(payload_fields=()))
        blocks = list(source.blocks(8192))
        ids = [str(name) for block in blocks for name in block.ids]
        return ids, [text for block in blocks for text in block.texts or ()]

    def split(self, name: str) -> Split:
        """Return the split `train`, `dev` or `test`, queries in the order of their file."""
        read = read_beir(self.folder, name)
        return Split(read.query_ids, read.texts, {q: read.qrels[q] for q in read.query_ids})

    @cached_property
    def seen_in_training(self) -> frozenset[str]:
        """Ids of the verses that some train pair names."""
        qrels = read_beir(self.folder, "train").qrels
        return frozenset(verse for grades in qrels.values() for verse in grades)
