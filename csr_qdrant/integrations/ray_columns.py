"""Columns of Ray's batches: vectors, codes and payloads, as numpy gives and takes them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from csr_qdrant.codes import SparseCodes
from csr_qdrant.encoder import unit_rows
from csr_qdrant.errors import CsrError

Batch = Mapping[str, npt.NDArray[Any]]  # a column each, as with batch_format="numpy"


def codes_to_columns(codes: SparseCodes, name: str) -> dict[str, npt.NDArray[Any]]:
    """Return codes as two columns of arrays, `NAME_indices` and `NAME_values`."""
    indices = np.empty(len(codes), object)
    values = np.empty(len(codes), object)
    for row, code in enumerate(codes.rows()):
        indices[row], values[row] = code.indices.astype(np.int64), code.values
    return {f"{name}_indices": indices, f"{name}_values": values}


def codes_of_columns(batch: Batch, name: str, h: int) -> SparseCodes | None:
    """Return the codes in two columns as `codes_to_columns` makes them, None without them.

    Raises CsrError if they are no codes over `h` latents.
    """
    indices, values = batch.get(f"{name}_indices"), batch.get(f"{name}_values")
    if indices is None or values is None:
        return None
    lengths = [len(each) for each in indices]
    latents = np.concatenate([np.zeros(0, np.int64), *(np.asarray(i, np.int64) for i in indices)])
    if len(latents) and (latents.min() < 0 or latents.max() >= h):
        raise CsrError(f"codes in {name}_indices must be latents below {h}: encode them anew")
    weights = np.concatenate([np.zeros(0, np.float32), *(np.asarray(v) for v in values)])
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return SparseCodes(indptr, latents.astype(np.uint32), weights.astype(np.float32), h)


def column_of(batch: Batch, name: str) -> npt.NDArray[Any]:
    """Return a column, (n, …); raises CsrError if the batch lacks it."""
    if name not in batch:
        raise CsrError(f"batches have no column {name!r} (they have {', '.join(batch)}): name it")
    return np.asarray(batch[name])


def matrix_of(batch: Batch, name: str) -> npt.NDArray[Any]:
    """Return a column of vectors as (n, d); Ray gives lists of equal lengths as objects, too."""
    column = column_of(batch, name)
    if column.dtype != object:
        return column
    try:
        return np.stack([np.asarray(each, np.float32) for each in column])
    except (TypeError, ValueError) as error:
        raise CsrError(f"column {name!r} must hold vectors of equal length: {error}") from None


def float32_at_norm_1(dense: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return vectors, (n, d), as float32 at norm 1; see `unit_rows`."""
    if dense.dtype.kind not in "fiu":
        return dense  # for the encoder to report
    with np.errstate(over="ignore"):  # infinity is for the encoder to report
        rows = np.asarray(dense, np.float32)
        return unit_rows(rows) if rows.ndim == 2 else rows


def plain_column(column: npt.NDArray[Any]) -> list[Any]:
    """Return plain values; of times those that Qdrant reads as such, in UTC."""
    if column.dtype.kind != "M":
        return column.tolist()  # type: ignore[no-any-return]
    texts = np.datetime_as_string(
        column, timezone="UTC"
    ).tolist()  # `tolist` of nanoseconds gives bare integers
    return [None if text == "NaT" else text for text in texts]


def plain(value: Any) -> Any:
    """Return a value of a payload without numpy's types."""
    return value.tolist() if hasattr(value, "tolist") else value
