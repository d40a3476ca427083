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
    k: int  # active latents of the documents at most
    embedder: str | None  # URI of what makes vectors of texts, if that is known

    @classmethod
    def of(cls, encoder: Encoder, k: int | None, embedder: Embedder | None) -> "Identity":
        """Return the identity of a new collection; raises ConfigError if k does not fit."""
        return cls(
            fingerprint=encoder.fingerprint,
            h=encoder.h,
            d=encoder.d,
            k=check_k(encoder.k if k is None else k, encoder.h),
            embedder=encoder.embedder if embedder is None else embedder.uri,
        )

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], location: str) -> "Identity":
        """Read what `to_metadata` wrote; raises CsrError if it is not there or too new."""
        stored = metadata.get(KEY)
        if not isinstance(stored, Mapping):
            raise CsrError(
                f"{location} was not made by csr-qdrant: add codes to it with `csr attach`, or "
                "index into a new collection"
            )
        version = stored.get("format_version")
        if version != FORMAT_VERSION:
            raise CsrError(
                f"{location} has format version {version}, this release reads {FORMAT_VERSION}: "
                f"upgrade csr-qdrant"
            )
        try:
            return cls(
                fingerprint=str(stored["fingerprint"]),
                h=int(stored["h"]),
                d=int(stored["d"]),
                k=int(stored["k"]),
                embedder=stored["embedder"],
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CsrError(
                f"the metadata of {location} are damaged ({error!r}): index into a new collection"
            ) from error

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
