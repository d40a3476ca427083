"""Relevance files: `query-id, doc-id, score`, separated by tabs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from csr_qdrant.errors import CsrError
from csr_qdrant.sources.files import existing_file
from csr_qdrant.sources.lines import read_lines

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Judged pairs, in the order of the file; ids are texts, as the file holds no types."""

    query_ids: list[str]
    doc_ids: list[str]
    scores: npt.NDArray[np.float32]  # (pairs,)

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.query_ids)


def read_pairs(path: str | Path) -> Pairs:
    """Read a TSV of `query-id, doc-id, score`, with or without a header, gzipped or not.

    Raises CsrError for lines of another form, naming them, and if there are no pairs.
    """
    path = existing_file(Path(path))
    query_ids, doc_ids, scores = [], [], []
    for number, line in read_lines(path):
        if line.isspace():
            continue
        cells = line.rstrip("\r\n").split("\t")
        if len(cells) != 3 or not cells[0] or not cells[1]:
            raise CsrError(
                f"{path} line {number} must be query-id, doc-id and score, separated by tabs, "
                f"got {line.strip()[:80]!r}"
            )
        score = _score(cells[2])
        if score is None and number == 1:  # the header
            continue
        if score is None or not abs(score) <= _LARGEST:  # NaN neither
            raise CsrError(f"{path} line {number} must end with a number, got {cells[2][:80]!r}")
        query_ids.append(cells[0])
        doc_ids.append(cells[1])
        scores.append(score)
    if not scores:
        raise CsrError(f"{path} holds no pairs: give query-id, doc-id and score on each line")
    return Pairs(query_ids, doc_ids, np.array(scores, np.float32))


def _score(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
