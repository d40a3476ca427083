"""One way to open every kind of source."""

from collections.abc import Callable, Sequence
from pathlib import Path

from csr_qdrant.errors import CsrError
from csr_qdrant.sources.arrays import open_npy
from csr_qdrant.sources.base import Source
from csr_qdrant.sources.beir import open_beir
from csr_qdrant.sources.files import FileSource, existing_file
from csr_qdrant.sources.images import holds_images
from csr_qdrant.sources.npz import open_npz
from csr_qdrant.sources.options import SourceOptions
from csr_qdrant.sources.records import open_csv, open_jsonl
from csr_qdrant.sources.saved_codes import open_codes


def open_source(
    path: str | Path,
    *,
    id_field: str | None = None,
    text_field: str | None = None,
    vector_field: str | None = None,
    payload_fields: Sequence[str] | None = None,
    ids: str | Path | None = None,
    payload: str | Path | None = None,
) -> Source:
    """Open a file of vectors, texts or codes, or a BEIR folder, by the end of its name.

    `id_field` may be `"#"` for row numbers; `payload_fields` None keeps all other fields, `()`
    none; `ids` and `payload` are files beside a `.npy`, `.npz` or `.safetensors`, row by row.
    Where a source has both vectors and texts, it gives the vectors, unless `text_field` is named.

    Opening reads all ids (text formats: all rows) once. Raises CsrError for what is wrong with a
    file, ConfigError for options that do not fit.
    """
    options = SourceOptions(
        id_field=id_field,
        text_field=text_field,
        vector_field=vector_field,
        payload_fields=payload_fields,
        ids=None if ids is None else Path(ids),
        payload=None if payload is None else Path(payload),
    )
    path = Path(path)
    if holds_images(path):
        raise CsrError(
            f"{path} holds images: make vectors of them with csr embed {path} -o images.npy "
            "--embedder timm:NAME and give those"
        )
    if path.is_dir():
        return open_beir(path, options)
    return _opener(existing_file(path))(path, options)


def _opener(path: Path) -> Callable[[Path, SourceOptions], FileSource]:
    for suffix, opener in _OPENERS.items():
        if path.name.endswith(suffix):
            return opener
    raise CsrError(
        f"{path} is of no known kind: give one of {', '.join(_OPENERS)} or a BEIR folder"
    )


def _open_parquet(path: Path, options: SourceOptions) -> FileSource:
    from csr_qdrant.sources.parquet import open_parquet  # pyarrow is an extra

    return open_parquet(path, options)


_OPENERS = {
    ".npy": open_npy,
    ".npz": open_npz,
    ".parquet": _open_parquet,
    ".jsonl": open_jsonl,
    ".jsonl.gz": open_jsonl,
    ".csv": open_csv,
    ".csv.gz": open_csv,
    ".safetensors": open_codes,
}
SUFFIXES = tuple(_OPENERS)  # of the names of files that `open_source` takes
