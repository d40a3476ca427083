"""Codes on disk: one safetensors file that can be sliced without being read whole."""

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from csr_qdrant.atomic import replaced_file
from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import CsrError

FORMAT = "csr_qdrant.codes/1"


def save_codes(codes: SparseCodes, path: Path) -> None:
    """Write `codes` to `path`, whole or not at all."""
    arrays = {name: np.ascontiguousarray(getattr(codes, name)) for name in _ARRAYS}
    with replaced_file(path) as temporary:
        save_file(arrays, temporary, metadata={"format": FORMAT, "h": str(codes.h)})


def load_codes(path: Path) -> SparseCodes:
    """Read all codes of a file; raises CsrError if it is not one of ours or damaged."""
    with CodesFile(path) as file:
        return file.read(0, len(file))


class CodesFile:
    """A saved batch of codes, opened for reading a range of rows at a time."""

    def __init__(self, path: Path) -> None:
        """Open `path`; raises CsrError if it is missing, damaged or something else."""
        self.path = path
        try:
            opened: Any = safe_open(path, framework="numpy")
            self._file = opened.__enter__()
            metadata = self._file.metadata() or {}
        except (OSError, SafetensorError) as error:
            raise CsrError(f"{path} cannot be read as codes ({error}): write it anew") from error
        if metadata.get("format") != FORMAT or set(self._file.keys()) != set(_ARRAYS):
            raise CsrError(f"{path} holds no codes: make them with `SparseCodes.save`")
        self.h = int(metadata["h"])
        self._indptr = self._file.get_tensor("indptr")
        if not len(self._indptr):
            raise CsrError(f"{path} is damaged (no row pointers): write it anew")

    def __len__(self) -> int:
        """Return the number of codes in the file."""
        return len(self._indptr) - 1

    def read(self, start: int, stop: int) -> SparseCodes:
        """Return rows start..stop (clipped to the file) as codes."""
        start, stop, _ = slice(start, stop).indices(len(self))
        first, last = int(self._indptr[start]), int(self._indptr[max(start, stop)])
        return SparseCodes(
            self._indptr[start : max(start, stop) + 1] - first,
            self._file.get_slice("indices")[first:last],
            self._file.get_slice("values")[first:last],
            self.h,
        )

    def __enter__(self) -> "CodesFile":
        """Return the open file."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._file.__exit__(kind, error, trace)


_ARRAYS = ("indptr", "indices", "values")
