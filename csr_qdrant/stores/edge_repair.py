"""Loads a shard, also one that was killed while codes were added to it or taken away.

The engine adds and removes a vector name in one segment after the other, and in its configuration
last. Killed in between, it refuses to load what it left: segments that disagree about the name, or
a configuration with a name that no segment has (qdrant-edge-py 0.9). In the first case no point has
a code yet, in the second they were to go, so taking the name out everywhere loses nothing.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import qdrant_edge as engine

from csr_qdrant.atomic import replaced_file
from csr_qdrant.errors import CsrError
from csr_qdrant.json_files import read_json
from csr_qdrant.stores.base import Json
from csr_qdrant.stores.edge_folder import DESCRIPTION, plain_errors, read_description


def load_shard(folder: Path, shard_folder: Path) -> Any:
    """Return the open shard of the collection in `folder`; raises CsrError if it cannot be opened.

    A shard that does not load is mended if codes were being attached or detached there.
    """
    try:
        with plain_errors(folder):
            return engine.EdgeShard.load(str(shard_folder))
    except CsrError:
        if not mended(folder, shard_folder):
            raise
    with plain_errors(folder):
        return engine.EdgeShard.load(str(shard_folder))


def mended(folder: Path, shard_folder: Path) -> bool:
    """Take the name of attached codes out of a shard at odds about it; tell whether it was."""
    if not (folder / DESCRIPTION).exists():
        return False
    schema, _ = read_description(folder)
    try:
        with _locked(shard_folder) as ours:
            return ours and schema.attached and _take_out(shard_folder, schema.code_name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # damaged in other ways: what the engine said of it stands


def _take_out(shard_folder: Path, name: str) -> bool:
    """Remove the sparse vector `name` if segments and configuration disagree about it."""
    configuration = shard_folder / "edge_config.json"
    configured = name in (read_json(configuration).get("sparse_vectors") or {})
    segments = sorted((shard_folder / "segments").glob("*/segment.json"))
    having = [name in _sparse_names(read_json(segment)) for segment in segments]
    if not segments or all(having) or not (any(having) or configured):
        return False
    # Data first and the configuration last: killed here, too, they still disagree.
    for segment in segments:
        for part in ("vector_storage", "vector_index"):
            shutil.rmtree(segment.with_name(f"{part}-{name}"), ignore_errors=True)
        _without(segment, ("config", "sparse_vector_data"), name)
    _without(configuration, ("sparse_vectors",), name)
    return True


def _sparse_names(segment: Json) -> Json:
    found: Json = segment["config"].get("sparse_vector_data") or {}
    return found


def _without(path: Path, keys: tuple[str, ...], name: str) -> None:
    """Write a JSON file anew without what stands under `keys` and `name`, if it is there."""
    described = read_json(path)
    inner = described
    for key in keys:
        inner = inner.get(key) or {}
    if inner.pop(name, None) is not None:
        with replaced_file(path) as temporary:
            temporary.write_text(json.dumps(described, separators=(",", ":")), "utf-8")


@contextmanager
def _locked(shard_folder: Path) -> Iterator[bool]:
    """Hold the engine's own lock of a shard; False: somebody else does, or there is no telling."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield False
        return
    log = os.open(shard_folder / "wal", os.O_RDONLY)
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(log)  # which gives the lock back
