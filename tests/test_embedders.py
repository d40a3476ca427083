"""Embedders: WordLlama, a small real sentence-transformers model, and plain functions."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.embedders import CallableEmbedder, load_embedder
from csr_qdrant.errors import ConfigError, CsrError, MissingExtraError

TEXTS = ["the king of the land", "a vessel of water", "he spoke to the king"]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # Where another test has imported the hub's client already, it has read the variable.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a static model whose vectors are known, with a prompt for queries only."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = ["?", "king", "water", "query"]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()
    weights = np.array([[0, 0, 1], [3, 4, 0], [0, 2, 0], [0, 0, 5]], np.float32)
    module = StaticEmbedding(tokenizer, embedding_weights=weights)
    prompts = {"query": "query ", "document": ""}
    path = tmp_path_factory.mktemp("models") / "tiny"
    SentenceTransformer(modules=[module], prompts=prompts, device="cpu").save(str(path))
    return path


def test_wordllama_gives_the_normalised_vectors_of_the_package() -> None:
    import wordllama

    package = Path(wordllama.__file__).parent
    model = wordllama.WordLlama.load(cache_dir=package, disable_download=True)
    embedder = load_embedder("wordllama")
    assert (embedder.uri, embedder.dimension) == ("wordllama", 256)
    expected = model.embed(TEXTS, norm=True)
    np.testing.assert_allclose(embedder.embed_documents(TEXTS), expected, atol=1e-6)
    np.testing.assert_array_equal(embedder.embed_queries(TEXTS), embedder.embed_documents(TEXTS))


@pytest.mark.parametrize("dimension", [64, 128])
def test_wordllama_truncates_before_it_normalises(dimension: int) -> None:
    whole = load_embedder("wordllama").embed_documents(TEXTS)
    embedder = load_embedder(f"wordllama:{dimension}")
    assert (embedder.uri, embedder.dimension) == (f"wordllama:{dimension}", dimension)
    cut = whole[:, :dimension]
    expected = cut / np.linalg.norm(cut, axis=1, keepdims=True)
    np.testing.assert_allclose(embedder.embed_documents(TEXTS), expected, atol=1e-6)


def test_wordllama_vectors_do_not_depend_on_the_batch() -> None:
    embedder = load_embedder("wordllama:64")
    together = embedder.embed_documents([*TEXTS, "word " * 5000])
    alone = np.concatenate([embedder.embed_documents([text]) for text in TEXTS])
    np.testing.assert_array_equal(together[:3], alone)


def test_wordllama_gives_zeros_for_a_text_without_tokens() -> None:
    vectors = load_embedder("wordllama:64").embed_documents(["", "king"])
    assert not vectors[0].any()
    assert np.linalg.norm(vectors[1]) == pytest.approx(1)
    assert load_embedder("wordllama:64").embed_documents([]).shape == (0, 64)


def test_sentence_transformers_prompts_queries_and_normalises(tiny_model: Path) -> None:
    embedder = load_embedder(f"sentence-transformers:{tiny_model}", device="cpu")
    assert embedder.uri == f"sentence-transformers:{tiny_model}"
    assert embedder.dimension == 3
    documents = embedder.embed_documents(["king", "water"])
    assert documents.dtype == np.float32
    np.testing.assert_allclose(documents, np.array([[0.6, 0.8, 0], [0, 1, 0]]), atol=1e-6)
    # The prompt adds the word "query": the mean of (3, 4, 0) and (0, 0, 5), normalised.
    expected = np.array([[3, 4, 5]]) / np.sqrt(50)
    np.testing.assert_allclose(embedder.embed_queries(["king"]), expected, atol=1e-6)
    assert embedder.embed_queries([]).shape == (0, 3)


def test_sentence_transformers_finds_the_home_folder(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tiny_model.parent))
    embedder = load_embedder("sentence-transformers:~/tiny", device="cpu")
    assert (embedder.uri, embedder.dimension) == ("sentence-transformers:~/tiny", 3)


def test_sentence_transformers_keeps_the_first_dimensions(tiny_model: Path) -> None:
    uri = f"sentence-transformers:{tiny_model}?dims=2"
    embedder = load_embedder(uri, device="cpu")
    assert (embedder.uri, embedder.dimension) == (uri, 2)
    # "king ?" has the mean (3, 4, 1) / 2: cut first, then normalised.
    vectors = embedder.embed_documents(["king ?", "water"])
    np.testing.assert_allclose(vectors, np.array([[0.6, 0.8], [0, 1]]), atol=1e-6)
    assert embedder.embed_queries(["king"]).shape == (1, 2)


def test_sentence_transformers_prompts_all_texts_alike_if_asked(tiny_model: Path) -> None:
    embedder = load_embedder(f"sentence-transformers:{tiny_model}?prompt=query&dims=3", "cpu")
    expected = np.array([[3, 4, 5]]) / np.sqrt(50)
    for embed in (embedder.embed_documents, embedder.embed_queries):
        np.testing.assert_allclose(embed(["king"]), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("dims=4", r"dims must be in 1\.\.3, got 4"),
        ("dims=0", r"dims must be in 1\.\.3, got 0"),
        ("prompt=nothing", r"no prompt 'nothing' \(it has: query, document\)"),
        ("dims=two", "has unknown options: write"),
        ("size=2", "has unknown options"),
        ("dims=2&size=2", "has unknown options"),
        ("", "has unknown options"),
    ],
)
def test_options_that_a_model_lacks_are_refused(
    options: str, sentence: str, tiny_model: Path
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_embedder(f"sentence-transformers:{tiny_model}?{options}", "cpu")


def test_sentence_transformers_uses_the_device(tiny_model: Path) -> None:
    from csr_qdrant.embedders.sentence_transformer import SentenceTransformerEmbedder

    embedder = SentenceTransformerEmbedder(str(tiny_model), device="meta")
    assert embedder.model.device.type == "meta"
    with pytest.raises(CsrError, match="check the path or name and the device"):
        load_embedder(f"sentence-transformers:{tiny_model}", device="no-such-device")


@pytest.mark.parametrize("name", ["/nowhere/model", "nobody/no-such-model", "no such name"])
def test_a_missing_model_is_one_sentence(name: str) -> None:
    with pytest.raises(CsrError, match="sentence-transformers cannot load") as caught:
        load_embedder(f"sentence-transformers:{name}", device="cpu")
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_model_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CsrError, match="sentence-transformers cannot load") as caught:
        load_embedder(f"sentence-transformers:{tmp_path}", device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("openai:ada", "there is no embedder 'openai:ada': choose one of wordllama"),
        ("", "there is no embedder ''"),
        ("wordllama:", "there is no embedder 'wordllama:'"),
        ("wordllama:big", "there is no embedder 'wordllama:big'"),
        ("wordllama:100", "wordllama has 64, 128, 256 dimensions, got 100"),
        ("sentence-transformers", "needs a model"),
        ("sentence-transformers:", "needs a model"),
    ],
)
def test_unknown_uris_are_refused(uri: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_embedder(uri)


@pytest.mark.parametrize(
    ("uri", "module"),
    [("wordllama", "wordllama"), ("sentence-transformers:x", "sentence_transformers")],
)
def test_missing_packages_name_the_extra(
    uri: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'csr-qdrant\[text\]'"):
        load_embedder(uri)


def test_importing_embedders_loads_no_heavy_package() -> None:
    program = (
        "import sys, csr_qdrant.embedders\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'wordllama', 'qdrant_client',\n"
        "         'timm', 'open_clip', 'torchvision', 'PIL'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_function_embeds() -> None:
    embedder = CallableEmbedder(
        lambda texts: [[len(text), 1] for text in texts],
        2,
        "lengths",
        query_function=lambda texts: [[0, len(text)] for text in texts],
    )
    assert (embedder.uri, embedder.dimension) == ("lengths", 2)
    documents = embedder.embed_documents(("ab", "c"))
    assert documents.dtype == np.float32
    assert documents.tolist() == [[2, 1], [1, 1]]
    assert embedder.embed_queries(["abc"]).tolist() == [[0, 3]]
    assert embedder.embed_documents([]).shape == (0, 2)


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        ([[1.0, 2.0]], r"shape \(2, 2\), got \(1, 2\)"),
        ([[1.0], [2.0]], r"shape \(2, 2\), got \(2, 1\)"),
        ([1.0, 2.0], r"shape \(2, 2\), got \(2,\)"),
        ([[1.0, 2.0], [3.0]], "must give a matrix of numbers"),
        (["a", "b"], "must give a matrix of numbers"),
        (None, "got|must give"),
    ],
)
def test_a_function_of_the_wrong_shape_is_refused(result: Any, sentence: str) -> None:
    embedder = CallableEmbedder(lambda _: result, 2, "mine")
    with pytest.raises(CsrError, match=sentence):
        embedder.embed_documents(["a", "b"])


def test_embedders_refuse_what_is_no_list_of_texts() -> None:
    embedder = CallableEmbedder(lambda texts: np.zeros((len(texts), 2)), 2, "mine")
    with pytest.raises(ConfigError, match="got one text: put it into a list"):
        embedder.embed_documents("abc")
    with pytest.raises(CsrError, match="embeds texts only"):
        embedder.embed_documents([1, 2])  # type: ignore[list-item]
    with pytest.raises(CsrError, match="embeds texts only"):
        load_embedder("wordllama:64").embed_queries(["\udcff"])
    with pytest.raises(ConfigError, match="dimension must be at least 1, got 0"):
        CallableEmbedder(len, 0, "mine")
