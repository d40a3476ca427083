"""The memo between two who ask for the same vectors, and the texts that become codes."""

import asyncio
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.embedders import CallableEmbedder
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.integrations.memo import FunctionBackbone, MemoEmbedder
from csr_qdrant.integrations.texts import DenseCoder, text_coder


def vector(text: str, role: str) -> list[float]:
    """Return 8 numbers that only this text and role have."""
    seed = int.from_bytes(f"{role} {text}".encode())
    numbers: list[float] = np.random.default_rng(seed).normal(size=8).tolist()
    return numbers


class Counting:
    """A backbone that keeps what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []

    def documents(self, texts: list[str]) -> list[list[float]]:
        self.calls.append(("document", texts))
        return [vector(text, "document") for text in texts]

    def queries(self, texts: list[str]) -> list[list[float]]:
        self.calls.append(("query", texts))
        return [vector(text, "query") for text in texts]

    def memo(self, capacity: int = 100) -> MemoEmbedder:
        return MemoEmbedder(FunctionBackbone(self.documents, self.queries), capacity)


def test_only_what_is_not_remembered_is_embedded() -> None:
    backbone = Counting()
    memo = backbone.memo()
    first = memo.embed_documents(["a", "b", "a"])
    second = memo.embed_documents(["c", "b", "a"])
    assert backbone.calls == [("document", ["a", "b"]), ("document", ["c"])]
    assert first.dtype == np.float32 and first.shape == (3, 8)
    np.testing.assert_array_equal(first[[0, 1]], second[[2, 1]])
    np.testing.assert_allclose(second[0], vector("c", "document"), rtol=1e-6)


def test_documents_and_queries_are_remembered_apart() -> None:
    backbone = Counting()
    memo = backbone.memo()
    np.testing.assert_allclose(memo.embed_documents(["a"])[0], vector("a", "document"), rtol=1e-6)
    np.testing.assert_allclose(memo.embed_queries(["a"])[0], vector("a", "query"), rtol=1e-6)
    assert len(backbone.calls) == 2


def test_the_latest_used_stay() -> None:
    backbone = Counting()
    memo = backbone.memo(capacity=2)
    for text in "abac":  # b is the one that goes
        memo.embed_queries([text])
    memo.embed_queries(["a"])
    assert len(memo) == 2 and len(backbone.calls) == 3
    memo.embed_queries(["b"])
    assert len(backbone.calls) == 4


def test_a_batch_larger_than_the_capacity_is_embedded_once() -> None:
    backbone = Counting()
    memo = backbone.memo(capacity=2)
    texts = list("abcdef")
    memo.embed_documents(texts)
    memo.embed_documents(texts)
    assert len(backbone.calls) == 1 and len(memo) == 6
    memo.embed_documents(["g"])
    assert len(memo) == 2


def test_no_texts_need_no_model() -> None:
    backbone = Counting()
    assert len(backbone.memo().embed_documents([])) == 0
    assert backbone.calls == []


def test_what_is_given_cannot_change_what_is_remembered() -> None:
    memo = Counting().memo()
    memo.embed_queries(["a"])[:] = 0
    np.testing.assert_allclose(memo.embed_queries(["a"])[0], vector("a", "query"), rtol=1e-6)


def test_loops_and_threads_share_it() -> None:
    backbone = Counting()
    memo = backbone.memo()
    documents = memo.embed_documents(["a"])
    np.testing.assert_array_equal(asyncio.run(memo.aembed_documents(["a"])), documents)
    queries = asyncio.run(memo.aembed_queries(["b"]))
    np.testing.assert_array_equal(memo.embed_queries(["b"]), queries)
    assert backbone.calls == [("document", ["a"]), ("query", ["b"])]


def test_many_threads_get_right_vectors_from_a_small_memo() -> None:
    memo = Counting().memo(capacity=5)
    rng = np.random.default_rng(0)
    batches = [[f"text {i}" for i in rng.integers(12, size=4)] for _ in range(400)]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(memo.embed_documents, batches))
    for batch, rows in zip(batches, made, strict=True):
        np.testing.assert_allclose(rows, [vector(text, "document") for text in batch], rtol=1e-6)
    assert len(memo) <= 5


def test_a_copy_starts_without_memory() -> None:
    memo = Counting().memo(capacity=3)
    memo.embed_queries(["a"])
    copied = pickle.loads(pickle.dumps(memo))
    assert (len(copied), copied.capacity) == (0, 3)
    np.testing.assert_array_equal(copied.embed_queries(["a"]), memo.embed_queries(["a"]))


def test_a_failure_leaves_nothing_behind() -> None:
    answers: list[Any] = [[[1.0, 2.0], [3.0]], [[1.0]], "no numbers", [[1.0], [2.0]]]
    memo = MemoEmbedder(FunctionBackbone(lambda _: answers.pop(0), lambda _: []))
    for message in ("must give numbers", r"each of 2 texts, got shape \(1, 1\)", "numbers"):
        with pytest.raises(CsrError, match=message):
            memo.embed_documents(["a", "b"])
    assert memo.embed_documents(["a", "b"]).tolist() == [[1.0], [2.0]]


def test_one_text_is_no_list() -> None:
    with pytest.raises(ConfigError, match="got one text: put it into a list"):
        Counting().memo().embed_documents("a")
    with pytest.raises(ConfigError, match="capacity must be at least 1 vector, got 0"):
        Counting().memo(capacity=0)


def test_codes_are_those_of_the_encoder(tiny_encoder: Encoder, tmp_path: Path) -> None:
    tiny_encoder.save(tmp_path / "encoder")
    dense = np.array([vector("a", "query"), [0.0] * 8], np.float32)
    coder = DenseCoder(tmp_path / "encoder", query_k=2)
    documents, queries = coder.document_codes(dense), coder.query_codes(dense)
    assert documents.lengths.tolist()[1] == queries.lengths.tolist()[1] == 0
    assert documents[:1].equals(tiny_encoder.encode(dense[:1]).normalised(), 1e-6)
    assert queries[:1].equals(tiny_encoder.encode(dense[:1], 2).normalised(), 1e-6)
    assert len(coder.document_codes(np.zeros((0, 0), np.float32))) == 0


def test_what_cannot_embed_is_refused(tiny_encoder: Encoder) -> None:
    with pytest.raises(ConfigError, match="this encoder remembers none"):
        text_coder(tiny_encoder)
    with pytest.raises(ConfigError, match="got Counting: wrap a function with CallableEmbedder"):
        text_coder(tiny_encoder, Counting())
    other = CallableEmbedder(lambda texts: np.ones((len(texts), 9)), 9, "nine")
    with pytest.raises(ConfigError, match="takes vectors of 8 dimensions, got an embedder of 9"):
        text_coder(tiny_encoder, other)
    with pytest.raises(ConfigError, match=r"k must be in 1\.\.32"):
        text_coder(tiny_encoder, other, query_k=33)
    with pytest.raises(ConfigError, match="only where its user names it"):
        text_coder(tiny_encoder, "python:os:getcwd")
