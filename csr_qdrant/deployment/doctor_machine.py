"""What runs here, and what the engine at the other end can do."""

from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING

from csr_qdrant import __version__

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

PACKAGES = ("qdrant-client", "qdrant-edge-py", "numpy", "torch")
# The first server with each: see Qdrant's release notes.
FEATURES = {
    "collection_metadata": (1, 16),
    "update_mode": (1, 17),
    "named_vector_creation": (1, 18),
    "memory_tiers": (1, 19),
}


def versions() -> dict[str, str | None]:
    """Return the versions of this package and of those that it works with."""
    return {"csr-qdrant": __version__, **{name: _version(name) for name in PACKAGES}}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def cuda() -> bool | None:
    """Return whether torch finds a CUDA device, None without torch."""
    if find_spec("torch") is None:
        return None
    import torch

    return bool(torch.cuda.is_available())


def server_version(client: "QdrantClient") -> str:
    """Ask a server for its version; local mode has that of the client."""
    return str(client.info().version)


def server_features(version: str) -> dict[str, bool]:
    """Return what a server of this version can do."""
    from csr_qdrant.stores.server_config import is_older

    return {name: not is_older(version, first) for name, first in FEATURES.items()}


def edge_features() -> dict[str, bool]:
    """Return what the embedded engine can do; metadata are kept beside its files."""
    return {"collection_metadata": True, "named_vector_creation": True}
