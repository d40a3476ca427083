"""Codes on disk: one safetensors file that can be sliced without being read whole."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from csr_qdrant.atomic import replaced_file
from csr_qdrant.closing import Closing
from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import CsrError

KEY, VERSION = "csr_qdrant.codes", 1
_ARRAYS = {"indptr": "I64", "indices": "U32", "values": "F32"}


def save_codes(codes: SparseCodes, path: Path) -> None:
    """Write `codes` to `path`, whole or not at all; equal codes make equal files."""
    arrays = {name: np.ascontiguousarray(getattr(codes, name)) for name in _ARRAYS}
    # One entry, since safetensors writes several in an order that changes from call to call.
    header = {KEY: json.dumps({"version": VERSION, "h": codes.h})}
    with replaced_file(path) as temporary:
        save_file(arrays, temporary, metadata=header)


def load_codes(path: Path) -> SparseCodes:
    """Read all codes of a file; raises CsrError if it is not one of ours or damaged."""
    with CodesFile(path) as file:
        return file.read(0, len(file))


class CodesFile(Closing):
    """A saved batch of codes, opened for reading a range of rows at a time."""

    def __init__(self, path: Path) -> None:
        """Open `path`; raises CsrError if it is missing, damaged or something else."""
        self.path = path
        try:
            opened: Any = safe_open(path, framework="numpy")
            self._file = opened.__enter__()
        except (OSError, SafetensorError) as error:
            raise CsrError(f"{path} cannot be read as codes ({error}): write it anew") from error
        self.h = self._read_header()
        self._check_arrays()
        self._indptr = self._file.get_tensor("indptr")
        falls = not len(self._indptr) or np.any(self._indptr[1:] < self._indptr[:-1])
        if falls or self._indptr[0] != 0 or self._indptr[-1] != self._size("indices"):
            raise self._damaged("its row pointers do not fit its entries")

    def __len__(self) -> int:
        """Return the number of codes in the file."""
        return len(self._indptr) - 1

    def read(self, start: int, stop: int) -> SparseCodes:
        """Return rows start..stop (clipped to the file) as codes; raises CsrError if damaged."""
        start, stop, _ = slice(start, stop).indices(len(self))
        indptr = self._indptr[start : max(start, stop) + 1]
        first, last = int(indptr[0]), int(indptr[-1])
        if first == last:  # safetensors refuses an empty slice at the end of an array
            indices, values = np.zeros(0, np.uint32), np.zeros(0, np.float32)
        else:
            indices = self._file.get_slice("indices")[first:last]
            values = self._file.get_slice("values")[first:last]
        try:
            return SparseCodes(indptr - first, indices, values, self.h)
        except CsrError as error:
            raise self._damaged(str(error)) from error

    def _read_header(self) -> int:
        header = (self._file.metadata() or {}).get(KEY)
        if header is None or set(self._file.keys()) != set(_ARRAYS):
            raise CsrError(f"{self.path} holds no codes: make them with `SparseCodes.save`")
        try:
            version, h = (int(json.loads(header)[name]) for name in ("version", "h"))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise self._damaged(f"its header is {header[:80]!r}") from error
        if version != VERSION:
            raise CsrError(
                f"{self.path} holds codes in format {version}, this release reads {VERSION}: "
                "update csr-qdrant, or write the file anew"
            )
        return h

    def _check_arrays(self) -> None:
        for name, dtype in _ARRAYS.items():
            array = self._file.get_slice(name)
            if array.get_dtype() != dtype or len(array.get_shape()) != 1:
                shape = "×".join(map(str, array.get_shape()))
                raise self._damaged(f"{name} is {array.get_dtype()} of shape {shape}")
        if self._size("indices") != self._size("values"):
            raise self._damaged("it has not as many values as indices")

    def _size(self, name: str) -> int:
        return int(self._file.get_slice(name).get_shape()[0])

    def _damaged(self, reason: str) -> CsrError:
        self.close()
        return CsrError(f"{self.path} is damaged ({reason}): write it anew")

    def close(self) -> None:
        """Close the file."""
        self._file.__exit__(None, None, None)
