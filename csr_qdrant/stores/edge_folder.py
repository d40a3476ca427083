"""What stands around the embedded engine: a collection's description, and errors in sentences."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from csr_qdrant.atomic import write_json
from csr_qdrant.errors import CsrError
from csr_qdrant.json_files import read_json
from csr_qdrant.stores.base import Json, Schema

FORMAT = 1
DESCRIPTION = "collection.json"
# Other people's metadata of a collection that was copied here; it outlives `csr detach`.
USER_METADATA = "user_metadata.json"


def write_description(folder: Path, schema: Schema, metadata: Json) -> None:
    """Write `collection.json`, whole or not at all; raises CsrError if `metadata` are no JSON."""
    try:
        json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CsrError(f"metadata of a collection must be JSON: {error}") from error
    description = {"format": FORMAT, "schema": schema.to_json(), "metadata": metadata}
    write_json(folder / DESCRIPTION, description)


def read_description(folder: Path) -> tuple[Schema, Json]:
    """Return schema and metadata; raises CsrError unless `folder` holds a collection."""
    path = folder / DESCRIPTION
    if not folder.is_dir():
        raise CsrError(f"there is no collection at {folder}: check the path or index one there")
    if not path.is_file():
        raise CsrError(
            f"{folder} is not a collection: it has no {DESCRIPTION}; a shard of Qdrant Edge gets "
            "codes by `csr attach`"
        )
    try:
        description = read_json(path)
        if description["format"] > FORMAT:
            raise CsrError(
                f"{folder} has collection format {description['format']}, this version reads up "
                f"to {FORMAT}: upgrade csr-qdrant"
            )
        return Schema(**description["schema"]), dict(description["metadata"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = " ".join(str(error).split())[:200]
        raise CsrError(f"{path} is damaged ({why}): restore it or index again") from error


def write_user_metadata(folder: Path, metadata: Json) -> None:
    """Write other people's metadata of a copied collection; no file if there are none."""
    if metadata:
        write_json(folder / USER_METADATA, metadata)


def read_user_metadata(folder: Path) -> Json:
    """Return other people's metadata of a collection; raises CsrError if they are damaged."""
    path = folder / USER_METADATA
    if not path.is_file():
        return {}
    try:
        return dict(read_json(path))
    except (OSError, ValueError, TypeError) as error:
        why = " ".join(str(error).split())[:200]
        raise CsrError(f"{path} is damaged ({why}): restore it, or remove it") from error


def shard_folder(folder: Path, schema: Schema) -> Path:
    """Return where the engine's files are; in a bare shard with attached codes, `folder` itself."""
    own = folder / "shard"
    return folder if schema.attached and not own.is_dir() else own


def any_shard_folder(folder: Path) -> Path:
    """Return where the engine's files are, whoever made the collection.

    Raises CsrError if there are none.
    """
    if not folder.is_dir():
        raise CsrError(f"there is no collection at {folder}: check the path")
    for place in (folder / "shard", folder):
        if (place / "edge_config.json").is_file() or (place / "segments").is_dir():
            return place
    raise CsrError(f"{folder} is not a collection of Qdrant Edge: it holds no segments")


@contextmanager
def plain_errors(folder: Path) -> Iterator[None]:
    """Turn what the engine and the disk raise into CsrError; the engine has no types of errors."""
    try:
        yield
    except CsrError:
        raise
    except OSError as error:
        raise CsrError(f"cannot write to {folder}: {os.strerror(error.errno or 0)}") from error
    except Exception as error:
        if type(error) not in (Exception, ValueError):  # the engine's; others are our own mistakes
            raise
        raise CsrError(_explain(str(error), folder)) from error
    except BaseException as error:
        # A Rust panic arrives as pyo3's PanicException, which is no Exception.
        if type(error).__name__ != "PanicException":
            raise
        raise CsrError(
            f"the embedded engine failed on {folder}: {error}; open the collection again"
        ) from error


def _explain(text: str, folder: Path) -> str:
    if "WouldBlock" in text:
        return f"{folder} is open in another process or handle: close it there and try again"
    if "No space left" in text or "StorageFull" in text or "out of disk" in text.lower():
        return f"the disk that holds {folder} is full: free some space and try again"
    if "ncompatible config" in text:  # see edge_repair
        return (
            f"the segments of {folder} hold different vectors: if `csr attach` or `csr detach` was "
            "killed there, give that command again; it mends them"
        )
    return (
        f"the embedded engine failed on {folder}: {text.splitlines()[0] if text else 'no reason'}"
    )
