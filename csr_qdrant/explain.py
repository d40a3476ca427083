"""Why a query finds what it finds: the latents that both share, and what these stand for."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from csr_qdrant.codes import SparseCodes
from csr_qdrant.collection import Collection
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.explain_names import TOP_DOCUMENTS, WordCounts, name_of, text_of
from csr_qdrant.explain_sample import sample_points
from csr_qdrant.ids import ID_KEY, ExternalId
from csr_qdrant.points import directed_codes
from csr_qdrant.queries import (
    Query,
    are_texts,
    as_batch,
    as_vectors,
    check_number,
    external_hits,
)
from csr_qdrant.stores.base import Hit, Json, Search, Store, StoredPoint

BACKGROUND = 1000  # points that names are told apart from
LATENTS_AT_ONCE = 64  # whose documents one call to the engine finds


class LatentDocuments(NamedTuple):
    """A latent's documents with the largest weights, and its name."""

    name: str | None  # distinctive words of their texts, if a field was named
    top: list[Hit]  # their scores are the weights


class SharedLatent(NamedTuple):
    """A latent that a query and a document share."""

    latent: int
    query: float  # its weight q in the normalised query
    document: float  # its weight d in the document
    contribution: float  # q · d, its part of the score
    share: float  # contribution / score
    name: str | None
    top: list[Hit]


class Explanation(NamedTuple):
    """Why one document matches: `score` is the sum of the contributions."""

    id: ExternalId
    score: float
    query_latents: int  # that are active
    document_latents: int
    latents: list[SharedLatent]  # the largest contribution first
    payload: Json


def explain(
    collection: Collection,
    query: Query,
    *,
    ids: Sequence[Any] | None = None,
    limit: int = 3,
    k: int | None = None,
    filter: Any = None,
    top: int = 3,
    text: str | None = None,
    background: int = BACKGROUND,
) -> list[Explanation]:
    """Explain the hits of one query, or how it matches the rows `ids`.

    Args:
        collection: whose codes are searched; nothing is written.
        query: a text, a dense vector (d,) or a code.
        ids: rows to explain; None: the best `limit` hits by code.
        limit: hits at most.
        k: active latents of the query; None: as the documents'.
        filter: Qdrant's filter, for the hits.
        top: documents of each shared latent to show.
        text: payload field whose words name the latents, see `csr_qdrant.explain_names`.
        background: points at most that the words are compared with.

    Returns:
        One explanation a hit, best first, or one a row in the order of `ids`.

    Raises:
        CsrError: a row is not there, or the query has no active latent.
        ConfigError: limit, top or background that cannot work.
    """
    check_number("limit", limit, 1)
    check_number("top", top, 0)
    code = query_code(collection, query, k)
    if ids is None:
        hits = collection.search(code, limit=limit, filter=filter, k=code.h, payload=False)
        ids = [hit.id for hit in hits]
    points = _points(collection, ids)
    shared = [_shared(code, point) for point in points]
    latents = sorted({latent for each in shared for latent, _, _ in each})
    known = latent_documents(collection.store, latents, top=top, text=text, background=background)
    return [
        _explanation(point, code, each, known) for point, each in zip(points, shared, strict=True)
    ]


def query_code(collection: Collection, query: Query, k: int | None = None) -> SparseCodes:
    """Return the normalised code of one query, (1, h); CsrError if no latent is active."""
    k = collection.identity.k if k is None else k
    batch = as_batch(query)
    if isinstance(batch, SparseCodes):
        code = batch.truncated(k)
    else:
        dense = as_vectors(collection.embedder.embed_queries(batch) if are_texts(batch) else batch)
        code = collection.encode(dense, k, name="the query")
        code = directed_codes(code, np.asarray(dense.any(axis=1)))
    if len(code) != 1:
        raise ConfigError(f"one query is explained at a time, got {len(code)}: choose one")
    if not len(code.indices):
        raise CsrError("the query activates no latent, so it matches nothing: ask in other words")
    return code.normalised()


def latent_documents(
    store: Store,
    latents: Sequence[int],
    *,
    top: int = 3,
    text: str | None = None,
    background: int | WordCounts = BACKGROUND,
) -> dict[int, LatentDocuments]:
    """Return the top documents of latents, and names if `text` is a field of the payload.

    `background` is what was counted already, or how many points to count. The documents of a
    latent are found by the engine, as the hits of a query that has this latent alone.
    """
    if not latents or not (top or text):
        return {latent: LatentDocuments(None, []) for latent in latents}
    if text and not isinstance(background, WordCounts):
        background = background_words(store, text, background)
    found: dict[int, LatentDocuments] = {}
    for start in range(0, len(latents), LATENTS_AT_ONCE):
        some = latents[start : start + LATENTS_AT_ONCE]
        for latent, hits in zip(some, _best(store, some, top, text), strict=True):
            name = None
            if text and isinstance(background, WordCounts):
                name = name_of(
                    WordCounts.of(text_of(hit.payload, text) for hit in hits), background
                )
            found[latent] = LatentDocuments(name, hits[:top])
    return found


def background_words(store: Store, field: str, n: int = BACKGROUND) -> WordCounts:
    """Count the words of at most `n` points' texts."""
    return WordCounts.of(
        text_of(point.payload, field) for page in sample_points(store, n) for point in page
    )


def _best(store: Store, latents: Sequence[int], top: int, text: str | None) -> list[list[Hit]]:
    n = len(latents)
    order = np.arange(n + 1, dtype=np.int64)
    request = Search(
        codes=SparseCodes(
            order, np.array(latents, np.uint32), np.ones(n, np.float32), store.schema.h
        ),
        limit=max(top, TOP_DOCUMENTS) if text else top,
        payload=[ID_KEY, text] if text else True,
    )
    return [external_hits(hits) for hits in store.search(request)]


def _points(collection: Collection, ids: Sequence[Any]) -> list[StoredPoint]:
    found = collection.get(ids)
    if missing := [id for id in ids if id not in found]:
        raise CsrError(f"{collection.store.location} has no row {missing[0]!r}: check the id")
    return [found[id] for id in ids]


def _shared(code: SparseCodes, point: StoredPoint) -> list[tuple[int, float, float]]:
    """Return (latent, weight in the query, weight in the document) of the shared latents."""
    indices, values = point.code or ([], [])
    weights = dict(zip(indices, values, strict=True))
    return [
        (latent, value, weights[latent])
        for latent, value in zip(code.indices.tolist(), code.values.tolist(), strict=True)
        if latent in weights
    ]


def _explanation(
    point: StoredPoint,
    code: SparseCodes,
    shared: list[tuple[int, float, float]],
    known: dict[int, LatentDocuments],
) -> Explanation:
    score = sum(q * d for _, q, d in shared)
    latents = [
        SharedLatent(latent, q, d, q * d, q * d / score if score else 0.0, *known[latent])
        for latent, q, d in sorted(shared, key=lambda each: -each[1] * each[2])
    ]
    active = 0 if point.code is None else len(point.code[0])
    payload = {key: value for key, value in point.payload.items() if key != ID_KEY}
    return Explanation(point.id, score, len(code.indices), active, latents, payload)
