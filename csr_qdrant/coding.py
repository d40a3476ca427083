"""How an application's vectors become codes, and its points points with codes.

Vectors are named as the collection names them; the empty name is Qdrant's unnamed vector. Nothing
here changes its arguments or asks an engine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from csr_qdrant.codes import SparseCodes
from csr_qdrant.embedders import Embedder
from csr_qdrant.encoder import F32, Encoder, check_k, unit_rows
from csr_qdrant.errors import ConfigError, CsrError, RowError
from csr_qdrant.identity import Identity
from csr_qdrant.points import directed_codes
from csr_qdrant.telemetry import span

if TYPE_CHECKING:
    from qdrant_client import models


@dataclass(frozen=True, kw_only=True)
class Coding:
    """How vectors of a collection become codes; the same for all of an application's calls."""

    encoder: Encoder
    dense_name: str = ""  # of the dense vectors; empty: the unnamed one
    code_name: str = "csr"
    k: int | None = None  # active latents of the documents; None: the encoder's
    keep_dense: bool = True  # False: the collection holds codes alone, dense vectors aren't sent
    normalise: bool = False  # encode vectors at norm 1, as a collection by cosine keeps them
    embedder: Embedder | None = None  # makes vectors of texts

    def __post_init__(self) -> None:
        """Check names and k."""
        if self.dense_name == self.code_name or not self.code_name:
            raise ConfigError(
                f"codes need a vector name of their own, got {self.code_name!r} beside "
                f"{self.dense_name!r}"
            )
        check_k(self.document_k, self.encoder.h)

    @property
    def document_k(self) -> int:
        """Active latents of the documents at most."""
        return self.encoder.k if self.k is None else self.k

    def codes(self, dense: F32, k: int | None, name: str) -> SparseCodes:
        """Return normalised codes of (n, d) vectors; none for one of zeros.

        Raises CsrError for a wrong dimension and RowError for NaN or infinity, with `name`.
        """
        with span("encode", rows=len(dense)):
            # Hardly any vector begins with a zero, so hardly any is looked at as a whole.
            directed = None if dense[:, :1].all() else np.asarray(dense.any(axis=1))
            if self.normalise:
                dense = unit_rows(dense)
            raw = self.encoder.encode(dense, self.document_k if k is None else k, name=name)
            return (raw if directed is None else directed_codes(raw, directed)).normalised()


def coded_points(
    coding: Coding, points: "Sequence[models.PointStruct]"
) -> "list[models.PointStruct]":
    """Return the points with the codes of their dense vectors; those without one as they are.

    A dense vector of zeros, or without an active latent, gets no code. Raises CsrError, with the
    point's id, for a vector that cannot be encoded.
    """
    return _coded(coding, points, forget=False)


def coded_vectors(
    coding: Coding, points: "Sequence[models.PointVectors]"
) -> "list[models.PointVectors]":
    """Return new vectors of points with the codes that belong to them; see `coded_points`.

    A vector without a code takes the point's old one away.
    """
    return _coded(coding, points, forget=True)


def _coded(coding: Coding, points: Sequence[Any], *, forget: bool) -> list[Any]:
    _check_points(points)
    vectors = [_by_name(point.vector) for point in points]
    rows = [i for i, named in enumerate(vectors) if coding.dense_name in named]
    made: list[Any] = list(points)
    if not rows:
        return made
    ids = [points[i].id for i in rows]
    codes = _codes(coding, ids, [vectors[i][coding.dense_name] for i in rows])
    for i, code in zip(rows, codes.to_qdrant(), strict=True):
        named = {name: each for name, each in vectors[i].items() if name != coding.code_name}
        if not coding.keep_dense:
            del named[coding.dense_name]
        if code.indices or forget:  # an update leaves what it does not name as it was
            named[coding.code_name] = code
        made[i] = points[i].model_copy(update={"vector": named})
    return made


def _check_points(points: Any) -> None:
    if isinstance(points, Sequence) and all(hasattr(each, "model_copy") for each in points):
        return
    raise ConfigError(
        f"points must be a list of models.PointStruct or models.PointVectors, got "
        f"{type(points).__name__}: make one of each point"
    )


def _by_name(vector: Any) -> Mapping[str, Any]:
    """Return a point's vectors by name; Qdrant takes the unnamed one bare too."""
    return vector if isinstance(vector, Mapping) else {"": vector}


def _codes(coding: Coding, ids: Sequence[Any], vectors: Sequence[Any]) -> SparseCodes:
    for point, vector in zip(ids, vectors, strict=True):
        _check_vector(coding, point, vector)
    with np.errstate(over="ignore"):  # infinity is for the encoder to report
        dense = np.array(vectors, np.float32)
    try:
        return coding.codes(dense, None, "the points")
    except RowError as error:
        raise CsrError(
            f"point {ids[error.row]!r} has a vector with NaN, infinity or values too large for "
            f"float32: mend or remove it"
        ) from error


def _check_vector(coding: Coding, point: Any, vector: Any) -> None:
    """Raise CsrError unless a point's vector is one of d numbers."""
    shape = _shape(vector)
    if shape == (coding.encoder.d,):
        return
    label = f"vector {coding.dense_name!r}" if coding.dense_name else "unnamed vector"
    got = type(vector).__name__ if shape is None else f"shape {shape}"
    raise CsrError(
        f"the {label} of point {point!r} must be {coding.encoder.d} numbers, got {got}: use the "
        f"encoder of this vector, or write the point through the client itself"
    )


def _shape(vector: Any) -> tuple[int, ...] | None:
    """Return the shape of a vector or matrix, None for documents, codes and the like."""
    if not isinstance(vector, list | tuple | np.ndarray):
        return None
    first = vector[0] if len(vector) else 0.0
    return (len(vector), len(first)) if isinstance(first, list | tuple) else np.shape(vector)


def check_collection(
    coding: Coding, info: "models.CollectionInfo", client: Any, collection: str
) -> None:
    """Raise CsrError unless a collection's codes are those that `coding` makes."""
    from csr_qdrant.stores.server_config import address, own_metadata, read_schema

    location = f"collection {collection!r} {address(client)}"
    schema = read_schema(info, location)
    identity = Identity.from_metadata(own_metadata(info), location)
    identity.check(coding.encoder, location)
    kept = schema.dense_name if schema.dense_dim is not None else None
    used = coding.dense_name if coding.keep_dense else None
    for what, theirs, ours in (
        ("codes under the name", schema.code_name, coding.code_name),
        ("dense vectors under the name", kept, used),
        ("codes with k =", identity.k, coding.document_k),
        ("codes of vectors at norm 1 (normalise) =", schema.unit_norm, coding.normalise),
    ):
        if theirs != ours:
            raise CsrError(
                f"{location} keeps {what} {theirs!r}, got {ours!r}: make the client with the "
                f"collection's setting"
            )
