"""CSR codes for Qdrant: train an encoder on dense vectors, store sparse codes, search them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from csr_qdrant.errors import ConfigError, CsrError, MissingExtraError

if TYPE_CHECKING:
    from csr_qdrant.async_client import AsyncCsrQdrant
    from csr_qdrant.client import CsrQdrant
    from csr_qdrant.codes import SparseCodes
    from csr_qdrant.collection import Collection
    from csr_qdrant.encoder import Encoder
    from csr_qdrant.linear import LinearAdapter

__version__ = "0.1.0"
__all__ = [
    "AsyncCsrQdrant",
    "Collection",
    "ConfigError",
    "CsrError",
    "CsrQdrant",
    "Encoder",
    "LinearAdapter",
    "MissingExtraError",
    "SparseCodes",
]

# Loaded when first asked for, so that `import csr_qdrant` stays a matter of milliseconds.
_HOMES = {
    "AsyncCsrQdrant": "csr_qdrant.async_client",
    "Collection": "csr_qdrant.collection",
    "CsrQdrant": "csr_qdrant.client",
    "Encoder": "csr_qdrant.encoder",
    "LinearAdapter": "csr_qdrant.linear",
    "SparseCodes": "csr_qdrant.codes",
}


def __getattr__(name: str) -> Any:
    """Import a public class on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
