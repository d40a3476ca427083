"""fastembed's class and qdrant-client over attached codes; where fastembed is installed."""

import sys
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import models

from csr_qdrant.embedders import CallableEmbedder

sys.path.insert(0, str(Path(__file__).parent))
from attached_texts import ENCODER, TEXTS, D, attached, check_codes, embed


@pytest.mark.parametrize("normalise", [True, False])
def test_documents_of_a_collection_by_cosine_find_themselves(normalise: bool) -> None:
    # It wants an older huggingface-hub than the other extras, so an environment of its own.
    fastembed = pytest.importorskip("fastembed")
    from csr_qdrant.integrations.fastembed import register_model

    client = attached([{"text": text} for text in TEXTS])
    embedder = CallableEmbedder(embed, D, "nine times too long")
    register_model("cosine/csr", ENCODER, embedder, normalise=normalise)
    best = []
    for text in TEXTS:
        query = models.Document(text=text, model="cosine/csr")
        points = client.query_points("docs", query=query, using="csr", limit=1).points
        best.append((points[0].payload or {})["text"] if points else "")
    found = float(np.mean([a == b for a, b in zip(best, TEXTS, strict=True)]))
    assert found == 1 if normalise else found < 0.9
    if normalise:
        model = fastembed.SparseTextEmbedding("cosine/csr")
        for made in (model.embed(TEXTS), model.query_embed(TEXTS)):
            check_codes(client, [(each.indices, each.values) for each in made])
