"""Run by `make test-fastembed` in an environment that holds the wheel and fastembed.

fastembed wants an older huggingface-hub than the other extras, so the tests' environment lacks it.
"""

import ast
import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here needs a download

import numpy as np
from fastembed import SparseTextEmbedding, TextEmbedding
from qdrant_client import QdrantClient, models

import csr_qdrant
from csr_qdrant import ConfigError, Encoder
from csr_qdrant.embedders import load_embedder
from csr_qdrant.integrations.fastembed import register_model

DOCUMENT = Path(__file__).parents[1] / "docs" / "integrations.md"
TEXTS = ["the sea is deep", "bread is baked from flour", "ships cross the ocean", "a king rules"]
QUERY = "a ship on the sea"


class OwnTextEmbedding(TextEmbedding):  # type: ignore[misc]
    """A dense model of fastembed's kind that needs no download, prompting its queries."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def embed(self, documents: Any, *_: Any, **__: Any) -> Iterable[Any]:
        """Yield a vector a text."""
        self.calls.append("documents")
        yield from load_embedder("wordllama").embed_documents(list(documents))

    def query_embed(self, query: Any, **_: Any) -> Iterable[Any]:
        """Yield a vector a text."""
        self.calls.append("queries")
        yield from load_embedder("wordllama").embed_queries([f"query: {text}" for text in query])


def encoder() -> Encoder:
    """Return an untrained encoder of WordLlama's vectors."""
    rng = np.random.default_rng(0)
    return Encoder(
        weight=rng.normal(size=(1024, 256)).astype(np.float32),
        latent_bias=np.zeros(1024, np.float32),
        pre_bias=np.zeros(256, np.float32),
        k=32,
        info={"embedder": "wordllama"},
    )


def dense_codes(made: Any) -> Any:
    """Return fastembed's sparse embeddings as rows over all latents."""
    rows = np.zeros((len(made), 1024), np.float32)
    for row, each in zip(rows, made, strict=True):
        row[each.indices] = each.values
    return rows


def check_model() -> None:
    """fastembed's class gives the codes of the encoder, in batches, for documents and queries."""
    register_model("My/Codes", encoder(), k=16, query_k=8)
    model = SparseTextEmbedding("my/codes")
    embedder = load_embedder("wordllama")
    texts = [*TEXTS, ""]
    made = list(model.embed(iter(texts), batch_size=2))
    expected = encoder().encode(embedder.embed_documents(texts), 16).normalised().to_dense()
    np.testing.assert_allclose(dense_codes(made)[:4], expected[:4], atol=1e-6)
    assert len(made[4].indices) == 0  # no text, no direction, no code
    asked = encoder().encode(embedder.embed_queries([QUERY]), 8).normalised().to_dense()
    np.testing.assert_allclose(dense_codes(list(model.query_embed(QUERY))), asked, atol=1e-6)
    one = dense_codes(list(model.passage_embed([TEXTS[0]])))
    np.testing.assert_allclose(one, expected[:1], atol=1e-6)
    (listed,) = (m for m in SparseTextEmbedding.list_supported_models() if m["model"] == "My/Codes")
    assert (listed["vocab_size"], listed["requires_idf"]) == (1024, False)


def check_client() -> None:
    """qdrant-client resolves documents and queries by the model, over fastembed's own vectors."""
    dense = OwnTextEmbedding()
    register_model("own", encoder(), dense)
    client = QdrantClient(":memory:")
    client.create_collection("docs", sparse_vectors_config={"csr": models.SparseVectorParams()})
    points = [
        models.PointStruct(id=i, vector={"csr": models.Document(text=text, model="own")})
        for i, text in enumerate(TEXTS)
    ]
    client.upsert("docs", points)
    query = models.Document(text=QUERY, model="own")
    found = client.query_points("docs", query=query, using="csr", limit=4).points
    assert dense.calls == ["documents", "queries"], dense.calls
    embedder = load_embedder("wordllama")
    codes = encoder().encode(embedder.embed_documents(TEXTS)).normalised().to_dense()
    asked = encoder().encode(embedder.embed_queries([f"query: {QUERY}"])).normalised().to_dense()[0]
    for hit in found:
        assert abs(hit.score - float(codes[int(str(hit.id))] @ asked)) < 1e-5
    assert {hit.id for hit in found[:2]} == {0, 2}


def check_names() -> None:
    """A name may be registered anew, but none of fastembed's, whatever its case."""
    register_model("again", encoder(), k=4)
    register_model("AGAIN", encoder(), k=2)
    (code,) = SparseTextEmbedding("again").embed([QUERY])
    assert len(code.indices) == 2
    for taken in ("qdrant/BM25", "baai/bge-small-en-v1.5", ""):
        try:
            register_model(taken, encoder())
        except ConfigError as error:
            assert "is no name for a model of yours" in str(error)
        else:
            raise AssertionError(f"{taken!r} was registered")
    try:
        list(SparseTextEmbedding("again").embed([QUERY], batch_size=0))
    except ConfigError as error:
        assert str(error) == "batch_size must be at least 1, got 0"
    else:
        raise AssertionError("no batch holds no texts")


def check_document() -> None:
    """The example of docs/integrations.md runs."""
    section = DOCUMENT.read_text("utf-8").partition("## fastembed\n")[2]
    (example,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    out = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        encoder().save("encoder")
        with contextlib.redirect_stdout(out):
            exec(compile(example, "integrations.md", "exec"), {})
    assert set(ast.literal_eval(out.getvalue())) == {TEXTS[0], TEXTS[2]}, out.getvalue()


CHECKS: list[Callable[[], None]] = [check_model, check_client, check_names, check_document]

if __name__ == "__main__":
    installed = Path(csr_qdrant.__file__ or "").resolve()
    assert Path(sys.prefix).resolve() in installed.parents, f"not the wheel: {installed}"
    for check in CHECKS:
        check()
    sys.stdout.write("fastembed knows codes\n")
