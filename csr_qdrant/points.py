"""From rows of any kind to points: encode, check, name."""

from collections import Counter
from collections.abc import Mapping, Sequence, Sized
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from csr_qdrant.codes import SparseCodes
from csr_qdrant.encoder import F32, Encoder
from csr_qdrant.errors import ConfigError, CsrError, RowError
from csr_qdrant.ids import ExternalId, normalise_id, payload_with_id, point_id
from csr_qdrant.stores.base import PointBatch


class Rows(NamedTuple):
    """Rows to store: ids, and vectors (n, d) or codes (n, h)."""

    ids: Sequence[Any]
    vectors: npt.NDArray[Any] | None
    codes: SparseCodes | None
    payloads: Sequence[Mapping[str, Any]] | None
    first: int = 0  # number of the first row, for messages
    name: str = "the vectors"

    def before(self, row: int) -> "Rows":
        """Return the rows before number `row`."""
        kept = slice(row - self.first)
        return self._replace(
            ids=self.ids[kept],
            vectors=None if self.vectors is None else self.vectors[kept],
            codes=None if self.codes is None else self.codes[kept],
            payloads=None if self.payloads is None else self.payloads[kept],
        )


class Added(NamedTuple):
    """What was written."""

    rows: int
    without_code: int  # of them, rows without an active latent: kept, but never found by code


def make_points(
    rows: Rows,
    encoder: Encoder,
    k: int,
    keep_dense: bool,
    *,
    skip_zero: bool = False,
    device: str | None = None,
) -> PointBatch:
    """Return the points of `rows`, with normalised codes of at most `k` latents.

    Raises CsrError for unequal counts, repeated ids and wrong dimensions, RowError for NaN or
    infinity, and for all-zero vectors unless `skip_zero`, which stores them without a code.
    """
    if (rows.vectors is None) == (rows.codes is None):
        raise ConfigError("give exactly one of vectors and codes")
    ids = _checked_ids(rows)
    if rows.codes is not None:
        if keep_dense:
            raise ConfigError("dense vectors are kept here, got codes alone: give the vectors")
        codes, dense = rows.codes.truncated(k), None
    else:
        codes, dense = _encode(rows, encoder, k, skip_zero, device)
    points = [point_id(each) for each in ids]
    payloads = rows.payloads if rows.payloads is not None else [None] * len(ids)
    named = map(payload_with_id, ids, points, payloads)
    return PointBatch(points, codes.normalised(), dense if keep_dense else None, list(named))


def check_counts(**given: Sized | None) -> None:
    """Raise CsrError unless all that are given have the same length."""
    counts = {name: len(each) for name, each in given.items() if each is not None}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise CsrError(f"rows need equal counts, got {listed}: give one of each a row")


def _checked_ids(rows: Rows) -> list[ExternalId]:
    check_counts(ids=rows.ids, vectors=rows.vectors, codes=rows.codes, payloads=rows.payloads)
    ids = [normalise_id(each) for each in rows.ids]
    if len(set(ids)) < len(ids):
        twice = next(each for each, count in Counter(ids).items() if count > 1)
        raise CsrError(f"id {twice!r} stands twice among the rows: give each row an id of its own")
    return ids


def _encode(
    rows: Rows, encoder: Encoder, k: int, skip_zero: bool, device: str | None
) -> tuple[SparseCodes, F32]:
    """Return codes, none for rows of zeros, and the vectors as float32."""
    assert rows.vectors is not None
    codes = encoder.encode(rows.vectors, k, device=device, first_row=rows.first, name=rows.name)
    dense = np.asarray(rows.vectors, np.float32)
    directed = np.asarray(dense.any(axis=1))
    if not skip_zero and not directed.all():
        bad = rows.first + int(np.argmin(directed))
        raise RowError(
            bad,
            f"row {bad} of {rows.name} is all zeros, so it has no direction: remove it, or pass "
            f"skip_zero to store it without a code",
        )
    return directed_codes(codes, directed), dense


def directed_codes(codes: SparseCodes, directed: npt.NDArray[np.bool_]) -> SparseCodes:
    """Return the codes, emptied where a vector is all zeros: there only the biases made one.

    `directed`, (n,), tells which vectors are not: `vectors.any(axis=1)`.
    """
    if directed.all():
        return codes
    kept = np.repeat(directed, codes.lengths)
    indptr = np.concatenate([[0], np.cumsum(np.where(directed, codes.lengths, 0))])
    return SparseCodes(indptr.astype(np.int64), codes.indices[kept], codes.values[kept], codes.h)
