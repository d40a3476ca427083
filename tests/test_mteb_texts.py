"""Texts as mteb joins them, and embeddings that are computed once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.benchmarks import mteb_texts
from csr_qdrant.benchmarks.mteb_texts import (
    Embeddings,
    document_text,
    query_text,
    slug,
    text_digest,
)
from csr_qdrant.embedders import CallableEmbedder
from csr_qdrant.errors import CsrError

datasets = pytest.importorskip("datasets")

D = 3
Rows = list[dict[str, Any]]


def _numbers(text: str) -> list[float]:
    return [float(len(text)), float(text.count("a")), 1.0]


class Asked:
    """An embedder that remembers how many texts it was given."""

    def __init__(self, fail_after: int | None = None, uri: str = "lengths") -> None:
        self.documents: list[str] = []
        self.queries: list[str] = []
        self._fail_after = fail_after
        self.embedder = CallableEmbedder(
            self._embed(self.documents), D, uri, query_function=self._embed(self.queries)
        )

    def _embed(self, seen: list[str]) -> Callable[[list[str]], Any]:
        def embed(texts: list[str]) -> Any:
            if self._fail_after is not None and len(seen) >= self._fail_after:
                raise CsrError("the model broke")
            seen.extend(texts)
            return [_numbers(text) for text in texts]

        return embed


def _dataset(n: int, letter: str = "a") -> Any:
    return datasets.Dataset.from_list(
        [{"id": str(i), "title": "", "text": letter * (i % 7)} for i in range(n)]
    )


@pytest.mark.parametrize(
    "row",
    [
        {"id": "1", "title": "Head", "text": " body "},
        {"id": "1", "title": "", "text": "  body "},
        {"id": "1", "text": " body\n"},
        {"id": "1", "title": " ", "text": "body"},
        {"id": "1", "title": "Head", "text": ""},
    ],
)
def test_documents_read_as_in_mteb(row: dict[str, str]) -> None:
    loaders = pytest.importorskip("mteb._create_dataloaders")
    assert document_text(row) == loaders._corpus_to_dict(dict(row))["text"]


@pytest.mark.parametrize(
    "rows",
    [
        [{"id": "1", "text": " one "}, {"id": "2", "text": ""}],
        [{"id": "1", "text": "one", "instruction": "find"}],
        [{"id": "1", "text": [{"role": "user", "content": "a"}, {"role": "bot", "content": "b"}]}],
        [{"id": "1", "text": [{"role": "user", "content": "a"}], "instruction": "find"}],
    ],
)
def test_queries_read_as_in_mteb(rows: Rows) -> None:
    loaders = pytest.importorskip("mteb._create_dataloaders")
    from mteb.types import PromptType

    if not hasattr(loaders, "_retrieval_texts"):
        pytest.skip("this version of mteb joins texts elsewhere")
    expected = loaders._retrieval_texts(datasets.Dataset.from_list(rows), PromptType.query)
    assert [query_text(row) for row in rows] == list(expected)


def test_texts_that_are_missing_are_empty() -> None:
    assert document_text({"title": None, "text": "body"}) == "body"
    assert document_text({"title": "Head", "text": None}) == "Head"
    assert query_text({"text": None}) == ""


def test_the_digest_names_texts_and_their_bounds() -> None:
    def digest(*texts: str) -> str:
        rows = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
        return text_digest(datasets.Dataset.from_list(rows), "documents")

    assert digest("ab", "c") == digest("ab", "c")
    assert len({digest("ab", "c"), digest("a", "bc"), digest("c", "ab"), digest("ab")}) == 4


def test_what_is_embedded_is_mapped_and_never_embedded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mteb_texts, "BLOCK", 8)
    asked = Asked()
    vectors = Embeddings(asked.embedder, tmp_path).documents(_dataset(30))
    assert isinstance(vectors, np.memmap)
    np.testing.assert_array_equal(vectors, [_numbers("a" * (i % 7)) for i in range(30)])
    again = Embeddings(asked.embedder, tmp_path).documents(_dataset(30))
    np.testing.assert_array_equal(again, vectors)
    assert len(asked.documents) == 30
    # Other texts are embedded, and queries by their own function.
    Embeddings(asked.embedder, tmp_path).documents(_dataset(30, "b"))
    queries = Embeddings(asked.embedder, tmp_path).queries(_dataset(30))
    np.testing.assert_array_equal(queries, vectors)
    assert (len(asked.documents), len(asked.queries)) == (60, 30)


def test_embedders_do_not_share_vectors(tmp_path: Path) -> None:
    for uri in ("one", "two"):
        asked = Asked(uri=uri)
        Embeddings(asked.embedder, tmp_path).documents(_dataset(5))
        assert len(asked.documents) == 5


def test_an_interrupted_embedding_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mteb_texts, "BLOCK", 8)
    first = Asked(fail_after=16)
    with pytest.raises(CsrError, match="the model broke"):
        Embeddings(first.embedder, tmp_path).documents(_dataset(30))
    second = Asked()
    vectors = Embeddings(second.embedder, tmp_path).documents(_dataset(30))
    np.testing.assert_array_equal(vectors, [_numbers("a" * (i % 7)) for i in range(30)])
    assert (len(first.documents), len(second.documents)) == (16, 14)
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".npy"]


def test_remains_that_make_no_sense_are_embedded_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mteb_texts, "BLOCK", 8)
    with pytest.raises(CsrError, match="the model broke"):
        Embeddings(Asked(fail_after=8).embedder, tmp_path).documents(_dataset(30))
    next(tmp_path.rglob("*.partial")).write_bytes(b"torn")
    asked = Asked()
    vectors = Embeddings(asked.embedder, tmp_path).documents(_dataset(30))
    np.testing.assert_array_equal(vectors, [_numbers("a" * (i % 7)) for i in range(30)])
    assert len(asked.documents) == 30


def test_vectors_that_are_not_finite_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mteb_texts, "BLOCK", 4)

    def embed(texts: list[str]) -> Any:
        return [[float("nan") if text == "aaaaaa" else 1.0] * D for text in texts]

    embedder = CallableEmbedder(embed, D, "broken")
    with pytest.raises(
        CsrError, match=r"broken gave NaN or an infinity for row 6 of the documents"
    ):
        Embeddings(embedder, tmp_path).documents(_dataset(30))


def test_slugs_are_file_names() -> None:
    assert slug("sentence-transformers:BAAI/bge-small-en-v1.5") == (
        "sentence-transformers-BAAI-bge-small-en-v1.5"
    )
    assert slug("../up") == "up"
