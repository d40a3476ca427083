"""Which encoder a collection belongs to: kept beside its points, checked whenever it is opened."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from csr_qdrant.embedders import Embedder
from csr_qdrant.encoder import Encoder, check_k
from csr_qdrant.errors import CsrError

KEY = "csr_qdrant"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The encoder of a collection."""

    fingerprint: str
    h: int
    d: int
    k: int  # active latents of the documents
    embedder: str | None  # URI

    @classmethod
    def of(cls, encoder: Encoder, k: int | None, embedder: Embedder | None) -> "Identity":
        """Return the identity of a new collection; raises ConfigError if k does not fit."""
        return cls(
            fingerprint=encoder.fingerprint,
            h=encoder.h,
            d=encoder.d,
            k=check_k(encoder.k if k is None else k, encoder.h),
            embedder=embedder.uri if embedder is not None else encoder.embedder,
        )

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], location: str) -> "Identity":
        """Read what `to_metadata` wrote; raises CsrError if it is not there or too new."""
        stored = metadata.get(KEY)
        if not isinstance(stored, Mapping):
            raise CsrError(f"{location} was not made by csr-qdrant: make a collection of its own")
        version = stored.get("format_version")
        if version != FORMAT_VERSION:
            raise CsrError(
                f"{location} has format version {version}, this release reads {FORMAT_VERSION}: "
                f"upgrade csr-qdrant"
            )
        return cls(
            fingerprint=str(stored["fingerprint"]),
            h=int(stored["h"]),
            d=int(stored["d"]),
            k=int(stored["k"]),
            embedder=stored["embedder"],
        )

    def to_metadata(self) -> dict[str, Any]:
        """Return metadata for a store."""
        return {KEY: {"format_version": FORMAT_VERSION, **asdict(self)}}

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def check(self, encoder: Encoder, location: str) -> None:
        """Raise CsrError, with both names, unless `encoder` is the collection's own."""
        if encoder.fingerprint != self.fingerprint:
            raise CsrError(
                f"{location} was made with encoder {self.fingerprint} (d={self.d}, h={self.h}), "
                f"got {encoder.fingerprint} (d={encoder.d}, h={encoder.h}): use the first one, or "
                f"index into a new collection"
            )
