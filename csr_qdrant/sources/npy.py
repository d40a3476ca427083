"""The header of numpy's file format, read without trusting it, and memory-mapped files."""

import io
import math
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from csr_qdrant.errors import CsrError
from csr_qdrant.sources.base import MAX_DIMENSION, too_wide
from csr_qdrant.sources.files import existing_file, reason
from csr_qdrant.sources.lines import opened

_MAX_HEADER_BYTES = 2**16
_MAX_RANK, _MAX_ARRAY_BYTES = 32, 2**60
_READERS = {
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
}


class Header(NamedTuple):
    """What a `.npy` file says about its array."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    offset: int  # bytes before the values

    @property
    def end(self) -> int:
        """Number of bytes of a whole file with this header."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    def refuse_objects(self, name: str) -> None:
        """Raise CsrError if the values are pickled Python objects."""
        if self.dtype.hasobject:
            raise CsrError(
                f"{name} holds pickled Python objects, which are never loaded: "
                "save it as numbers or fixed-width texts"
            )


def read_header(file: IO[bytes], name: str) -> Header:
    """Read the header at the start of `file`; raises CsrError for what is damaged or no array."""
    head = io.BytesIO(file.read(_MAX_HEADER_BYTES))  # however long the header claims to be
    try:
        version = npy_format.read_magic(head)
        if version not in _READERS:
            raise ValueError(f"its version {version} is for structured arrays")
        shape, fortran, dtype = _READERS[version](head)
        _check_shape(shape, dtype)
    except Exception as error:  # a hostile header makes numpy raise a tokeniser's errors, too
        raise CsrError(
            f"{name} is no numpy array ({reason(error)}): save it with np.save"
        ) from None
    return Header(shape, fortran, dtype, head.tell())


def _check_shape(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise ValueError for what numpy writes in no header, and cannot hold."""
    if len(shape) > _MAX_RANK or any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"its shape is {shape}")
    values = math.prod(max(size, 1) for size in shape)
    if values * max(dtype.itemsize, 1) > _MAX_ARRAY_BYTES:
        raise ValueError(f"its shape is {shape}, more than any machine holds")
    if not dtype.itemsize:
        raise ValueError(f"its values, {dtype}, have no size")


def check_matrix(shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> None:
    """Raise CsrError unless shape and dtype are those of dense vectors, (n, d) floating."""
    if len(shape) != 2:
        raise CsrError(f"{name} must be a matrix of shape (n, d), got shape {shape}: reshape it")
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise CsrError(f"{name} must be float16, float32 or float64, got {dtype}: convert it")
    if shape[1] > MAX_DIMENSION:
        raise too_wide(shape[1], name)
    if 0 in shape:
        raise CsrError(f"{name} holds no vectors, its shape is {shape}: save it anew")


def map_npy(path: Path) -> npt.NDArray[Any]:
    """Return the array of a `.npy` file, memory-mapped; raises CsrError if it is truncated."""
    with opened(existing_file(path)) as file:
        header = read_header(file, str(path))
    header.refuse_objects(str(path))
    size = path.stat().st_size
    if size < header.end:
        raise CsrError(
            f"{path} is truncated: {header.shape} of {header.dtype} need {header.end} bytes, "
            f"got {size}: write it anew"
        )
    if 0 in header.shape:  # nothing that could be mapped
        return np.empty(header.shape, header.dtype)
    order: Literal["C", "F"] = "F" if header.fortran else "C"
    return np.memmap(path, header.dtype, "r", header.offset, header.shape, order)
