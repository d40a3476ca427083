"""Ray Data: classes for `Dataset.map_batches` that encode vectors, and write codes to a server.

Each actor of the pool makes one of them, so the encoder is read once an actor. Ray itself is not
imported here.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from csr_qdrant.closing import Closing
from csr_qdrant.codes import SparseCodes
from csr_qdrant.collection import Collection
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.integrations.texts import at_norm_1
from csr_qdrant.points import Rows, directed_codes, make_points
from csr_qdrant.stores.base import PointBatch

Batch = Mapping[str, npt.NDArray[Any]]  # a column each, as with batch_format="numpy"

KEY_VARIABLE = "QDRANT_API_KEY"
POINTS_PER_REQUEST = 256


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
        dense = _matrix(batch, self.vector)
        rows = _float32_at_norm_1(dense) if self.normalise else dense
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
        self.name, self.device = collection, device
        self.normalise = normalise or self.collection.store.schema.unit_norm
        self.id, self.vector, self.code, self.payload = id, vector, code, payload

    def __call__(self, batch: Batch) -> dict[str, npt.NDArray[Any]]:
        """Write a batch; return one row: `rows` written, and of them those `without_code`."""
        points = self._points(batch)
        if self.collection.store.schema.attached:
            self._update(points)
        else:
            self.collection.store.upsert(points)
        empty = int((points.codes.lengths == 0).sum())
        return {"rows": np.array([len(points)]), "without_code": np.array([empty])}

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    def _points(self, batch: Batch) -> PointBatch:
        attached = self.collection.store.schema.attached
        keep_dense = self.collection.keeps_dense and not attached
        codes = None if keep_dense else codes_of_columns(batch, self.code, self.encoder.h)
        dense = _matrix(batch, self.vector) if codes is None else None
        rows = Rows(
            ids=_column(batch, self.id).tolist(),
            vectors=_float32_at_norm_1(dense) if self.normalise and dense is not None else dense,
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
        columns = [_column(batch, name).tolist() for name in names]
        return [
            dict(zip(names, map(_plain, row), strict=True)) for row in zip(*columns, strict=True)
        ]

    def _update(self, points: PointBatch) -> None:
        """Write codes onto points that are there; other vectors are not touched."""
        from qdrant_client import models

        name = self.collection.store.schema.code_name
        coded = list(zip(points.ids, points.codes.to_qdrant(), strict=True))
        for start in range(0, len(coded), POINTS_PER_REQUEST):
            some = coded[start : start + POINTS_PER_REQUEST]
            made = [
                models.PointVectors(id=i, vector={name: code}) for i, code in some if code.indices
            ]
            empty = [i for i, code in some if not code.indices]
            if made:
                self._call(partial(self.client.update_vectors, self.name, points=made, wait=True))
            if empty:  # a code that stands there is one of another vector
                self._call(partial(self.client.delete_vectors, self.name, [name], empty, wait=True))

    def _call(self, write: Callable[[], Any]) -> None:
        from csr_qdrant.stores.server_errors import RetryPolicy, server_errors

        with server_errors(self.collection.store.location, os.environ.get(KEY_VARIABLE)):
            RetryPolicy(attempts=10).call(write)


def codes_to_columns(codes: SparseCodes, name: str) -> dict[str, npt.NDArray[Any]]:
    """Return codes as two columns of arrays, `NAME_indices` and `NAME_values`."""
    indices = np.empty(len(codes), object)
    values = np.empty(len(codes), object)
    for row, code in enumerate(codes.rows()):
        indices[row], values[row] = code.indices.astype(np.int64), code.values
    return {f"{name}_indices": indices, f"{name}_values": values}


def codes_of_columns(batch: Batch, name: str, h: int) -> SparseCodes | None:
    """Return the codes in two columns as `codes_to_columns` makes them, None without them.

    Raises CsrError if they are no codes over `h` latents.
    """
    indices, values = batch.get(f"{name}_indices"), batch.get(f"{name}_values")
    if indices is None or values is None:
        return None
    lengths = [len(each) for each in indices]
    latents = np.concatenate([np.zeros(0, np.int64), *(np.asarray(i, np.int64) for i in indices)])
    if len(latents) and (latents.min() < 0 or latents.max() >= h):
        raise CsrError(f"codes in {name}_indices must be latents below {h}: encode them anew")
    weights = np.concatenate([np.zeros(0, np.float32), *(np.asarray(v) for v in values)])
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return SparseCodes(indptr, latents.astype(np.uint32), weights.astype(np.float32), h)


def _column(batch: Batch, name: str) -> npt.NDArray[Any]:
    if name not in batch:
        raise CsrError(f"batches have no column {name!r} (they have {', '.join(batch)}): name it")
    return np.asarray(batch[name])


def _matrix(batch: Batch, name: str) -> npt.NDArray[Any]:
    """Return a column of vectors as (n, d); Ray gives lists of equal lengths as objects, too."""
    column = _column(batch, name)
    if column.dtype != object:
        return column
    try:
        return np.stack([np.asarray(each, np.float32) for each in column])
    except (TypeError, ValueError) as error:
        raise CsrError(f"column {name!r} must hold vectors of equal length: {error}") from None


def _float32_at_norm_1(dense: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):  # infinity is for the encoder to report
        return at_norm_1(np.asarray(dense, np.float32))


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _connect(url: str | None) -> Any:
    from csr_qdrant.stores.server import connect

    return connect(str(url), api_key=os.environ.get(KEY_VARIABLE) or None)
