"""Encoders on the Hugging Face Hub: pushed to and loaded from a stand-in on this machine."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.integrations.hub import from_hub, parsed_name, public_info, push_to_hub
from csr_qdrant.integrations.model_card import base_model, model_card

sys.path.insert(0, str(Path(__file__).parent))
from hub_stub import StubHub, connected

Csr = Callable[..., Any]

AT = [
    {"k": 2, "recall": 0.3125, "fvu": 0.5, "postings": 0.11, "longest_list": 0.2},
    {"k": 4, "recall": 0.625, "fvu": 0.25, "postings": 0.456, "longest_list": 0.3},
]
INFO: dict[str, Any] = {
    "embedder": "sentence-transformers:org/model?dims=8",
    "data": {"source": "/home/somebody/secret-project/vectors.npy", "rows": 12345},
    "steps": 77,
    "validations": [
        {"step": 50, "dead": 0.5, "at": [{**row, "recall": 0.111} for row in AT]},
        {"step": 77, "dead": 0.0625, "at": AT},
    ],
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StubHub]:
    with connected(monkeypatch, tmp_path / "cache") as stub:
        yield stub


@pytest.fixture
def encoder(tiny_encoder: Encoder) -> Encoder:
    return replace(tiny_encoder, info=INFO)


def test_what_is_pushed_comes_back(hub: StubHub, encoder: Encoder) -> None:
    pushed = push_to_hub(encoder, "me/codes", private=True)
    assert pushed.url == f"{hub.url}/me/codes/commit/{'a' * 40}"
    assert hub.private == {"me/codes": True}
    files = hub.repos["me/codes"]
    assert set(files) - {".gitattributes"} == set(pushed.files)
    assert set(pushed.files) == {"README.md", "config.json", "csr.json", "model.safetensors"}
    assert files["README.md"].decode() == pushed.card
    assert b"secret-project" not in b"".join(files.values())
    loaded = Encoder.load("hf:me/codes")
    assert loaded.fingerprint == encoder.fingerprint
    assert loaded.info == public_info(INFO)
    assert loaded.info["data"]["source"] == "vectors.npy"
    assert "Bearer hf_stub" in hub.tokens


def test_only_the_encoders_files_are_downloaded(
    hub: StubHub, encoder: Encoder, tmp_path: Path
) -> None:
    encoder.save(tmp_path / "encoder")
    own = {f"2_Codes/{p.name}": p.read_bytes() for p in (tmp_path / "encoder").iterdir()}
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {
            "path": "2_Codes",
            "type": "sentence_transformers.sparse_encoder.models.SparseAutoEncoder",
        },
    ]
    hub.repos["lab/pipeline"] = {
        **own,
        "modules.json": json.dumps(modules).encode(),
        "config.json": b"{}",
        "model.safetensors": b"a large backbone",
        "2_Codes/pytorch_model.bin": b"a pickle",
        "run.py": b"raise SystemExit",
    }
    assert from_hub("lab/pipeline@main").fingerprint == encoder.fingerprint
    read = {path.partition(f"/{'a' * 40}/")[2] for _, path in hub.requests if "/resolve/" in path}
    assert read == {"modules.json", "config.json", *own}
    hub.shutdown()
    hub.server_close()  # and the second time without a network
    assert from_hub("lab/pipeline").fingerprint == encoder.fingerprint


def test_a_path_out_of_the_repository_is_refused(hub: StubHub) -> None:
    modules = [{"path": "../../other", "type": "x.SparseAutoEncoder"}]
    hub.repos["lab/odd"] = {"modules.json": json.dumps(modules).encode(), "config.json": b"{}"}
    with pytest.raises(CsrError, match="outside of its folder"):
        from_hub("lab/odd")


def test_files_that_are_there_are_replaced_only_on_request(hub: StubHub, encoder: Encoder) -> None:
    hub.repos["me/codes"] = {".gitattributes": b"", "weights.bin": b"mine"}
    with pytest.raises(ConfigError, match=r"me/codes holds 1 files already \(weights.bin, …\)"):
        push_to_hub(encoder, "me/codes")
    assert set(hub.repos["me/codes"]) == {".gitattributes", "weights.bin"}
    push_to_hub(encoder, "me/codes", overwrite=True)
    assert hub.repos["me/codes"]["weights.bin"] == b"mine"
    assert from_hub("me/codes").fingerprint == encoder.fingerprint
    push_to_hub(encoder, "me/empty")
    assert hub.private["me/empty"] is False


def test_a_dry_run_sends_nothing(hub: StubHub, encoder: Encoder) -> None:
    planned = push_to_hub(encoder, "me/codes", dry_run=True)
    assert (planned.url, hub.requests, hub.repos) == (None, [], {})
    assert planned.files["README.md"] == len(planned.card.encode())


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (401, r"the hub refused \(401\): log in"),
        (403, r"the hub refused \(403\): log in"),
        (500, r"the hub answered 500: try again later"),
    ],
)
def test_refusals_are_one_sentence(
    hub: StubHub, encoder: Encoder, status: int, sentence: str
) -> None:
    hub.refuses = status
    with pytest.raises(CsrError, match=sentence) as got:
        push_to_hub(encoder, "me/codes")
    assert "\n" not in str(got.value) and "hf_stub" not in str(got.value)


def test_what_is_not_there_is_one_sentence(hub: StubHub) -> None:
    with pytest.raises(CsrError, match="there is no lab/nothing on the hub, or you may not"):
        from_hub("hf:lab/nothing")
    hub.repos["lab/empty"] = {"config.json": b"{}"}
    with pytest.raises(CsrError, match=r"is not an encoder, it lacks model.safetensors"):
        from_hub("hf:lab/empty")
    for wrong in ("hf:nothing", "hf:a/b/c", "hf:../x", "hf:a/b@", "hf:"):
        with pytest.raises(ConfigError, match="is no repository of the hub: write OWNER/NAME"):
            Encoder.load(wrong)
    assert parsed_name("hf:a/b@v1") == ("a/b", "v1")


def test_no_network_is_one_sentence(
    hub: StubHub, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.shutdown()
    hub.server_close()
    with pytest.raises(CsrError, match=r"cannot reach the hub for lab/x \(") as got:
        from_hub("lab/x")
    assert "\n" not in str(got.value)
    with pytest.raises(CsrError, match=r"cannot reach the hub for lab/x \("):
        push_to_hub(encoder, "lab/x")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CsrError, match=r"cannot reach the hub for lab/x \("):
        from_hub("lab/x")


# --- the card -------------------------------------------------------------------------------------


def test_the_card_holds_what_was_measured(encoder: Encoder) -> None:
    yaml: Any = importlib.import_module("yaml")
    card = model_card(encoder, "me/codes")
    _, front, text = card.split("---\n", 2)
    said = yaml.safe_load(front)
    assert (said["library_name"], said["base_model"]) == ("csr-qdrant", "org/model")
    assert "qdrant" in said["tags"]
    assert "| 2 | 0.312 | 0.5000 | 0.110 | 0.200 |" in text
    assert "| 4 | 0.625 | 0.2500 | 0.456 | 0.300 |" in text
    assert "Latents that no document of the sample uses: 6.2 %" in text
    assert "0.111" not in text  # an earlier validation
    assert encoder.fingerprint in text and "| data: rows | 12,345 |" in text


def test_the_card_claims_nothing_that_was_not_measured(tiny_encoder: Encoder) -> None:
    card = model_card(tiny_encoder, "me/codes")
    assert "Nothing was recorded in this encoder." in card
    assert "recall" not in card and "base_model" not in card
    strange = replace(tiny_encoder, info={"validations": [{"at": [{"k": 4, "fvu": "x|y"}]}]})
    card = model_card(strange, "me/codes")
    assert "| k |" in card and "x|y" not in card


def test_names_of_models_on_the_hub() -> None:
    assert base_model("sentence-transformers:org/model") == "org/model"
    for other in (None, "wordllama:64", "sentence-transformers:/a/b", "sentence-transformers:m"):
        assert base_model(other) is None


def test_local_paths_are_cut() -> None:
    given = {"a": ["/x/y.npy", "C:\\me\\z.npy", 3], "b": "sentence-transformers:/home/me/model"}
    assert public_info(given) == {"a": ["y.npy", "z.npy", 3], "b": "sentence-transformers:model"}
    kept = {"embedder": "wordllama:64", "hub": "sentence-transformers:a/b", "n": None}
    assert public_info(kept) == kept


def test_relative_paths_are_cut_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "data": {"source": "secret-project/v.npy"},
        "embedder": "sentence-transformers:me/model",
    }
    assert public_info(given)["data"] == {"source": "v.npy"}
    assert public_info(given)["embedder"] == given["embedder"]  # a name on the hub
    (tmp_path / "me" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)  # here it is a folder, which is what would have been loaded
    assert public_info(given)["embedder"] == "sentence-transformers:model"
    server = {"source": "collection 'docs' at http://localhost:6333"}
    assert public_info(server) == server
    assert public_info({"source": None, "long": "a/" * 4000}) == {
        "source": None,
        "long": "a/" * 4000,
    }


# --- the command ----------------------------------------------------------------------------------


def test_csr_push(hub: StubHub, encoder: Encoder, csr: Csr) -> None:
    encoder.save("enc")
    planned = csr("push", "enc", "me/codes", "--dry-run", "--json").json
    assert (planned["url"], planned["fingerprint"], hub.repos) == (None, encoder.fingerprint, {})
    told = csr("push", "enc", "me/codes", "--private", "--json").json
    assert told["url"].startswith(hub.url) and told["files"] == planned["files"]
    assert hub.private == {"me/codes": True}
    again = csr("push", "enc", "me/codes")
    assert (again.exit_code, again.stdout) == (2, "")
    assert "holds 4 files already" in again.stderr
    assert csr("push", "enc", "me/codes", "--overwrite").stdout.startswith("pushed encoder")
    shown = csr("push", "enc", "me/other", "--dry-run").stdout
    assert "# other" in shown and "hf_stub" not in shown


def test_commands_take_encoders_of_the_hub(hub: StubHub, encoder: Encoder, csr: Csr) -> None:
    push_to_hub(encoder, "me/codes")
    np.save("x.npy", np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32))
    assert csr("index", "x.npy", "col", "--encoder", "hf:me/codes", "--json").json["rows"] == 20
    assert csr("info", "hf:me/codes", "--json").json["fingerprint"] == encoder.fingerprint
