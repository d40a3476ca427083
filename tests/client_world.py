"""What the tests of both clients share: a collection of somebody's, and what must come back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from csr_qdrant.encoder import Encoder
from csr_qdrant.queries import as_vectors

D, N = 8, 40
NAMES = {"unnamed": "", "named": "text"}


def dense_vectors(n: int = N, seed: int = 3) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)


def configs(dense_name: str) -> dict[str, Any]:
    """Return the vectors of a collection with a second dense and a second sparse one."""
    ours = models.VectorParams(size=D, distance=models.Distance.COSINE)
    other = models.VectorParams(size=2, distance=models.Distance.DOT)
    return {
        "vectors_config": {dense_name: ours, "other": other},
        "sparse_vectors_config": {
            "csr": models.SparseVectorParams(),
            "words": models.SparseVectorParams(),
        },
    }


def points(dense_name: str, vectors: Any) -> list[models.PointStruct]:
    """Return points whose other vectors rank them by falling id."""
    return [
        models.PointStruct(
            id=i,
            vector={
                dense_name: row.tolist(),
                "other": [float(i), 1.0],
                "words": models.SparseVector(indices=[i % 3], values=[1.0 + i]),
            },
            payload={"group": i % 4, "text": f"row {i}"},
        )
        for i, row in enumerate(vectors)
    ]


def expected_codes(
    encoder: Encoder, vectors: Any, k: int | None = None
) -> list[models.SparseVector]:
    return encoder.encode(np.atleast_2d(vectors), k).normalised().to_qdrant()


def ranked_by_code(encoder: Encoder, vectors: Any, query: Any, k: int | None = None) -> list[int]:
    """Return ids of all rows that share a latent with the query, best first."""
    codes = encoder.encode(vectors).normalised().to_dense()
    scores = codes @ encoder.encode(np.atleast_2d(query), k).normalised().to_dense()[0]
    order = np.argsort(-scores, kind="stable")
    return [int(i) for i in order if scores[i] != 0]


class Calls:
    """A client that counts the calls which go through it."""

    def __init__(self, client: Any) -> None:
        self.client, self.made = client, []  # type: ignore[var-annotated]

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)
        if not callable(method):
            return method

        def call(*arguments: Any, **named: Any) -> Any:
            self.made.append(name)
            return method(*arguments, **named)

        return call


class Words:
    """An embedder that looks texts up among the rows of some vectors."""

    uri, dimension = "test:words", D

    def __init__(self, vectors: Any) -> None:
        self.vectors = vectors

    def embed_documents(self, texts: Sequence[str]) -> Any:
        return self.embed_queries(texts)

    def embed_queries(self, texts: Sequence[str]) -> Any:
        return as_vectors([self.vectors[int(text.split()[-1])] for text in texts])


def stored(client: QdrantClient, ids: list[int]) -> dict[int, dict[str, Any]]:
    """Return the vectors of points as the engine keeps them."""
    found = client.retrieve("c", ids, with_vectors=True)
    return {int(each.id): each.vector for each in found}  # type: ignore[misc]
