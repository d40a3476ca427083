"""`csr info`: encoders, adapters, collections and files of codes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from csr_qdrant.codes import SparseCodes
from csr_qdrant.collection import Collection
from csr_qdrant.encoder import Encoder
from csr_qdrant.stores.edge import EdgeStore
from csr_qdrant.trainer import TrainConfig, fit
from csr_qdrant.trainer.linear import fit_linear
from csr_qdrant.trainer.linear_config import LinearConfig

Csr = Callable[..., Any]

X = np.random.default_rng(1).normal(size=(300, 8)).astype(np.float32)


def test_an_encoder_is_described_with_its_training(csr: Csr) -> None:
    config = TrainConfig(k=(2, 4), h=32, steps=5, held_out=20, batch_size=32)
    encoder = fit(X, config, info={"embedder": "wordllama:64", "data": {"rows": 300}})
    encoder.save("enc")
    told = csr("info", "enc", "--json").json
    assert (told["type"], told["d"], told["h"], told["k"]) == ("encoder", 8, 32, 4)
    assert (told["fingerprint"], told["embedder"]) == (encoder.fingerprint, "wordllama:64")
    assert told["data"] == {"rows": 300}
    assert told["training"]["steps"] == 5
    assert told["validation"] == encoder.info["validations"][-1]
    assert told["weight_bytes"] == 4 * (32 * 8 + 32 + 8)
    shown = csr("info", "enc").stdout
    assert encoder.fingerprint in shown
    assert "training.steps" in shown


def test_an_encoder_without_a_history_is_described(csr: Csr, tiny_encoder: Encoder) -> None:
    tiny_encoder.save("enc")
    told = csr("info", "enc", "--json").json
    assert (told["training"], told["validation"], told["embedder"]) == (None, None, None)
    assert csr("info", "enc").exit_code == 0


def test_an_adapter_is_described_with_its_training(csr: Csr) -> None:
    config = LinearConfig(dims=(2, 8), steps=5, held_out=20, batch_size=32)
    adapter = fit_linear(X, config, info={"data": {"rows": 300}})
    adapter.save("mrl")
    told = csr("info", "mrl", "--json").json
    assert (told["type"], told["d"], told["dims"]) == ("adapter", 8, [2, 8])
    assert (told["fingerprint"], told["data"]) == (adapter.fingerprint, {"rows": 300})
    assert (told["centred"], told["supervision"], told["steps"]) == (True, None, 5)
    assert told["validation"] == adapter.info["validations"][-1]
    assert adapter.fingerprint in csr("info", "mrl").stdout


def test_a_collection_in_a_folder_is_measured(csr: Csr, tiny_encoder: Encoder) -> None:
    tiny_encoder.save("enc")
    np.save("x.npy", X)
    csr("index", "x.npy", "col", "--encoder", "enc", "--datatype", "f16")
    told = csr("info", "col", "--json").json
    assert (told["type"], told["points"], told["datatype"]) == ("collection", 300, "f16")
    assert (told["h"], told["k"], told["keep_dense"]) == (32, 4, False)
    assert told["fingerprint"] == tiny_encoder.fingerprint
    with EdgeStore.open("col") as store:
        sizes = store.sizes()
    assert told["index_bytes"] == sizes.code_index > 0
    assert told["index_bytes_per_vector"] == round(sizes.code_index / 300, 1)
    assert told["sources"] == [{"source": "x.npy", "rows": 300, "without_code": 0}]


def test_a_collection_on_a_server_needs_no_encoder(
    csr: Csr, monkeypatch: pytest.MonkeyPatch, tiny_encoder: Encoder
) -> None:
    client = QdrantClient(":memory:")
    monkeypatch.setattr(client, "close", lambda: None)
    monkeypatch.setattr("csr_qdrant.stores.server.connect", lambda url, **rest: client)
    Collection.create_on(client, "books", tiny_encoder).add(range(300), vectors=X)
    told = csr("info", "--url", "http://somewhere", "--collection", "books", "--json").json
    assert (told["points"], told["index_bytes"], told["k"]) == (300, None, 4)
    missing = csr("info", "--url", "http://somewhere", "--collection", "films")
    assert (missing.exit_code, "there is no collection at" in missing.stderr) == (1, True)


def test_a_file_of_codes_is_counted(csr: Csr) -> None:
    codes = SparseCodes.from_dense([[0, 1, 2], [0, 0, 0], [3, 0, 0], [1, 1, 1]])
    codes.save("c.safetensors")
    told = csr("info", "c.safetensors", "--json").json
    assert told == {
        "type": "codes",
        "path": "c.safetensors",
        "rows": 4,
        "h": 3,
        "mean_active": 1.5,
        "most_active": 3,
        "without_code": 1,
        "file_bytes": Path("c.safetensors").stat().st_size,
    }


def test_an_empty_file_of_codes_is_counted(csr: Csr) -> None:
    SparseCodes.from_dense(np.zeros((0, 3))).save("c.safetensors")
    told = csr("info", "c.safetensors", "--json").json
    assert (told["rows"], told["mean_active"], told["most_active"]) == (0, None, 0)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("nothing", "nothing is not there"),
        ("x.npy", "x.npy is no encoder, collection or file of codes"),
        ("empty", "empty is not an encoder"),
        ("bad.safetensors", "bad.safetensors cannot be read as codes"),
        ("enc/model.safetensors", "holds no codes"),
    ],
)
def test_what_is_neither_is_refused(
    csr: Csr, tiny_encoder: Encoder, path: str, sentence: str
) -> None:
    np.save("x.npy", X)
    Path("empty").mkdir()
    Path("bad.safetensors").write_bytes(b"nonsense")
    tiny_encoder.save("enc")
    ran = csr("info", path)
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert sentence in ran.stderr
    assert ran.stderr.count("\n") == 1
