"""Codes that `SparseCodes.save` wrote, read a range of rows at a time."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from csr_qdrant.codes_file import CodesFile
from csr_qdrant.errors import CsrError
from csr_qdrant.sources.arrays import Ids, Payloads, beside, check_columns, side_files
from csr_qdrant.sources.base import Block
from csr_qdrant.sources.files import Files, FileSource, Range
from csr_qdrant.sources.options import SourceOptions


def open_codes(path: Path, options: SourceOptions) -> FileSource:
    """Open a `.safetensors` file of codes and the files that `options` names."""
    options.refuse(path, "text_field", "vector_field")
    files = Files.opened(path, options.ids, options.payload, how=options.as_text())
    with CodesFile(path) as file:
        rows = len(file)
    if not rows:
        raise CsrError(f"{path} holds no rows: write it anew")
    ids, payloads = side_files(options)
    check_columns(ids, payloads, rows, str(path))
    read = partial(_blocks, path, ids, payloads)
    return FileSource(name=str(path), kind="codes", files=files, rows=rows, read=read)


def _blocks(
    path: Path, ids: Ids | None, payloads: Payloads | None, ranges: Sequence[Range]
) -> Iterator[Block]:
    with CodesFile(path) as file:

        def read(first: int, last: int) -> dict[str, Any]:
            return {"codes": file.read(first, last)}

        yield from beside(read, ids, payloads, ranges)
