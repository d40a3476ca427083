"""Embedders that the user of a command named, as opposed to those that files remember."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from csr_qdrant.embedders import Embedder, ImageEmbedder


def named_embedder(uri: str, device: str | None = None) -> "Embedder":
    """Load the embedder of texts at `uri`, functions of the user's own modules too.

    Pass only what the user typed or configured: `python:` runs code.
    """
    from csr_qdrant.embedders import load_embedder

    _find_modules_here(uri)
    return load_embedder(uri, device, own_code=True)


def named_image_embedder(uri: str, device: str | None = None) -> "ImageEmbedder":
    """Load the embedder of images at `uri`, as `named_embedder` does."""
    from csr_qdrant.embedders import load_image_embedder

    _find_modules_here(uri)
    return load_image_embedder(uri, device, own_code=True)


def _find_modules_here(uri: str) -> None:
    """Let `python:` find modules of the current folder, as `python -m` does; others go first."""
    here = str(Path.cwd())
    if uri.startswith("python:") and here not in sys.path:
        sys.path.append(here)
