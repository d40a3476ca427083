"""A collection on a server that is asked patiently, and whose repeated requests are counted.

A tune sends thousands of requests: with the few tries of a search, one of them would meet a bad
moment often enough to end it all.
"""

from collections.abc import Callable
from typing import TypeVar

from csr_qdrant.stores.server import ServerStore
from csr_qdrant.stores.server_errors import RetryPolicy
from csr_qdrant.stores.server_reader import PATIENT

T = TypeVar("T")


class PatientStore(ServerStore):
    """A store that insists on every answer, as reading a whole collection does."""

    repeats = 0  # requests that were sent once more, so far

    def _call(self, function: Callable[[], T], policy: RetryPolicy | None = None) -> T:
        tries = 0

        def tried() -> T:
            nonlocal tries
            tries += 1
            return function()

        try:
            return super()._call(tried, PATIENT)
        finally:
            self.repeats += max(0, tries - 1)
