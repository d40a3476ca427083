"""Collection: an encoder and a store under one name; the library's everyday object."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy.typing as npt

from csr_qdrant.closing import Closing
from csr_qdrant.codes import SparseCodes
from csr_qdrant.embedders import Embedder
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError
from csr_qdrant.identity import Identity
from csr_qdrant.ids import ID_KEY, ExternalId, normalise_id, point_id
from csr_qdrant.points import Added, Rows, check_counts, make_points
from csr_qdrant.searching import Searching
from csr_qdrant.stores.base import Datatype, Hit, Json, Schema, StoredPoint
from csr_qdrant.stores.checks import refuse_attached
from csr_qdrant.telemetry import span

ENCODER_FOLDER = "encoder"
__all__ = ["Added", "Collection", "Hit"]


class Collection(Searching, Closing):
    """Codes of an encoder in one of Qdrant's engines.

    Make one with `create` or open one with `open` (a folder, embedded engine), or with
    `create_on` and `open_on` (a server). Close it, or use it in a `with` block.
    """

    # --- making and opening ---------------------------------------------------------------

    @classmethod
    def create(
        cls,
        folder: str | Path,
        encoder: Encoder,
        *,
        k: int | None = None,
        keep_dense: bool = False,
        datatype: Datatype = "f32",
        embedder: Embedder | None = None,
    ) -> Self:
        """Make an empty collection in a new folder, kept by Qdrant's embedded engine.

        Args:
            folder: must not exist; a copy of the encoder is put into it.
            encoder: makes the codes of documents and queries.
            k: active latents of the documents; None: the encoder's k.
            keep_dense: keep the dense vectors too, on disk and without a graph, for rescoring.
            datatype: of the values in the sparse index: f32, f16 or u8.
            embedder: makes dense vectors of texts; None: found by the encoder's URI if needed.

        Raises ConfigError if the folder exists or a setting cannot work.
        """
        from csr_qdrant.stores.edge import EdgeStore

        identity = Identity.of(encoder, k, embedder)
        schema = _schema(encoder, keep_dense, datatype)
        store = EdgeStore.create(
            folder,
            schema,
            identity.to_metadata(),
            fill=lambda unfinished: encoder.save(unfinished / ENCODER_FOLDER),
        )
        return cls(store, encoder, identity, embedder)

    @classmethod
    def open(
        cls, folder: str | Path, encoder: Encoder | None = None, embedder: Embedder | None = None
    ) -> Self:
        """Open the collection in `folder` with the encoder that it holds, or with `encoder`.

        Raises CsrError if there is none, if it is open elsewhere, or belongs to another encoder.
        """
        from csr_qdrant.stores.edge import EdgeStore

        store = EdgeStore.open(folder)
        try:
            identity = Identity.from_metadata(store.metadata(), store.location)
            if encoder is None:
                encoder = Encoder.load(Path(folder) / ENCODER_FOLDER)
            return cls(store, encoder, identity, embedder)
        except BaseException:
            store.close()
            raise

    @classmethod
    def create_on(
        cls,
        client: Any,
        name: str,
        encoder: Encoder,
        *,
        k: int | None = None,
        keep_dense: bool = False,
        datatype: Datatype = "f32",
        embedder: Embedder | None = None,
        shards: int | None = None,
        replicas: int | None = None,
    ) -> Self:
        """Make an empty collection called `name` through a `QdrantClient`; see `create`.

        `shards` and `replicas` are passed to the server. Raises ConfigError if the collection
        exists.
        """
        from csr_qdrant.stores.server import ServerStore

        identity = Identity.of(encoder, k, embedder)
        store = ServerStore.create(
            client,
            name,
            _schema(encoder, keep_dense, datatype),
            identity.to_metadata(),
            shard_number=shards,
            replication_factor=replicas,
        )
        return cls(store, encoder, identity, embedder)

    @classmethod
    def open_on(
        cls, client: Any, name: str, encoder: Encoder, embedder: Embedder | None = None
    ) -> Self:
        """Open a collection of ours on a server; raises CsrError as `open` does."""
        from csr_qdrant.stores.server import ServerStore

        store = ServerStore.open(client, name)
        identity = Identity.from_metadata(store.metadata(), store.location)
        return cls(store, encoder, identity, embedder)

    def close(self) -> None:
        """Make everything durable and release the engine."""
        self.store.close()

    # --- writing --------------------------------------------------------------------------

    def add(
        self,
        ids: Sequence[Any],
        *,
        vectors: npt.NDArray[Any] | None = None,
        texts: Sequence[str] | None = None,
        codes: SparseCodes | None = None,
        payloads: Sequence[Mapping[str, Any]] | None = None,
        skip_zero: bool = False,
    ) -> Added:
        """Write rows; those with a known id are replaced. Durable after `flush` or `close`.

        Give exactly one of `vectors` (n, d), `texts` (embedded first) and `codes` (raw or
        normalised, (n, h)). Rows without an active latent are stored without a code and counted.

        Raises CsrError for NaN or infinity, all-zero vectors (unless `skip_zero`), repeated ids,
        unequal counts or wrong dimensions, before anything of this call is written, and for a
        collection to which codes were attached: see `CsrQdrant`.
        """
        refuse_attached(self.store.schema)
        if sum(given is not None for given in (vectors, texts, codes)) != 1:
            raise ConfigError("give exactly one of vectors, texts and codes")
        if texts is not None:
            check_counts(ids=ids, texts=texts, payloads=payloads)
            vectors = self.embedder.embed_documents(texts)
        rows = Rows(ids, vectors, codes, payloads)
        with span("encode", rows=len(ids)):
            points = make_points(
                rows, self.encoder, self.identity.k, self.keeps_dense, skip_zero=skip_zero
            )
        with span("upsert", points=len(points)):
            self.store.upsert(points)
        return Added(len(points), int((points.codes.lengths == 0).sum()))

    def delete(self, ids: Sequence[Any]) -> None:
        """Delete rows by their external ids; unknown ids are ignored."""
        self.store.delete([point_id(normalise_id(each)) for each in ids])

    def flush(self) -> None:
        """Make everything written so far durable."""
        self.store.flush()

    def optimise(self) -> None:
        """Build the indexes now; a server does that by itself."""
        self.store.optimise()

    # --- reading --------------------------------------------------------------------------

    @property
    def keeps_dense(self) -> bool:
        """Whether dense vectors are kept for rescoring."""
        return self.store.schema.dense_dim is not None

    def __len__(self) -> int:
        """Return the number of points."""
        return self.store.count()

    def get(self, ids: Sequence[Any]) -> dict[ExternalId, StoredPoint]:
        """Return the stored points among `ids`, under their external ids."""
        found = self.store.retrieve([point_id(normalise_id(each)) for each in ids])
        named = (point._replace(id=point.payload.pop(ID_KEY, point.id)) for point in found)
        return {point.id: point for point in named}

    def info(self) -> Json:
        """Return what the collection is and holds, as plain values."""
        schema, counts = self.store.schema, self.store.info()
        return {
            "location": self.store.location,
            "points": counts.points,
            "segments": counts.segments,
            "indexed_vectors": counts.indexed_vectors,
            **self.identity.to_json(),
            "datatype": schema.datatype,
            "keeps_dense": self.keeps_dense,
            "attached": schema.attached,
            "code_name": schema.code_name,
            "dense_name": schema.dense_name if self.keeps_dense else None,
        }


def _schema(encoder: Encoder, keep_dense: bool, datatype: Datatype) -> Schema:
    return Schema(h=encoder.h, datatype=datatype, dense_dim=encoder.d if keep_dense else None)
