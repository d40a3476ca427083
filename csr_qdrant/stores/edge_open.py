"""An open shard of Qdrant Edge: what all hold that read or write a collection in a folder."""

from pathlib import Path
from typing import Any

from csr_qdrant import long_calls
from csr_qdrant.closing import Closing
from csr_qdrant.errors import CsrError
from csr_qdrant.stores.edge_folder import plain_errors


class OpenShard(Closing):
    """A collection in a folder, whose shard no other handle can open meanwhile."""

    def __init__(self, folder: Path, shard: Any) -> None:
        """Wrap an `EdgeShard`, which is closed with this."""
        self._folder = folder
        self._handle = shard

    @property
    def location(self) -> str:
        """The folder."""
        return str(self._folder)

    def close(self) -> None:
        """Release the folder; nothing else may be called afterwards."""
        if self._handle is None:
            return
        shard, self._handle = self._handle, None
        with plain_errors(self._folder):
            self._release(shard)

    @property
    def _shard(self) -> Any:
        if self._handle is None:
            raise CsrError(f"the collection {self._folder} is closed: open it again")
        return self._handle

    def _release(self, shard: Any) -> None:
        shard.close()


class WritableShard(OpenShard):
    """One that is written, and flushed before it is closed."""

    def flush(self) -> None:
        """Make everything written so far durable."""
        with plain_errors(self._folder):
            self._shard.flush()

    def optimise(self) -> None:
        """Build the collection's indexes as its own settings say; blocks until that is done."""
        shard = self._shard
        with plain_errors(self._folder), long_calls.around():
            shard.optimize()

    def _update(self, operation: Any) -> None:
        shard = self._shard
        with plain_errors(self._folder):
            shard.update(operation)

    def _release(self, shard: Any) -> None:
        shard.flush()
        super()._release(shard)
