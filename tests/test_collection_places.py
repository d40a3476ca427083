"""Collections in folders and on servers: made, opened, refused; texts and their embedders."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from csr_qdrant.collection import Collection
from csr_qdrant.embedders import CallableEmbedder, load_embedder
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.identity import Identity
from csr_qdrant.stores.base import Schema
from csr_qdrant.stores.edge import EdgeStore
from csr_qdrant.trainer import TrainConfig, fit

D, H, K, N = 16, 96, 6, 120


def vectors(n: int = N, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return fit(vectors(200), TrainConfig(k=(3, K), steps=5, h=H, held_out=10))


# --- texts ------------------------------------------------------------------------------------

TEXTS = ["shepherds and their sheep", "ships upon a stormy sea", "bread and wine at the table"]


@pytest.fixture(scope="module")
def text_encoder() -> Encoder:
    words = [f"{a} {b}" for a in ("sun", "moon", "sea", "ship", "bread", "wine") for b in TEXTS]
    dense = load_embedder("wordllama:64").embed_documents(words + TEXTS)
    config = TrainConfig(k=(8,), steps=5, h=256, held_out=5)
    return fit(dense, config, info={"embedder": "wordllama:64"})


def test_texts_are_embedded_by_the_remembered_embedder(
    text_encoder: Encoder, tmp_path: Path
) -> None:
    with Collection.create(tmp_path / "c", text_encoder, keep_dense=True) as collection:
        assert collection.identity.embedder == "wordllama:64"
        collection.add(["a", "b", "c"], texts=TEXTS, payloads=[{"text": text} for text in TEXTS])
    with Collection.open(tmp_path / "c") as collection:
        for name, text in zip("abc", TEXTS, strict=True):
            hit = collection.search(text, limit=1)[0]
            assert (hit.id, hit.payload) == (name, {"text": text})
            assert hit.score == pytest.approx(1, abs=1e-5)
        hits = collection.search_batch(["sailing the sea", "a flock of sheep"], rescore=3, limit=1)
        assert [[hit.id for hit in each] for each in hits] == [["b"], ["a"]]
        dense = load_embedder("wordllama:64").embed_queries(["sailing the sea"])
        assert collection.search(dense[0], limit=1, rescore=3) == hits[0]
        assert collection.search("") == []  # no token, no direction


def test_an_embedder_that_cannot_be_loaded_must_be_passed(encoder: Encoder, tmp_path: Path) -> None:
    mine = CallableEmbedder(lambda texts: vectors(len(texts)), D, "mine")
    with Collection.create(tmp_path / "c", encoder, embedder=mine) as collection:
        collection.add(["x"], texts=["a text"])
    with Collection.open(tmp_path / "c") as collection:
        assert collection.identity.embedder == "mine"
        with pytest.raises(ConfigError, match=r"no embedder 'mine'.*or pass the embedder that"):
            collection.search("a text")
    with Collection.open(tmp_path / "c", embedder=mine) as collection:
        assert collection.search("a text")[0].id == "x"


# --- making and opening -------------------------------------------------------------------------


def test_a_folder_holds_all_that_it_needs(encoder: Encoder, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "c"
    with Collection.create(folder, encoder, k=4, keep_dense=True, datatype="f16") as collection:
        collection.add(["x", "y"], vectors=vectors(2))
        with pytest.raises(CsrError, match="is open in another process or handle"):
            Collection.open(folder)
    with Collection.open(folder) as collection:
        assert collection.encoder.fingerprint == encoder.fingerprint
        assert collection.search(vectors(1)[0], limit=1, rescore=2)[0].id == "x"
        info = collection.info()
        assert info == {
            "location": str(folder),
            "points": 2,
            "segments": info["segments"],
            "indexed_vectors": info["indexed_vectors"],
            "fingerprint": encoder.fingerprint,
            "h": H,
            "d": D,
            "k": 4,
            "embedder": None,
            "datatype": "f16",
            "keeps_dense": True,
            "attached": False,
            "code_name": "csr",
            "dense_name": "dense",
        }
    with pytest.raises(ConfigError, match="already exists"):
        Collection.create(folder, encoder)
    with pytest.raises(CsrError, match="is closed: open it again"):
        len(collection)
    collection.close()  # twice does no harm


def test_another_encoder_is_refused_with_both_names(encoder: Encoder, tmp_path: Path) -> None:
    other = replace(encoder, latent_bias=encoder.latent_bias + 1)
    Collection.create(tmp_path / "c", encoder).close()
    with pytest.raises(CsrError) as got:
        Collection.open(tmp_path / "c", other)
    assert encoder.fingerprint in str(got.value) and other.fingerprint in str(got.value)
    with Collection.open(tmp_path / "c", encoder.with_k(2)) as collection:  # k may vary, and the
        assert collection.identity.k == K  # refusal has released the folder


def test_a_failed_creation_leaves_nothing(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for settings in ({"k": H + 1}, {"datatype": "f8"}):
        with pytest.raises(ConfigError):
            Collection.create(tmp_path / "c", encoder, **settings)
    unwritable = replace(encoder, info={"not": {"json"}})
    with pytest.raises((CsrError, TypeError)):  # at the last step, the copy of the encoder
        Collection.create(tmp_path / "c", unwritable)
    assert list(tmp_path.iterdir()) == []
    Collection.create(tmp_path / "c", encoder).close()


def test_what_is_no_collection_of_ours(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(CsrError, match="there is no collection at"):
        Collection.open(tmp_path / "nowhere")
    EdgeStore.create(tmp_path / "bare", Schema(h=H)).close()
    with pytest.raises(CsrError, match="was not made by csr-qdrant: add codes to it"):
        Collection.open(tmp_path / "bare")
    for change, message in (
        ({"format_version": 2}, "has format version 2, this release reads 1: upgrade"),
        ({"h": None}, "the metadata of .* are damaged"),
    ):
        metadata = Identity.of(encoder, None, None).to_metadata()
        metadata["csr_qdrant"] |= change
        folder = tmp_path / f"changed {message[:5]}"
        EdgeStore.create(folder, Schema(h=H), metadata).close()
        with pytest.raises(CsrError, match=message):
            Collection.open(folder)


def test_through_a_client(encoder: Encoder) -> None:
    from qdrant_client import QdrantClient

    client = QdrantClient(":memory:")
    with Collection.create_on(client, "c", encoder, keep_dense=True, k=4) as collection:
        collection.add(["x", 2], vectors=vectors(2))
    with Collection.open_on(client, "c", encoder) as collection:
        assert collection.identity.k == 4 and collection.keeps_dense
        assert [hit.id for hit in collection.search(vectors(2)[1], limit=1)] == [2]
        assert math.isclose(collection.search(vectors(1)[0], rescore=2)[0].score, 1, abs_tol=1e-5)
    other = replace(encoder, layer_norm=True)
    with pytest.raises(CsrError, match=f"got {other.fingerprint} "):
        Collection.open_on(client, "c", other)
    with pytest.raises(CsrError, match="there is no collection 'd'"):
        Collection.open_on(client, "d", encoder)
    with pytest.raises(ConfigError, match="already exists"):
        Collection.create_on(client, "c", encoder)
