"""`csr embed`: vectors and codes on disk, whole or not at all, resumable, in bounded memory."""

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.cli.codes_writer import write_codes
from csr_qdrant.cli.dense import dense_on_disk
from csr_qdrant.codes import SparseCodes
from csr_qdrant.collection import Collection
from csr_qdrant.embedders import load_embedder
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import CsrError
from csr_qdrant.sources import base, open_source

Csr = Callable[..., Any]

TEXTS = [f"{a} {b}" for a in ("red", "old", "wise", "cold") for b in ("man", "king", "house", "ox")]
X = np.random.default_rng(1).normal(size=(300, 8)).astype(np.float32)
WORDS = ("--embedder", "wordllama:64")


@pytest.fixture
def texts(csr: Csr) -> None:
    """Write `t.jsonl`, sixteen texts with ids and payloads."""
    rows = ({"id": f"t{i}", "text": t, "n": i} for i, t in enumerate(TEXTS))
    Path("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def names() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


# --- vectors ----------------------------------------------------------------------------------


def test_texts_become_vectors_with_their_rows_beside_them(csr: Csr, texts: None) -> None:
    told = csr("embed", "t.jsonl", "-o", "t.npy", *WORDS, "--json").json
    expected = load_embedder("wordllama:64").embed_documents(TEXTS)
    np.testing.assert_array_equal(np.load("t.npy"), expected)
    assert (told["rows"], told["kind"], told["embedder"]) == (16, "vectors", "wordllama:64")
    assert told["bytes"] == Path("t.npy").stat().st_size
    assert names() == ["t.jsonl", "t.npy", "t.rows.jsonl"]
    block = next(open_source("t.npy", ids="t.rows.jsonl", payload="t.rows.jsonl").blocks(99))
    assert block.ids[3] == "t3"
    assert block.payloads is not None
    assert block.payloads[3] == {"text": TEXTS[3], "n": 3}


def test_vectors_of_other_formats_become_npy(csr: Csr) -> None:
    np.savez("x.npz", vectors=X.astype(np.float64))
    assert csr("embed", "x.npz", "-o", "x.npy").exit_code == 0
    np.testing.assert_array_equal(np.load("x.npy"), X)


def test_an_interrupted_run_embeds_no_text_twice(
    csr: Csr, texts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from csr_qdrant.embedders.word_llama import WordLlamaEmbedder

    monkeypatch.setitem(base.BLOCK_ROWS, "texts", 4)
    embed = WordLlamaEmbedder.embed_documents
    seen: list[str] = []

    def embedding(self: Any, given: Sequence[str]) -> Any:
        if len(given) > 1 and len(seen) == 8:
            seen.append("interrupted")
            raise KeyboardInterrupt
        seen.extend(given if len(given) > 1 else [])
        return embed(self, given)

    monkeypatch.setattr(WordLlamaEmbedder, "embed_documents", embedding)
    command = ("embed", "t.jsonl", "-o", "t.npy", *WORDS)
    assert csr(*command).exit_code == 130
    assert names() == ["t.jsonl", "t.npy.partial", "t.npy.partial.json"]
    with Path("t.npy.partial").open("ab") as file:
        file.write(b"half a row")  # as a kill may leave it
    assert csr(*command).exit_code == 0
    assert seen == [*TEXTS[:8], "interrupted", *TEXTS[8:]]
    expected = embed(WordLlamaEmbedder(64), TEXTS)
    np.testing.assert_array_equal(np.load("t.npy"), expected)
    assert names() == ["t.jsonl", "t.npy", "t.rows.jsonl"]


def test_what_another_embedder_began_is_not_continued(csr: Csr, texts: None) -> None:
    source = open_source("t.jsonl")
    small, large = load_embedder("wordllama:64"), load_embedder("wordllama:128")
    for embedder in (small, large):
        vectors = dense_on_disk(source, Path("v.npy"), embedder.embed_documents, maker=embedder.uri)
        np.testing.assert_array_equal(vectors, embedder.embed_documents(TEXTS))
    rows = [json.loads(line) for line in Path("t.jsonl").read_text().splitlines()]
    Path("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[::-1]))
    vectors = dense_on_disk(
        open_source("t.jsonl"), Path("v.npy"), large.embed_documents, maker=large.uri
    )
    np.testing.assert_array_equal(vectors, large.embed_documents(TEXTS[::-1]))


def test_vectors_that_are_mapped_already_are_not_copied(csr: Csr) -> None:
    np.save("x.npy", X)
    vectors = dense_on_disk(open_source("x.npy"), Path("copy.npy"))
    np.testing.assert_array_equal(vectors, X)
    assert isinstance(vectors, np.memmap)
    assert names() == ["x.npy"]


# --- codes ------------------------------------------------------------------------------------


def test_vectors_become_codes_that_can_be_indexed(csr: Csr, tiny_encoder: Encoder) -> None:
    np.save("x.npy", X)
    tiny_encoder.save("enc")
    told = csr("embed", "x.npy", "-o", "c.safetensors", "--encoder", "enc", "--k", 3, "--json").json
    assert (told["kind"], told["encoder"]) == ("codes", tiny_encoder.fingerprint)
    codes = SparseCodes.load("c.safetensors")
    assert codes.equals(tiny_encoder.encode(X, 3))
    ran = csr("index", "c.safetensors", "col", "--encoder", "enc", "--ids", "c.rows.jsonl")
    assert ran.exit_code == 0, ran.stderr
    with Collection.open("col") as collection:
        assert collection.search(X[7], limit=1)[0].id == 7


def test_texts_become_codes_through_the_encoders_own_embedder(csr: Csr, texts: None) -> None:
    encoder = Encoder(
        weight=np.random.default_rng(2).normal(size=(128, 64)).astype(np.float32),
        latent_bias=np.zeros(128, np.float32),
        pre_bias=np.zeros(64, np.float32),
        k=8,
        info={"embedder": "wordllama:64"},
    )
    encoder.save("enc")
    assert csr("embed", "t.jsonl", "-o", "c.safetensors", "--encoder", "enc").exit_code == 0
    dense_texts = load_embedder("wordllama:64").embed_documents(TEXTS)
    assert SparseCodes.load("c.safetensors").equals(encoder.encode(dense_texts))


def test_zero_rows_are_refused_or_get_an_empty_code(csr: Csr, tiny_encoder: Encoder) -> None:
    biased = Encoder(
        weight=tiny_encoder.weight,
        latent_bias=np.ones(32, np.float32),
        pre_bias=tiny_encoder.pre_bias,
        k=4,
    )
    biased.save("enc")
    x = X.copy()
    x[[2, 299]] = 0
    np.save("x.npy", x)
    command = ("embed", "x.npy", "-o", "c.safetensors", "--encoder", "enc")
    refused = csr(*command)
    assert (refused.exit_code, "row 2 of x.npy is all zeros" in refused.stderr) == (1, True)
    assert names() == ["enc", "x.npy"]
    assert csr(*command, "--skip-zero").exit_code == 0
    codes = SparseCodes.load("c.safetensors")
    assert np.flatnonzero(codes.lengths == 0).tolist() == [2, 299]
    assert codes[3:299].equals(biased.encode(x[3:299]))


@pytest.mark.parametrize("sizes", [[], [0], [1], [3, 0, 5], [64, 64, 64]])
def test_streamed_codes_make_the_file_that_save_makes(
    tmp_path: Path, tiny_encoder: Encoder, sizes: list[int]
) -> None:
    codes = tiny_encoder.encode(X)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
    batches = [codes[a:b] for a, b in pairwise(starts)]
    done: list[int] = []
    rows = write_codes(iter(batches), 32, tmp_path / "streamed.safetensors", done.append)
    codes[: sum(sizes)].save(tmp_path / "whole.safetensors")
    streamed, whole = (tmp_path / f"{name}.safetensors" for name in ("streamed", "whole"))
    assert streamed.read_bytes() == whole.read_bytes()
    assert rows == sum(sizes)
    assert done == np.cumsum(sizes).tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "streamed.safetensors",
        "whole.safetensors",
    ]


def test_a_failed_stream_of_codes_leaves_nothing(tmp_path: Path, tiny_encoder: Encoder) -> None:
    def batches() -> Any:
        yield tiny_encoder.encode(X)
        raise CsrError("a bad row")

    with pytest.raises(CsrError, match="a bad row"):
        write_codes(batches(), 32, tmp_path / "c.safetensors")
    assert list(tmp_path.iterdir()) == []


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "exit_code", "sentence"),
    [
        (("t.jsonl", "-o", "t.npy"), 2, "pass --embedder"),
        (("t.jsonl", "-o", "t.bin", *WORDS), 2, "dense vectors are written to a .npy file"),
        (("x.npy", "-o", "c.npy", "--encoder", "enc"), 2, "codes are written to a .safetensors"),
        (("x.npy", "-o", "y.npy", "--k", 3), 2, "--k counts latents of codes"),
        (("x.npy", "-o", "c.safetensors", "--encoder", "enc", "--k", 33), 2, "k must be in 1..32"),
        (("x.npy", "-o", "x.npy"), 2, "x.npy already exists"),
        (("nan.npz", "-o", "y.npy"), 1, "row 5 of nan.npz holds NaN"),
        (("codes.safetensors", "-o", "y.npy"), 1, "holds codes already"),
    ],
)
def test_what_cannot_be_embedded_is_refused(
    csr: Csr,
    texts: None,
    tiny_encoder: Encoder,
    arguments: tuple[Any, ...],
    exit_code: int,
    sentence: str,
) -> None:
    np.save("x.npy", X)
    bad = X.copy()
    bad[5, 5] = np.nan
    np.savez("nan.npz", vectors=bad)
    tiny_encoder.encode(X[:2]).save("codes.safetensors")
    tiny_encoder.save("enc")
    before = names()
    ran = csr("embed", *arguments)
    assert (ran.exit_code, ran.stdout) == (exit_code, "")
    assert sentence in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert [name for name in names() if "partial" not in name] == before


def test_a_dry_run_tells_the_plan_and_writes_nothing(csr: Csr, texts: None) -> None:
    plan = csr("embed", "t.jsonl", "-o", "t.npy", *WORDS, "--dry-run", "--json").json
    assert (plan["rows"], plan["d"], plan["bytes"]) == (16, 64, 16 * 64 * 4)
    assert names() == ["t.jsonl"]
