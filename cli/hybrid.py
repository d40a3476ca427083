"""Hybrid search of `csr query`: which other vector to fuse with, and its queries."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from csr_qdrant.cli.rows import about
from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.queries import Fuse


@dataclass(frozen=True, kw_only=True)
class HybridSettings:
    """What to fuse the hits by code with."""

    hybrid: Literal["rrf", "dbsf"] | None = field(
        default=None,
        metadata=about("Fuse with the hits of another vector, by rank (rrf) or score (dbsf)."),
    )
    hybrid_vector: str | None = field(
        default=None,
        metadata=about("Name of that vector. [default: the dense vectors]", "NAME"),
    )
    hybrid_queries: Path | None = field(
        default=None,
        metadata=about(
            "File of its queries, vectors or codes, a row a query. [default: the queries' dense "
            "vectors]",
            "FILE",
        ),
    )
    hybrid_candidates: int = field(
        default=100, metadata=about("Hits that each part brings, at least.")
    )

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.hybrid_candidates < 1:
            raise ConfigError(f"hybrid-candidates must be at least 1, got {self.hybrid_candidates}")
        if self.hybrid is None and (self.hybrid_vector is not None or self.hybrid_queries):
            raise ConfigError("another vector is named, but not how to fuse: pass --hybrid rrf")


class OtherQueries:
    """The other vector's queries, in the order of the queries themselves."""

    def __init__(self, settings: HybridSettings) -> None:
        """Keep the settings; a file is read when it is first needed."""
        self._settings = settings

    def of(self, rows: slice) -> Fuse | None:
        """Return how to fuse the queries `rows`, None if not at all.

        Raises CsrError if the file has fewer rows.
        """
        settings = self._settings
        if settings.hybrid is None:
            return None
        queries = None
        if settings.hybrid_queries is not None:
            if len(self._given) < rows.stop:
                raise CsrError(
                    f"{settings.hybrid_queries} has {len(self._given)} rows for more queries: "
                    "give one row a query"
                )
            queries = self._given[rows]
        return Fuse(
            vector=settings.hybrid_vector,
            queries=queries,
            method=settings.hybrid,
            candidates=settings.hybrid_candidates,
        )

    @cached_property
    def _given(self) -> Any:
        from csr_qdrant.sources import open_source

        assert self._settings.hybrid_queries is not None
        blocks = list(open_source(self._settings.hybrid_queries).blocks(4096))
        codes = [block.codes for block in blocks if block.codes is not None]
        vectors = [block.vectors for block in blocks if block.vectors is not None]
        if not codes and not vectors:
            raise CsrError(f"{self._settings.hybrid_queries} holds neither vectors nor codes")
        return SparseCodes.concatenate(codes) if codes else np.concatenate(vectors)
