"""CsrQdrant: an application's own `QdrantClient`, with codes beside its dense vectors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

from csr_qdrant import requests
from csr_qdrant.coding import Coding, check_collection, coded_points, coded_vectors
from csr_qdrant.embedders import Embedder
from csr_qdrant.encoder import Encoder
from csr_qdrant.queries import Queries, Query, as_batch
from csr_qdrant.telemetry import span

if TYPE_CHECKING:
    from qdrant_client import QdrantClient, models
    from qdrant_client.http.models import QueryResponse


class CsrQdrant:
    """Writes points with codes and searches by codes, through a client that stays the caller's.

    Each method is one call to the engine and keeps nothing. What the client raises comes through
    as it is; what is wrong with vectors and settings is CsrError, raised before anything is sent.
    Everything else, such as deleting points, goes through the client itself.
    """

    def __init__(
        self,
        client: "QdrantClient",
        encoder: Encoder,
        *,
        dense_name: str = "",
        code_name: str = "csr",
        k: int | None = None,
        keep_dense: bool = True,
        normalise: bool = False,
        embedder: Embedder | None = None,
    ) -> None:
        """Wrap `client`; nothing is sent.

        Args:
            client: stays the caller's, who closes it.
            encoder: the one that the collections' codes were made with; see `check`.
            dense_name: vector name of the dense vectors; empty: the unnamed one.
            code_name: vector name of the codes.
            k: active latents of the documents at most; None: the encoder's own.
            keep_dense: False for collections that hold codes alone: dense vectors aren't sent.
            normalise: True encodes vectors at norm 1, which is how a collection that compares by
                cosine keeps them, and what `csr attach` encodes there.
            embedder: makes vectors of queries that are texts.
        """
        self.client = client
        self.coding = Coding(
            encoder=encoder,
            dense_name=dense_name,
            code_name=code_name,
            k=k,
            keep_dense=keep_dense,
            normalise=normalise,
            embedder=embedder,
        )

    def check(self, collection: str) -> None:
        """Raise CsrError if the collection belongs to another encoder or has other settings."""
        info = self.client.get_collection(collection)
        check_collection(self.coding, info, self.client, collection)

    def upsert(
        self,
        collection: str,
        points: "Sequence[models.PointStruct]",
        *,
        wait: bool = True,
        **options: Any,
    ) -> "models.UpdateResult":
        """Write points with the codes of their dense vectors; `options` are the client's.

        The points given stay as they are. Raises CsrError, with the point's id, for a vector that
        cannot be encoded.
        """
        coded = coded_points(self.coding, points)
        with span("upsert", points=len(coded)):
            return self.client.upsert(collection, coded, wait=wait, **options)

    def update_vectors(
        self,
        collection: str,
        points: "Sequence[models.PointVectors]",
        *,
        wait: bool = True,
        **options: Any,
    ) -> "models.UpdateResult":
        """Change vectors of points; a new dense vector brings its code. See `upsert`."""
        coded = coded_vectors(self.coding, points)
        with span("upsert", points=len(coded)):
            return self.client.update_vectors(collection, coded, wait=wait, **options)

    def query(
        self, collection: str, query: Query, **options: Unpack[requests.QueryOptions]
    ) -> "QueryResponse":
        """Return the hits of a text, a vector (d,) or a code; see `QueryOptions`.

        A query of zeros or without an active latent finds nothing, and nothing is asked.
        """
        arguments = requests.one_query(self.coding, as_batch(query), options)
        if arguments is None:
            return requests.no_hits()
        with span("search", **requests.sizes(options)):
            return self.client.query_points(collection, **arguments)

    def query_batch(
        self, collection: str, queries: Queries, **options: Unpack[requests.QueryOptions]
    ) -> "list[QueryResponse]":
        """Return the hits of each of some texts, vectors (m, d) or codes; see `query`."""
        batch = requests.batch_request(self.coding, queries, options)
        answers = []
        if batch.requests:
            with span("search", **requests.sizes(options, len(batch.requests))):
                answers = self.client.query_batch_points(
                    collection, batch.requests, **batch.options
                )
        return requests.spread(answers, batch)

    def query_groups(
        self,
        collection: str,
        query: Query,
        group_by: str,
        *,
        group_size: int = 3,
        **options: Unpack[requests.QueryOptions],
    ) -> "models.GroupsResult":
        """Return the best `limit` groups of points that share the payload field `group_by`."""
        arguments = requests.grouped_query(
            self.coding, as_batch(query), group_by, group_size, options
        )
        if arguments is None:
            return requests.no_groups()
        with span("search", **requests.sizes(options)):
            return self.client.query_points_groups(collection, **arguments)
