"""Which vectors a collection holds that csr-qdrant did not make, and the one to read of them."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from csr_qdrant.errors import ConfigError

COSINE = "Cosine"  # Qdrant's name of the distance by which it keeps vectors at norm 1


class DenseVector(NamedTuple):
    """A dense vector of a collection: its name, and how it is compared."""

    name: str  # empty: the unnamed vector
    dimension: int
    distance: str  # Qdrant's name of it: Cosine, Dot, Euclid or Manhattan


class Layout(NamedTuple):
    """The vectors of a collection by kind."""

    dense: Mapping[str, DenseVector]
    multi: tuple[str, ...]  # names of multivectors: a matrix a point
    sparse: tuple[str, ...]


def choose_dense(layout: Layout, wanted: str | None, location: str) -> DenseVector:
    """Return the dense vector called `wanted`, or, for None, the only one there is.

    Raises ConfigError, with what the collection holds instead, unless there is exactly one.
    """
    if wanted is None:
        return _only_dense(layout, location)
    if wanted in layout.dense:
        return layout.dense[wanted]
    label = _label(wanted)
    if wanted in layout.multi:
        raise ConfigError(
            f"{label} of {location} is a multivector, a matrix a point: choose a vector with one "
            f"row a point ({_names(layout.dense)})"
        )
    if wanted in layout.sparse:
        raise ConfigError(
            f"{label} of {location} is sparse: choose a dense vector ({_names(layout.dense)})"
        )
    raise ConfigError(
        f"{location} has no {label}: choose one of its dense vectors ({_names(layout.dense)})"
    )


def _only_dense(layout: Layout, location: str) -> DenseVector:
    if len(layout.dense) == 1:
        return next(iter(layout.dense.values()))
    if layout.dense:
        raise ConfigError(
            f"{location} has several dense vectors ({_names(layout.dense)}): name one of them"
        )
    if layout.multi:
        raise ConfigError(
            f"{location} has multivectors only ({_names(layout.multi)}), matrices and not one "
            "vector a point: choose a collection with dense vectors"
        )
    if layout.sparse:
        raise ConfigError(
            f"{location} has sparse vectors only ({_names(layout.sparse)}): choose a collection "
            "with dense vectors"
        )
    raise ConfigError(f"{location} has no vectors: choose a collection with dense vectors")


def _label(name: str) -> str:
    return f"vector {name!r}" if name else "unnamed vector"


def _names(names: Iterable[str]) -> str:
    return ", ".join(name or "the unnamed one" for name in sorted(names)) or "it has none"
