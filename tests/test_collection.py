"""Collection: the library's everyday object, over every engine."""

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from csr_qdrant.codes import SparseCodes
from csr_qdrant.collection import Collection
from csr_qdrant.embedders import CallableEmbedder, Embedder
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import CsrError
from csr_qdrant.identity import Identity
from csr_qdrant.stores.base import Schema
from csr_qdrant.trainer import TrainConfig, fit

# What travels to a server is the stores' affair, and tested there.
SERVER = pytest.param("server", marks=pytest.mark.server)
pytestmark = pytest.mark.parametrize("make_store", ["edge", "memory", SERVER], indirect=True)

D, H, K, N = 16, 96, 6, 120
UUID = "6d0f9b1e-4c1d-4a57-9b53-0d2f6a8c7e11"
Make = Callable[..., Collection]


def vectors(n: int = N, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return fit(vectors(200), TrainConfig(k=(3, K), steps=5, h=H, held_out=10))


@pytest.fixture
def make(make_store: Callable[..., Any], encoder: Encoder) -> Make:
    """Give a function that makes an empty collection, over every engine in turn."""

    def made(
        keep_dense: bool = False, k: int | None = None, embedder: Embedder | None = None
    ) -> Collection:
        identity = Identity.of(encoder, k, embedder)
        schema = Schema(h=H, dense_dim=D if keep_dense else None)
        store = make_store(schema, identity.to_metadata())
        return Collection(store, encoder, identity, embedder)

    return made


def unit(rows: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    rows = rows.astype(np.float64)
    norms = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    return np.asarray(rows / np.maximum(norms, 1e-30), np.float64)


def code_cosines(
    encoder: Encoder, queries: npt.NDArray[np.float32], k: int, document_k: int = K
) -> npt.NDArray[np.float64]:
    """Cosines of raw codes, (queries, documents), computed densely."""
    left = unit(encoder.encode(queries, k).to_dense())
    right = unit(encoder.encode(vectors(), document_k).to_dense())
    cosines: npt.NDArray[np.float64] = left @ right.T
    return cosines


# --- search -----------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [None, 2, K, 20])
def test_scores_are_the_cosines_of_the_codes(make: Make, encoder: Encoder, k: int | None) -> None:
    collection, queries = make(), vectors(5, seed=1)
    collection.add(range(N), vectors=vectors())
    cosines = code_cosines(encoder, queries, k or K)
    for query, exact in zip(queries, cosines, strict=True):
        hits = collection.search(query, limit=15, k=k)
        found = [exact[int(hit.id)] for hit in hits]
        assert [hit.score for hit in hits] == pytest.approx(found, abs=1e-5)
        best = np.sort(exact)[::-1][:15]  # rows that share no latent with the query are not found
        assert found == pytest.approx(best[best > 0], abs=1e-5)
    batch = collection.search_batch(queries, limit=15, k=k)
    assert [[hit.id for hit in hits] for hits in batch] == [
        [hit.id for hit in collection.search(query, limit=15, k=k)] for query in queries
    ]


def test_documents_have_the_k_of_the_collection(make: Make, encoder: Encoder) -> None:
    collection, queries = make(k=3), vectors(4, seed=1)
    collection.add(range(N), vectors=vectors())
    cosines = code_cosines(encoder, queries, 3, document_k=3)  # queries too, unless told otherwise
    for query, exact in zip(queries, cosines, strict=True):
        scores = [hit.score for hit in collection.search(query, limit=5)]
        assert scores == pytest.approx(np.sort(exact)[::-1][:5], abs=1e-5)
    stored = collection.get(range(N))
    assert max(len(point.code[0]) for point in stored.values() if point.code) == 3


def test_codes_as_queries_and_as_documents(make: Make, encoder: Encoder) -> None:
    by_vectors, by_codes = make(), make()
    by_vectors.add(range(N), vectors=vectors())
    by_codes.add(range(N), codes=encoder.encode(vectors(), 30))
    queries = encoder.encode(vectors(3, seed=1), 30)
    scaled = SparseCodes(queries.indptr, queries.indices, queries.values * np.float32(5), H)
    for k in (None, 2, 30):
        expected = by_vectors.search_batch(vectors(3, seed=1), k=k)
        for collection in (by_vectors, by_codes):
            for found, hits in zip(collection.search_batch(scaled, k=k), expected, strict=True):
                assert [hit.id for hit in found] == [hit.id for hit in hits]
                scores = [hit.score for hit in hits]
                assert [hit.score for hit in found] == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize("candidates", [5, 40, 1000])
def test_rescoring_orders_the_candidates_by_exact_cosine(
    make: Make, encoder: Encoder, candidates: int
) -> None:
    collection, queries = make(keep_dense=True), vectors(4, seed=1)
    collection.add(range(N), vectors=vectors())
    cosines = unit(queries) @ unit(vectors()).T
    for query, exact in zip(queries, cosines, strict=True):
        by_code = [int(hit.id) for hit in collection.search(query, limit=candidates)]
        best = sorted(by_code, key=lambda row: -exact[row])[:5]
        hits = collection.search(query, limit=5, rescore=candidates)
        assert [hit.id for hit in hits] == best
        assert [hit.score for hit in hits] == pytest.approx(exact[best], abs=1e-5)
    # No fewer candidates than hits are asked for.
    assert len(collection.search(queries[0], limit=5, rescore=1)) == 5


def test_queries_without_a_direction_or_a_latent_find_nothing(make: Make, encoder: Encoder) -> None:
    collection = make(keep_dense=True)
    collection.add(range(N), vectors=vectors())
    queries = vectors(3, seed=1)
    queries[1] = 0
    for rescore in (0, 10):
        first, none, third = collection.search_batch(queries, rescore=rescore)
        assert none == [] and len(first) == len(third) == 10
        alone = collection.search(queries[2], rescore=rescore)
        assert [hit.id for hit in third] == [hit.id for hit in alone]
        assert collection.search(np.zeros(D), rescore=rescore) == []
    assert collection.search(SparseCodes.from_dense(np.zeros((1, H)))) == []
    assert collection.search_batch(np.zeros((0, D))) == []


# --- payload, filters and ids ---------------------------------------------------------------------

IDS: list[Any] = [3, "three", UUID, uuid.UUID(UUID).hex, 2**64 - 1, -3, "é", np.int64(8)]
PLAIN: list[Any] = [3, "three", UUID, uuid.UUID(UUID).hex, 2**64 - 1, -3, "é", 8]


def with_ids(make: Make) -> Collection:
    collection = make()
    payloads = [{"row": row, "even": row % 2 == 0} for row in range(len(IDS))]
    collection.add(IDS, vectors=vectors(len(IDS)), payloads=payloads)
    return collection


def test_ids_of_every_kind_come_back_as_given(make: Make) -> None:
    collection = with_ids(make)
    for row, vector in enumerate(vectors(len(IDS))):
        hit = collection.search(vector, limit=1)[0]
        assert (hit.id, hit.payload) == (PLAIN[row], {"row": row, "even": row % 2 == 0})
        bare = collection.search(vector, limit=1, payload=False)[0]
        assert (bare.id, bare.payload) == (PLAIN[row], {})
    assert type(collection.search(vectors(8)[7], limit=1)[0].id) is int


def test_get_delete_and_len(make: Make, encoder: Encoder) -> None:
    collection = with_ids(make)
    assert len(collection) == 8
    found = collection.get([*IDS, "unknown"])
    assert set(found) == set(PLAIN)
    codes = list(encoder.encode(vectors(8)).normalised().to_lists())
    for row, name in enumerate(PLAIN):
        point = found[name]
        assert point.id == name and point.payload == {"row": row, "even": row % 2 == 0}
        assert point.dense is None and point.code is not None
        assert dict(zip(*point.code, strict=True)) == pytest.approx(
            dict(zip(*codes[row], strict=True)), abs=1e-6
        )
    collection.delete(["three", -3, uuid.UUID(UUID), 12345, "unknown"])
    assert len(collection) == 5
    assert set(collection.get(IDS)) == {3, uuid.UUID(UUID).hex, 2**64 - 1, "é", 8}


def test_a_known_id_replaces_all_of_its_row(make: Make) -> None:
    collection = with_ids(make)
    collection.add(["three"], vectors=vectors(1, seed=7), payloads=[{"new": True}])
    assert len(collection) == 8
    hit = collection.search(vectors(1, seed=7)[0], limit=1)[0]
    assert (hit.id, hit.payload) == ("three", {"new": True})
    assert hit.score == pytest.approx(1, abs=1e-5)


def test_filters_by_payload_and_by_external_id(make: Make) -> None:
    collection, query = with_ids(make), vectors(8).sum(axis=0)
    every = [hit.id for hit in collection.search(query, limit=8, k=H)]
    assert len(every) > 4

    def found(filter: Any) -> list[Any]:
        return [hit.id for hit in collection.search(query, limit=8, k=H, filter=filter)]

    even = {"must": [{"key": "even", "match": {"value": True}}]}
    assert found(even) == [name for name in every if PLAIN.index(name) % 2 == 0]
    some = ["three", -3, 3, UUID, "unknown"]
    wanted = {"must": [{"has_id": some}]}
    assert set(found(wanted)) == set(every) & set(some)
    assert found({"must_not": [wanted]}) == [name for name in every if name not in some]
    assert wanted == {"must": [{"has_id": some}]}  # the caller's own is left alone
    from qdrant_client import models

    typed = models.Filter(must=[models.HasIdCondition(has_id=["three", 3])])
    assert set(found(typed)) == set(every) & {"three", 3}
    with pytest.raises(CsrError, match="filter"):
        found({"must": [{"key": "even", "matches": 1}]})


# --- writing ----------------------------------------------------------------------------------


def test_rows_of_zeros_and_without_latents(make: Make) -> None:
    collection, dense = make(keep_dense=True), vectors(5)
    dense[2] = 0
    with pytest.raises(CsrError, match="row 2 of the vectors is all zeros"):
        collection.add(range(5), vectors=dense)
    assert len(collection) == 0  # nothing of that call was written
    assert collection.add(range(5), vectors=dense, skip_zero=True) == (5, 1)
    assert len(collection) == 5
    assert collection.get([2])[2].code is None
    for query in dense[[0, 1, 3, 4]]:
        assert 2 not in [hit.id for hit in collection.search(query, k=H, rescore=5)]
    silent = replace(collection.encoder, latent_bias=np.full(H, -1e3, np.float32))
    quiet = Collection(collection.store, silent, Identity.of(silent, None, None))
    assert quiet.add([9], vectors=dense[:1]) == (1, 1)
    assert quiet.search(dense[0]) == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"ids": [1, 2], "vectors": vectors(3)}, "got 2 ids, 3 vectors"),
        ({"ids": [1, 2], "texts": ["a"]}, "got 2 ids, 1 texts"),
        ({"ids": [1, 1], "vectors": vectors(2)}, "id 1 stands twice"),
        ({"ids": [1, 2], "vectors": vectors(2), "payloads": [{}]}, "2 vectors, 1 payloads"),
        ({"ids": [1], "vectors": vectors(1)[:, :9]}, r"vectors of shape \(n, 16\), got \(1, 9\)"),
        ({"ids": [1], "vectors": vectors(1) * np.inf}, "row 0 of the vectors holds NaN"),
        ({"ids": [1], "codes": SparseCodes.from_dense(np.eye(1, 9))}, "codes over 96 latents, got"),
        ({"ids": [1]}, "exactly one of vectors, texts and codes"),
        ({"ids": [1], "texts": ["a"], "vectors": vectors(1)}, "exactly one of vectors, texts and"),
    ],
)
def test_what_cannot_be_added_leaves_everything_as_it_was(
    make: Make, rows: dict[str, Any], message: str
) -> None:
    embedder = CallableEmbedder(lambda texts: vectors(len(texts)), D, "any")
    collection = make(embedder=embedder)
    collection.add([1], vectors=vectors(1, seed=3))
    before = collection.get([1])
    with pytest.raises(CsrError, match=message):
        collection.add(**rows)
    assert len(collection) == 1 and collection.get([1]) == before


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"limit": 0}, "limit must be at least 1"),
        ({"rescore": -1}, "rescore must be at least 0"),
        ({"k": 0}, r"k must be in 1\.\.96"),
        ({"k": 97}, r"k must be in 1\.\.96"),
        ({"rescore": 5}, "keeps no dense vectors, so it cannot rescore"),
        ({"query": np.ones(9)}, r"vectors of shape \(n, 16\), got \(1, 9\)"),
        ({"query": np.full(D, np.nan)}, "row 0 of the queries holds NaN"),
        ({"query": vectors(2)}, "search takes one query, got 2: use search_batch"),
        ({"query": {"a": 1}}, "queries must be texts, vectors or codes"),
        ({"query": SparseCodes.from_dense(np.ones((1, 9)))}, "got codes over 9"),
        ({"query": "a text"}, "texts need an embedder and this collection knows none"),
        ({"query": SparseCodes.from_dense(np.ones((1, H))), "rescore": 5}, "needs dense queries"),
    ],
)
def test_searches_that_cannot_be_answered(make: Make, search: dict[str, Any], message: str) -> None:
    collection = make()
    collection.add(range(5), vectors=vectors(5))
    with pytest.raises(CsrError, match=message):
        collection.search(**{"query": vectors(1)[0], **search})
