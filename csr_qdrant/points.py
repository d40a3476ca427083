"""From rows of any kind to points: encode, check, name."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from csr_qdrant.codes import SparseCodes
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
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

    Raises CsrError for unequal counts, repeated ids, wrong dimensions, NaN or infinity, and for
    all-zero vectors unless `skip_zero`, which stores them without a code.
    """
    if (rows.vectors is None) == (rows.codes is None):
        raise ConfigError("give exactly one of vectors, texts and codes")
    if rows.codes is not None and keep_dense:
        raise ConfigError(
            "this collection keeps dense vectors for rescoring, got codes alone: give the vectors"
        )
    ids = _checked_ids(rows)
    if rows.vectors is not None:
        codes = _encode(rows, rows.vectors, encoder, k, skip_zero, device)
    else:
        assert rows.codes is not None
        codes = rows.codes.truncated(k)
    points = [point_id(each) for each in ids]
    payloads = rows.payloads if rows.payloads is not None else [None] * len(ids)
    named = map(payload_with_id, ids, points, payloads)
    dense = np.asarray(rows.vectors, np.float32) if keep_dense else None
    return PointBatch(points, codes.normalised(), dense, list(named))


def _checked_ids(rows: Rows) -> list[ExternalId]:
    given = rows.vectors if rows.vectors is not None else rows.codes
    counts = {"ids": len(rows.ids), "vectors": len(given) if given is not None else 0}
    if rows.payloads is not None:
        counts["payloads"] = len(rows.payloads)
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise CsrError(f"rows need equal counts, got {listed}: give one of each a row")
    ids = [normalise_id(each) for each in rows.ids]
    if len(set(ids)) < len(ids):
        twice = next(each for each, count in Counter(ids).items() if count > 1)
        raise CsrError(f"id {twice!r} stands twice among the rows: give each row an id of its own")
    return ids


def _encode(
    rows: Rows,
    vectors: npt.NDArray[Any],
    encoder: Encoder,
    k: int,
    skip_zero: bool,
    device: str | None,
) -> SparseCodes:
    codes = encoder.encode(vectors, k, device=device, first_row=rows.first, name=rows.name)
    zero = np.flatnonzero(~np.any(vectors, axis=1))
    if not len(zero):
        return codes
    if not skip_zero:
        raise CsrError(
            f"row {rows.first + int(zero[0])} of {rows.name} is all zeros: it has no direction; "
            f"remove it, or skip zero rows to store it without a code"
        )
    lengths = codes.lengths
    kept = np.ones(len(codes.values), bool)
    for row in zero:
        kept[codes.indptr[row] : codes.indptr[row + 1]] = False
    lengths[zero] = 0
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return SparseCodes(indptr, codes.indices[kept], codes.values[kept], codes.h)
