"""docs/explain.md and docs/integrations-models.md: their commands and their Python run."""

import json
import logging
import re
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.collection import Collection
from csr_qdrant.encoder import Encoder

sys.path.insert(0, str(Path(__file__).parent))
from hub_stub import connected

Csr = Callable[..., Any]

DOCS = Path(__file__).parents[1] / "docs"
WORDS = ["?", "the", "a", "king", "and", "his", "crown", "ship", "on", "sea"]
D = 16


def code(page: str, language: str, containing: str) -> str:
    text = (DOCS / page).read_text("utf-8")
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return next(block for block in blocks if containing in block)


def executed(page: str, containing: str, **replaced: str) -> dict[str, Any]:
    """Run the example that contains a text, with other texts replaced; return its names."""
    example = code(page, "python", containing)
    for old, new in replaced.items():
        old = {"model": "all-MiniLM-L6-v2", "shared": "/shared/encoder"}[old]
        assert old in example
        example = example.replace(old, new)
    names: dict[str, Any] = {}
    exec(compile(example, page, "exec"), names)
    return names


def encoder_of(d: int = D, **info: Any) -> Encoder:
    return Encoder(
        weight=np.random.default_rng(2).normal(size=(64, d)).astype(np.float32),
        latent_bias=np.zeros(64, np.float32),
        pre_bias=np.zeros(d, np.float32),
        k=6,
        info=info,
    )


@pytest.fixture
def tiny(csr: Csr, tmp_path: Path) -> Csr:
    """Write a model of word vectors, an encoder of them, and vectors."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(len(WORDS), D)).astype(np.float32)
    module = StaticEmbedding(tokenizer, embedding_weights=weights)
    SentenceTransformer(modules=[module], device="cpu").save("model", create_model_card=False)
    encoder_of().save("encoder")
    np.save("vectors.npy", rng.normal(size=(30, D)).astype(np.float32))
    return csr


def run(csr: Csr, commands: str) -> list[Any]:
    told = []
    for command in commands.strip().splitlines():
        ran = csr(*shlex.split(command)[1:], "--json")
        assert ran.exit_code == 0, f"{command}: {ran.stderr}"
        told.append(json.loads(ran.stdout))
    return told


def test_a_pipeline_goes_out_and_comes_back(tiny: Csr) -> None:
    page = "integrations-models.md"
    model = f"{Path.cwd()}/model"
    encoder = executed(page, "export_pipeline(encoder", model=model)["encoder"]
    theirs = executed(page, "model.encode_document")["codes"]
    names = executed(page, "import_pipeline(")
    assert names["encoder"].fingerprint == encoder.fingerprint
    assert names["encoder"].embedder == f"sparse-encoder:{Path.cwd()}/pipeline"
    assert names["hits"][0].id == 1
    texts = ["the king and his crown", "a ship on the sea"]
    with Collection.open("docs") as docs:
        ours = encoder.encode(docs.embedder.embed_documents(texts))
    np.testing.assert_allclose(theirs.to_dense().numpy(), ours.to_dense(), atol=1e-5)


def test_a_checkpoint_becomes_an_encoder(tiny: Csr) -> None:
    import torch

    encoder = encoder_of()
    state = {"encoder.weight": encoder.weight, "latent_bias": encoder.latent_bias}
    state["pre_bias"] = encoder.pre_bias
    tensors = {name: torch.from_numpy(array.copy()) for name, array in state.items()}
    torch.save({"epoch": 10, "state_dict": tensors}, "checkpoint.pth")
    executed("integrations-models.md", "read_checkpoint")
    assert Encoder.load("encoder-8").fingerprint == encoder.fingerprint
    assert Encoder.load("encoder-8").k == 8


def test_the_hub(tiny: Csr, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = "integrations-models.md"
    with connected(monkeypatch, tmp_path / "cache") as hub:
        planned, pushed = run(tiny, code(page, "sh", "csr push"))
        assert planned["url"] is None and pushed["url"].startswith(hub.url)
        assert hub.private == {"me/my-codes": True}
        assert run(tiny, code(page, "sh", "hf:me/my-codes"))[0]["rows"] == 30
        names = executed(page, "push_to_hub")
        assert names["encoder"].fingerprint == encoder_of().fingerprint
        assert set(hub.repos) == {"me/my-codes", "me/other-codes"}


@pytest.mark.slow
def test_ray(tiny: Csr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import ray
    from qdrant_client import QdrantClient

    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    vectors = np.load("vectors.npy")
    Path("vectors").mkdir()
    table = pa.table({"id": range(30), "vector": vectors.tolist()})
    pq.write_table(table, "vectors/0.parquet")
    place = str(tmp_path / "qdrant")
    client = QdrantClient(path=place)
    Collection.create_on(client, "docs", encoder_of())
    client.close()
    example = code("integrations-models.md", "python", "CsrEncode")
    example = example.replace("/shared/encoder", str(tmp_path / "encoder"))
    names: dict[str, Any] = {"connect": partial(QdrantClient, path=place)}
    example = example.replace('"url": "https://qdrant.example:6333"', '"connect": connect')
    ray.init(
        num_cpus=3,  # as the page says; with fewer, Ray waits for ever
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    try:
        exec(compile(example, "integrations-models.md", "exec"), names)
    finally:
        ray.shutdown()
    assert names["written"] == 30
    client = QdrantClient(path=place)
    assert len(Collection.open_on(client, "docs", encoder_of())) == 30
    client.close()


# --- explain.md -----------------------------------------------------------------------------------


@pytest.fixture
def collection(csr: Csr) -> Csr:
    """Make the collection `docs`, which knows its embedder."""
    texts = [f"the king of {a} and his {b}" for a in ("sea", "red") for b in ("crown", "ship")]
    texts += [f"a ship {each} the sea" for each in ("on", "under", "over", "by")] * 4
    with Collection.create("docs", encoder_of(64, embedder="wordllama:64")) as docs:
        docs.add(range(len(texts)), texts=texts, payloads=[{"text": text} for text in texts])
    return csr


def test_hits_are_explained(collection: Csr) -> None:
    best, row = run(collection, code("explain.md", "sh", "csr explain"))
    assert [len(best["hits"]), row["hits"][0]["id"]] == [2, 17]
    for hit in best["hits"]:
        assert sum(each["contribution"] for each in hit["latents"]) == pytest.approx(hit["score"])
    (told,) = run(collection, code("explain.md", "sh", "csr latents").splitlines()[0])
    assert (told["points"], told["complete"]) == (20, True)


def test_the_python_explains(collection: Csr, capsys: pytest.CaptureFixture[str]) -> None:
    names = executed("explain.md", "latent_usage")
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(names["best"].latents) + 5
    assert printed[0].startswith(f"{names['best'].latents[0].latent} ")
