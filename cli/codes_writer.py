"""Codes written to disk batch by batch, in the file that `SparseCodes.save` would write."""

import json
import shutil
import struct
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np

from csr_qdrant.atomic import replaced_file
from csr_qdrant.codes import SparseCodes
from csr_qdrant.codes_file import KEY, VERSION

Parts = Mapping[str, IO[bytes]]

_COPY_BYTES = 1 << 24
_DTYPES = {"indptr": "<i8", "values": "<f4", "indices": "<u4"}  # as safetensors orders them


def write_codes(
    batches: Iterable[SparseCodes],
    h: int,
    path: Path,
    on_rows: Callable[[int], None] = lambda done: None,
) -> int:
    """Write the codes of all `batches` (n, h) to `path`, whole or not at all; return their number.

    What a batch holds lies in memory, nothing else. `on_rows` is called with the rows done so far.
    """
    folder = path.with_name(f".{path.name}.parts")
    shutil.rmtree(folder, ignore_errors=True)  # of a killed run
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        parts: Parts = {name: stack.enter_context((folder / name).open("w+b")) for name in _DTYPES}
        rows = _spool(batches, parts, on_rows)
        with replaced_file(path) as temporary, temporary.open("wb") as file:
            _compose(parts, h, file)
    return rows


def _spool(batches: Iterable[SparseCodes], parts: Parts, on_rows: Callable[[int], None]) -> int:
    """Append each batch's arrays to the parts; row pointers go on where the last batch ended."""
    rows = entries = 0
    parts["indptr"].write(np.zeros(1, "<i8").data)
    for codes in batches:
        parts["indptr"].write((codes.indptr[1:] + entries).astype("<i8").data)
        parts["indices"].write(codes.indices.astype("<u4").data)
        parts["values"].write(codes.values.astype("<f4").data)
        entries += len(codes.values)
        rows += len(codes)
        on_rows(rows)
    return rows


def _compose(parts: Parts, h: int, file: IO[bytes]) -> None:
    """Write a safetensors file: length of the header, header, arrays (the widest type first)."""
    header: dict[str, object] = {"__metadata__": {KEY: json.dumps({"version": VERSION, "h": h})}}
    start = 0
    for name, part in parts.items():
        end = start + part.tell()
        shape = [(end - start) // np.dtype(_DTYPES[name]).itemsize]
        dtype = {"<i8": "I64", "<u4": "U32", "<f4": "F32"}[_DTYPES[name]]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the arrays begin at a multiple of 8 bytes
    file.write(struct.pack("<Q", len(text)) + text)
    for part in parts.values():
        part.seek(0)
        shutil.copyfileobj(part, file, _COPY_BYTES)
