"""Collection: an encoder and a store under one name; the library's everyday object."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from csr_qdrant.closing import Closing
from csr_qdrant.codes import SparseCodes
from csr_qdrant.embedders import Embedder
from csr_qdrant.encoder import F32, Encoder
from csr_qdrant.errors import ConfigError
from csr_qdrant.identity import Identity
from csr_qdrant.ids import (
    ID_KEY,
    ExternalId,
    normalise_id,
    point_id,
)
from csr_qdrant.points import Added, Rows, check_counts, directed_codes, make_points
from csr_qdrant.queries import (
    Asking,
    Fuse,
    Queries,
    Query,
    are_texts,
    as_batch,
    as_vectors,
    external_hits,
    search_of,
)
from csr_qdrant.stores.base import Datatype, Group, Hit, Json, Schema, Store, StoredPoint
from csr_qdrant.stores.checks import refuse_attached
from csr_qdrant.telemetry import span

ENCODER_FOLDER = "encoder"
__all__ = ["Added", "Collection", "Hit"]


class Collection(Closing):
    """Codes of an encoder in one of Qdrant's engines.

    Make one with `create` or open one with `open` (a folder, embedded engine), or with
    `create_on` and `open_on` (a server). Close it, or use it in a `with` block.
    """

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        identity: Identity,
        embedder: Embedder | None = None,
    ) -> None:
        """Wrap an open store; raises CsrError if it was made with another encoder."""
        identity.check(encoder, store.location)
        self.store, self.encoder, self.identity = store, encoder, identity
        self._embedder = embedder

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

    @property
    def embedder(self) -> Embedder:
        """The embedder given, or the one that the collection remembers; loaded on first use.

        Raises ConfigError if neither is known or the latter cannot be loaded by its name.
        """
        if self._embedder is None:
            from csr_qdrant.embedders import load_embedder

            uri = self.identity.embedder
            if uri is None:
                raise ConfigError(
                    "texts need an embedder and this collection knows none: pass the one that "
                    "made its vectors, or give vectors"
                )
            try:
                self._embedder = load_embedder(uri)
            except ConfigError as error:
                raise ConfigError(f"{error}; or pass the embedder that made the vectors") from error
        return self._embedder

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

    def search(
        self,
        query: Query,
        *,
        limit: int = 10,
        k: int | None = None,
        filter: Any = None,
        rescore: int = 0,
        fuse: Fuse | None = None,
        payload: bool = True,
    ) -> list[Hit]:
        """Return the hits of one query, best first; see `search_batch`."""
        hits = self.search_batch(
            as_batch(query),
            limit=limit,
            k=k,
            filter=filter,
            rescore=rescore,
            fuse=fuse,
            payload=payload,
        )
        if len(hits) != 1:
            raise ConfigError(f"search takes one query, got {len(hits)}: use search_batch")
        return hits[0]

    def search_batch(
        self,
        queries: Queries,
        *,
        limit: int = 10,
        k: int | None = None,
        filter: Any = None,
        rescore: int = 0,
        fuse: Fuse | None = None,
        payload: bool = True,
    ) -> list[list[Hit]]:
        """Return the hits of each query, best first, from one call to the engine.

        Args:
            queries: texts, dense vectors (m, d) or codes (m, h).
            limit: hits a query at most; points that share no latent with it are never found.
            k: active latents of the queries, fewer for speed; None: as the documents'.
            filter: Qdrant's filter, as JSON or `qdrant_client.models.Filter`; `has_id` takes
                external ids.
            rescore: score so many candidates anew by the cosine of their dense vectors; 0: don't.
            fuse: another vector, whose hits are fused with these; None: none.
            payload: whether hits carry their payload.

        Returns:
            Hits with external ids; none for a query of zeros or without an active latent.
        """
        asking = Asking(limit=limit, filter=filter, rescore=rescore, payload=payload, fuse=fuse)
        request, active = search_of(asking, self.store.schema, *self._encoded(queries, k))
        with span("search", queries=len(active), limit=limit, rescore=rescore):
            found = iter(self.store.search(request) if request else ())
        return [external_hits(next(found)) if each else [] for each in active]

    def search_groups(
        self,
        queries: Queries,
        group_by: str,
        *,
        group_size: int = 3,
        limit: int = 10,
        k: int | None = None,
        filter: Any = None,
        rescore: int = 0,
        fuse: Fuse | None = None,
        payload: bool = True,
    ) -> list[list[Group]]:
        """Return each query's best `limit` groups of points that share a value of `group_by`.

        One call to the engine a query. The rest is as in `search_batch`. Raises ConfigError on the
        embedded engine, which cannot group.
        """
        asking = Asking(limit=limit, filter=filter, rescore=rescore, payload=payload, fuse=fuse)
        request, active = search_of(asking, self.store.schema, *self._encoded(queries, k))
        found: Iterator[list[Group]] = iter(())
        if request:
            with span("search", queries=len(active), limit=limit, rescore=rescore):
                found = iter(self.store.search_groups(request, group_by, group_size))
        return [
            [Group(key, external_hits(hits)) for key, hits in next(found)] if each else []
            for each in active
        ]

    def _encoded(self, queries: Queries, k: int | None) -> tuple[F32 | None, SparseCodes]:
        """Return dense queries, if there are any, and normalised codes of at most k latents."""
        k = self.identity.k if k is None else k
        if isinstance(queries, SparseCodes):
            return None, queries.truncated(k).normalised()
        if are_texts(queries):
            queries = self.embedder.embed_queries(queries)
        dense = as_vectors(queries)
        with span("encode", rows=len(dense)):
            codes = self.encoder.encode(dense, k, name="the queries")
        return dense, directed_codes(codes, np.asarray(dense.any(axis=1))).normalised()

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
