"""An open collection on a Qdrant server: what all hold that read or write one."""

import threading
from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

from qdrant_client import QdrantClient, models

from csr_qdrant.closing import Closing
from csr_qdrant.errors import CsrError
from csr_qdrant.stores import server_config as config
from csr_qdrant.stores.server_errors import RetryPolicy, server_errors
from csr_qdrant.stores.server_limits import Limits, exact_count, read_limits

T = TypeVar("T")


class OnServer(Closing):
    """A collection on a server, by name. Requests are repeated while the server is busy or away."""

    def __init__(
        self, client: QdrantClient, name: str, retries: RetryPolicy, *, owns_client: bool
    ) -> None:
        """Wrap a collection; `owns_client` says that `close` closes the client too."""
        self._client = client
        self._name = name
        self._retries = retries
        self._owns_client = owns_client
        self._closed = False
        self._hurry = threading.Event()  # set: the next try of each request is its last

    @property
    def location(self) -> str:
        """Name of the collection and the server's address, without a password."""
        return f"collection {self._name!r} {config.address(self._client)}"

    def close(self) -> None:
        """Close the client if this owns it; nothing else may be called afterwards."""
        if self._owns_client and not self._closed:
            self._client.close()
        self._closed = True

    @cached_property
    def _limits(self) -> Limits:
        """What the collection's strict mode lets one request ask for."""
        return read_limits(self._info())

    def _count(self, condition: models.Filter | None) -> int:
        return exact_count(self._client, self._name, condition, lambda: self._limits, self._call)

    def _info(self) -> models.CollectionInfo:
        return self._call(lambda: self._client.get_collection(self._name))

    def _exists(self) -> bool:
        """Tell whether the collection exists, on a server that is new enough."""
        self._call(lambda: config.refuse_old(self._client))
        return self._call(lambda: self._client.collection_exists(self._name))

    def _call(self, function: Callable[[], T], policy: RetryPolicy | None = None) -> T:
        if self._closed:
            raise CsrError(f"{self.location} is closed: open it again")
        with server_errors(self.location, self._client.init_options.get("api_key")):
            return (policy or self._retries).call(function, self._hurry)
