"""What a search is asked with, and what it answers under external ids."""

from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from csr_qdrant.codes import SparseCodes
from csr_qdrant.encoder import F32
from csr_qdrant.errors import ConfigError
from csr_qdrant.ids import ID_KEY
from csr_qdrant.stores.base import Hit

Query = str | npt.NDArray[Any] | SparseCodes
Queries = Sequence[str] | npt.NDArray[Any] | SparseCodes


def as_batch(query: Query) -> Queries:
    """Return one query as a batch of one."""
    if isinstance(query, str):
        return [query]
    return query if isinstance(query, SparseCodes) else np.atleast_2d(np.asarray(query))


def are_texts(queries: Queries) -> TypeGuard[Sequence[str]]:
    """Tell whether `queries` must be embedded first."""
    if isinstance(queries, np.ndarray | SparseCodes):
        return False
    return all(isinstance(each, str) for each in queries)


def as_vectors(queries: Any) -> F32:
    """Return (m, d) float32; raises ConfigError for what is neither numbers nor texts."""
    try:
        with np.errstate(over="ignore"):  # infinity is for the encoder to report
            return np.asarray(queries, np.float32)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"queries must be texts, vectors or codes: {error}") from None


def external_hits(hits: list[Hit]) -> list[Hit]:
    """Return hits under their external ids, without the reserved payload key."""
    return [Hit(payload.pop(ID_KEY, point), score, payload) for point, score, payload in hits]
