"""Ray Data: classes for `Dataset.map_batches` that encode vectors, and write codes to a server.

Each actor of the pool makes one of them, so the encoder is read once an actor. Ray itself is not
imported here.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from csr_qdrant.closing import Closing
from csr_qdrant.collection import Collection
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.integrations.ray_columns import (
    Batch,
    codes_of_columns,
    codes_to_columns,
    column_of,
    float32_at_norm_1,
    matrix_of,
    plain,
    plain_column,
)
from csr_qdrant.points import Rows, directed_codes, make_points
from csr_qdrant.stores.base import PointBatch

if TYPE_CHECKING:
    from csr_qdrant.stores.server_writer import ServerCodeWriter

__all__ = ["CsrEncode", "CsrWrite", "codes_of_columns", "codes_to_columns"]

KEY_VARIABLE = "QDRANT_API_KEY"


class CsrEncode:
    """Adds codes to batches of vectors, in the columns `CODE_indices` and `CODE_values`."""

    def __init__(
        self,
        encoder: str | Encoder,
        *,
        vector: str = "vector",
        code: str = "code",
        k: int | None = None,
        drop_vector: bool = False,
        normalise: bool = False,
        device: str | None = "numpy",
    ) -> None:
        """Load the encoder.

        Args:
            encoder: a folder that every node can read, `hf:OWNER/NAME`, or an encoder, which
                travels with the task.
            vector: column of the dense vectors, (n, d).
            code: what the names of the new columns start with.
            k: active latents at most; None: the encoder's own.
            drop_vector: leave the dense vectors out of what goes on.
            normalise: True encodes vectors at norm 1, which is how a collection that compares by
                cosine keeps them, and what `csr attach` encodes there.
            device: as for `Encoder.encode`; by default numpy, since Ray gives an actor one core.
        """
        self.encoder = encoder if isinstance(encoder, Encoder) else Encoder.load(encoder)
        self.vector, self.code, self.k = vector, code, k
        self.drop_vector, self.normalise, self.device = drop_vector, normalise, device

    def __call__(self, batch: Batch) -> dict[str, npt.NDArray[Any]]:
        """Return the batch with normalised codes, empty for rows of zeros or no active latent.

        Raises CsrError if the column is missing or holds no vectors of the encoder's dimension.
        """
        dense = matrix_of(batch, self.vector)
        rows = float32_at_norm_1(dense) if self.normalise else dense
        raw = self.encoder.encode(rows, self.k, device=self.device, name=self.vector)
        codes = directed_codes(raw, np.asarray(dense.any(axis=1)))
        kept = {name: each for name, each in batch.items() if name != self.vector}
        columns = kept if self.drop_vector else dict(batch)
        return columns | codes_to_columns(codes.normalised(), self.code)


class CsrWrite(Closing):
    """Writes batches into a collection on a Qdrant server, and returns counts.

    Rows go into a collection that csr-qdrant made as points, and into one that codes were attached
    to as codes of the points that are there, whose other vectors and payloads stay. Writing the
    same rows again changes nothing, so Ray may repeat a task.
    """

    def __init__(
        self,
        collection: str,
        encoder: str | Encoder,
        *,
        url: str | None = None,
        connect: Callable[[], Any] | None = None,
        id: str = "id",
        vector: str = "vector",
        code: str = "code",
        payload: Sequence[str] | None = None,
        normalise: bool = False,
        device: str | None = "numpy",
    ) -> None:
        """Load the encoder and open the collection.

        Args:
            collection: its name; it exists.
            encoder: the collection's own; a folder, `hf:OWNER/NAME`, or an encoder.
            url: of the server; the API key is read from QDRANT_API_KEY on the actor's node.
            connect: makes the `QdrantClient` on the actor's node, instead of `url`.
            id: column of the ids, integers, UUIDs or texts.
            vector: column of the dense vectors, encoded here unless there are codes.
            code: start of the names of the columns with codes that `CsrEncode` made.
            payload: columns that become the payload; None: all others.
            normalise: True encodes vectors at norm 1, which is how a collection that compares by
                cosine keeps them, and what `csr attach` encodes there; a collection whose record
                says so needs no telling.
            device: as for `Encoder.encode`.

        Raises ConfigError unless exactly one of `url` and `connect` is given, CsrError if the
        collection is not there or was made with another encoder.
        """
        if (url is None) == (connect is None):
            raise ConfigError("give one of url and connect, so that the server is known")
        self.encoder = encoder if isinstance(encoder, Encoder) else Encoder.load(encoder)
        self.client = _connect(url) if connect is None else connect()
        self.collection = Collection.open_on(self.client, collection, self.encoder)
        # Codes stay with the collection that was checked, also when an alias moves.
        attached = self.collection.store.schema.attached
        self._writer = _code_writer(self.client, collection) if attached else None
        self.name, self.device = collection, device
        self.normalise = normalise or self.collection.store.schema.unit_norm
        self.id, self.vector, self.code, self.payload = id, vector, code, payload

    def __call__(self, batch: Batch) -> dict[str, npt.NDArray[Any]]:
        """Write a batch; return one row of counts.

        `rows` written, of them those `without_code`, and those `missing`, not written because the
        collection that codes were attached to has no such point. Raises CsrError for a code that
        the server refuses.
        """
        points = self._points(batch)
        without_code, missing = int((points.codes.lengths == 0).sum()), 0
        if self._writer is None:
            self.collection.store.upsert(points)
        else:
            without_code, missing = self._update(self._writer, points)
        written = len(points) - missing
        counts = {"rows": written, "without_code": without_code, "missing": missing}
        return {name: np.array([count]) for name, count in counts.items()}

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    def _points(self, batch: Batch) -> PointBatch:
        attached = self.collection.store.schema.attached
        keep_dense = self.collection.keeps_dense and not attached
        codes = None if keep_dense else codes_of_columns(batch, self.code, self.encoder.h)
        dense = matrix_of(batch, self.vector) if codes is None else None
        rows = Rows(
            ids=column_of(batch, self.id).tolist(),
            vectors=float32_at_norm_1(dense) if self.normalise and dense is not None else dense,
            codes=codes,
            payloads=None if attached else self._payloads(batch),
            name=self.vector,
        )
        k = self.collection.identity.k
        # Whatever the codes are of, dense vectors are kept as they came.
        made = make_points(
            rows, self.encoder, k, keep_dense, skip_zero=attached, device=self.device
        )
        return replace(made, dense=np.asarray(dense, np.float32)) if keep_dense else made

    def _payloads(self, batch: Batch) -> list[dict[str, Any]] | None:
        own = {self.id, self.vector, f"{self.code}_indices", f"{self.code}_values"}
        names = (
            [name for name in batch if name not in own] if self.payload is None else self.payload
        )
        if not names:
            return None
        columns = [plain_column(column_of(batch, name)) for name in names]
        return [
            dict(zip(names, map(plain, row), strict=True)) for row in zip(*columns, strict=True)
        ]

    def _update(self, writer: "ServerCodeWriter", points: PointBatch) -> tuple[int, int]:
        """Write codes onto points that are there, and nothing else.

        Returns how many of these have no code now, and how many points are not there.
        """
        schema = self.collection.store.schema
        coded = np.flatnonzero(points.codes.lengths).tolist()
        ids = [points.ids[row] for row in coded]
        updates = writer.updates(schema.code_name, only_new=False)
        if refused := updates.write(ids, points.codes[coded]):
            first = refused[0]
            raise CsrError(
                f"{writer.location} refused the codes of {len(refused)} points, the first "
                f"{first.id}: {first.reason}"
            )
        empty = [points.ids[row] for row in np.flatnonzero(points.codes.lengths == 0).tolist()]
        if not empty:
            return 0, updates.gone
        writer.remove(schema.code_name, empty)  # a code that stands there is of another vector
        there = len(writer.retrieve(schema.dense_name, schema.code_name, empty))
        return there, updates.gone + len(empty) - there


def _code_writer(client: Any, collection: str) -> "ServerCodeWriter":
    from csr_qdrant.stores.server_writer import ServerCodeWriter

    return ServerCodeWriter.open(client, collection)


def _connect(url: str | None) -> Any:
    from csr_qdrant.stores.server import connect

    return connect(str(url), api_key=os.environ.get(KEY_VARIABLE) or None)
