"""A collection by cosine with attached codes, of texts whose vectors are not of norm 1."""

from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from csr_qdrant.deployment.attach import AttachConfig, attach_on
from csr_qdrant.encoder import Encoder
from csr_qdrant.integrations.texts import DenseCoder

N, D = 60, 8
_RANDOM = np.random.default_rng(4)
ROWS = (9 * _RANDOM.normal(size=(N, D))).astype(np.float32)  # what the backbone gives
TEXTS = [f"text {i}" for i in range(N)]
ENCODER = Encoder(  # whose codes depend on norms
    weight=_RANDOM.normal(size=(64, D)).astype(np.float32),
    latent_bias=np.zeros(64, np.float32),
    pre_bias=_RANDOM.normal(size=D).astype(np.float32),
    k=4,
)


def embed(texts: list[str]) -> Any:
    """Return the vectors, (n, d), of some of the texts; zeros for any other."""
    known = dict(zip(TEXTS, ROWS, strict=True))
    return np.stack([known.get(text, np.zeros(D, np.float32)) for text in texts])


def attached(payloads: list[dict[str, Any]], dense: str = "", code: str = "csr") -> QdrantClient:
    """Return a client whose collection "docs" holds a point a text, and attached codes."""
    client = QdrantClient(":memory:")
    params = models.VectorParams(size=D, distance=models.Distance.COSINE)
    client.create_collection("docs", {dense: params} if dense else params)
    points = [
        models.PointStruct(id=i, vector={dense: row} if dense else row, payload=payload)
        for i, (row, payload) in enumerate(zip(ROWS.tolist(), payloads, strict=True))
    ]
    client.upsert("docs", points)
    attach_on(client, "docs", ENCODER, AttachConfig(name=code, device="numpy"))
    return client


def stored_codes(client: QdrantClient, code: str = "csr") -> dict[int, tuple[list[int], Any]]:
    """Return indices and values of the codes that were attached, by the number of the text."""
    found = client.retrieve("docs", list(range(N)), with_vectors=[code])
    vectors: list[Any] = [point.vector for point in found]
    return {
        int(str(point.id)): (list(vector[code].indices), list(vector[code].values))
        for point, vector in zip(found, vectors, strict=True)
    }


def check_codes(client: QdrantClient, made: list[tuple[Any, Any]], code: str = "csr") -> None:
    """Let codes, a pair of indices and values for each text, be those that are stored."""
    stored = stored_codes(client, code)
    assert len(made) == N
    for i, (indices, values) in enumerate(made):
        assert list(indices) == stored[i][0], i
        np.testing.assert_allclose(values, stored[i][1], atol=1e-5)


def raw_codes_differ(client: QdrantClient, code: str = "csr") -> bool:
    """Tell whether codes of the vectors as they are differ from those attached."""
    stored = stored_codes(client, code)
    raw = DenseCoder(ENCODER).document_codes(ROWS).to_lists()
    return sum(list(indices) != stored[i][0] for i, (indices, _) in enumerate(raw)) > N // 2
