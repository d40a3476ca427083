"""Allocations that fail, in words."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from csr_qdrant.errors import CsrError


@contextmanager
def enough_memory(advice: Callable[[], str]) -> Iterator[None]:
    """Turn a failed allocation of torch's in the block into a CsrError.

    `advice` says what memory does not suffice for, and which dial to turn.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch's own kinds are RuntimeErrors
        text = str(error).lower()
        if not isinstance(error, MemoryError) and not ("memory" in text and "alloc" in text):
            raise
        raise CsrError(f"memory does not suffice for {advice()}") from error
