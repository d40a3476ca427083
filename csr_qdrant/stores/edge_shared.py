"""Writes codes into a shard of Qdrant Edge that an application has open, while it goes on with it.

Only one handle of a folder can be open, so the writer takes the application's.
"""

from pathlib import Path
from typing import Any, Self

import qdrant_edge as engine

from csr_qdrant.errors import CsrError
from csr_qdrant.stores.edge_folder import any_shard_folder, plain_errors
from csr_qdrant.stores.edge_writer import EdgeCodeWriter
from csr_qdrant.stores.records import plain_id
from csr_qdrant.stores.writing import Refused

GONE = "No point with id"
GONE_ROUNDS = 10  # points of one update that are deleted again and again meanwhile


class SharedEdgeWriter(EdgeCodeWriter):
    """Codes for an open shard that other threads read and write. See `CodeWriter`.

    A code that another thread has written meanwhile stays, and a point that it deletes stays gone.
    The shard remains open when the writer is closed.
    """

    @classmethod
    def of(cls, shard: Any, folder: str | Path) -> Self:
        """Wrap the open `EdgeShard` of `folder`; raises CsrError if there is no shard."""
        path = Path(folder)
        return cls(path, any_shard_folder(path), shard)

    @property
    def exclusive(self) -> bool:
        """False: the application goes on writing."""
        return False

    def close(self) -> None:
        """Flush; the shard is its owner's to close."""
        if self._handle is not None:
            self.flush()
            self._handle = None

    def _write(self, name: str, points: list[Any], *, only_new: bool) -> list[Refused]:
        condition = None
        if only_new:  # whoever wrote a code since it was found lacking knew better
            condition = engine.Filter(must_not=[engine.HasVectorCondition(name)])
        for _ in range(GONE_ROUNDS):
            if not points:
                return []
            try:
                self._update(engine.UpdateOperation.update_vectors(points, condition))
                return []
            except CsrError as error:
                if GONE not in str(error):
                    raise
            points = self._existing(points)
        return [Refused(plain_id(each.id), "it comes and goes") for each in points]

    def _existing(self, points: list[Any]) -> list[Any]:
        ids = [each.id for each in points]
        with plain_errors(self._folder):
            found = self._shard.retrieve(ids, with_payload=False, with_vector=False)
        there = {plain_id(record.id) for record in found}
        return [each for each in points if plain_id(each.id) in there]
