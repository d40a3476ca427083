"""Whole pipelines of sentence-transformers, both ways, with a tiny transformer made here."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from csr_qdrant.collection import Collection
from csr_qdrant.embedders import load_embedder
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.integrations.sentence_transformers import (
    SparseEncoderBackbone,
    export_pipeline,
    import_pipeline,
)

D, H, K = 16, 64, 5
TEXTS = ["a red wine", "the king", "a ship on the sea", "bread", "the red king on a ship"]
PROMPTS = {"query": "the sea ", "document": "", "short": "a "}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a BERT of one layer with random weights, and prompts."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(" ".join(TEXTS).split()))]
    (folder / "vocab.txt").write_text("\n".join(words))
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=D,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    bert: Any = BertModel(config)
    bert.save_pretrained(folder / "bert")
    shutil.copy(folder / "vocab.txt", folder / "bert")
    AutoTokenizer.from_pretrained(folder / "bert").save_pretrained(folder / "bert")
    transformer: Any = Transformer(str(folder / "bert"))
    model = SentenceTransformer(modules=[transformer, Pooling(D)], prompts=PROMPTS, device="cpu")
    model.save(str(folder / "backbone"), create_model_card=False)
    return folder / "backbone"


def encoder_of(d: int = D, uri: str | None = None) -> Encoder:
    rng = np.random.default_rng(3)
    return Encoder(
        weight=rng.normal(size=(H, d)).astype(np.float32),
        latent_bias=(0.1 * rng.normal(size=H)).astype(np.float32),
        pre_bias=(0.2 * rng.normal(size=d)).astype(np.float32),
        k=K,
        info={"embedder": uri, "validations": [{"step": 1, "dead": 0.0, "at": []}]},
    )


def their_codes(model: SparseEncoder, texts: list[str], kind: str) -> npt.NDArray[np.float32]:
    encode = getattr(model, f"encode_{kind}")
    return np.stack([each.numpy() for each in encode(texts, convert_to_sparse_tensor=False)])


@pytest.mark.parametrize("options", ["", "?dims=11", "?prompt=short", "?dims=9&prompt=short"])
def test_an_exported_pipeline_gives_equal_codes(
    options: str, backbone: Path, tmp_path: Path
) -> None:
    uri = f"sentence-transformers:{backbone}{options}"
    embedder = load_embedder(uri, "cpu")
    encoder = encoder_of(embedder.dimension, uri)
    export_pipeline(encoder, tmp_path / "pipeline", device="cpu")
    model = SparseEncoder(str(tmp_path / "pipeline"), device="cpu")
    assert model.similarity_fn_name == "cosine"
    for kind, embed in (
        ("document", embedder.embed_documents),
        ("query", embedder.embed_queries),
    ):
        ours = encoder.encode(embed(TEXTS)).to_dense()
        np.testing.assert_allclose(their_codes(model, TEXTS, kind), ours, atol=1e-5)
        assert (np.count_nonzero(ours, axis=1) > 0).all()


def test_what_was_exported_comes_back(backbone: Path, tmp_path: Path) -> None:
    encoder = encoder_of()
    export_pipeline(encoder, tmp_path / "pipeline", f"sentence-transformers:{backbone}")
    loaded = import_pipeline(tmp_path / "pipeline")
    assert (loaded.fingerprint, loaded.k) == (encoder.fingerprint, K)
    assert loaded.info["validations"] == encoder.info["validations"]
    assert loaded.embedder == f"sparse-encoder:{tmp_path / 'pipeline'}"
    embedder = load_embedder(loaded.embedder, "cpu")
    assert (embedder.uri, embedder.dimension) == (loaded.embedder, D)
    expected = load_embedder(f"sentence-transformers:{backbone}", "cpu")
    for name in ("embed_documents", "embed_queries"):
        got, wanted = getattr(embedder, name)(TEXTS), getattr(expected, name)(TEXTS)
        np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert embedder.embed_queries([]).shape == (0, D)


def test_a_foreign_pipeline_whose_vectors_are_not_normalised(
    backbone: Path, tmp_path: Path
) -> None:
    encoder_of().save(tmp_path / "module")
    module = _module(tmp_path / "module")
    dense = SentenceTransformer(str(backbone), device="cpu")
    theirs = SparseEncoder(modules=[*dense, module], prompts=PROMPTS, device="cpu")
    theirs.save(str(tmp_path / "theirs"), create_model_card=False)
    encoder = import_pipeline(tmp_path / "theirs")
    embedder = SparseEncoderBackbone(str(tmp_path / "theirs"), "cpu")
    vectors = embedder.embed_queries(TEXTS)
    assert not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=0.1)
    expected = their_codes(theirs, TEXTS, "query")
    np.testing.assert_allclose(encoder.encode(vectors).to_dense(), expected, atol=1e-5)
    export_pipeline(encoder, tmp_path / "again", device="cpu")  # and nothing is normalised there
    again = SparseEncoder(str(tmp_path / "again"), device="cpu")
    np.testing.assert_allclose(their_codes(again, TEXTS, "query"), expected, atol=1e-5)


def test_a_collection_of_an_imported_pipeline_is_searched_by_text(
    backbone: Path, tmp_path: Path
) -> None:
    export_pipeline(encoder_of(), tmp_path / "pipeline", f"sentence-transformers:{backbone}")
    encoder = import_pipeline(tmp_path / "pipeline")
    with Collection.create(tmp_path / "docs", encoder) as docs:
        docs.add(range(len(TEXTS)), texts=TEXTS)
        code = encoder.encode(docs.embedder.embed_documents(TEXTS[3:4])).normalised()
        best = docs.search(code, limit=1)[0]
    assert best.id == 3 and best.score == pytest.approx(1, abs=1e-5)
    with Collection.open(tmp_path / "docs") as docs:
        assert docs.search("the king", limit=2)[0].score > 0


def test_a_model_in_memory_is_a_backbone(backbone: Path, tmp_path: Path) -> None:
    dense = SentenceTransformer(str(backbone), device="cpu")
    export_pipeline(encoder_of(), tmp_path / "pipeline", dense)
    assert len(dense) == 2
    modules = json.loads((tmp_path / "pipeline" / "modules.json").read_text())
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    assert kinds == ["Transformer", "Pooling", "Normalize", "SparseAutoEncoder"]
    assert import_pipeline(tmp_path / "pipeline").fingerprint == encoder_of().fingerprint


def test_what_cannot_be_exported_is_refused(backbone: Path, tmp_path: Path) -> None:
    place = tmp_path / "pipeline"
    with pytest.raises(ConfigError, match="remembers no embedder: pass the backbone"):
        export_pipeline(encoder_of(), place)
    with pytest.raises(ConfigError, match="wordllama:64 is no model of sentence-transformers"):
        export_pipeline(encoder_of(uri="wordllama:64"), place)
    with pytest.raises(CsrError, match="takes vectors of 12 dimensions, the backbone makes 16"):
        export_pipeline(encoder_of(12, f"sentence-transformers:{backbone}"), place)
    assert not place.exists()
    place.mkdir()
    with pytest.raises(ConfigError, match="already exists"):
        export_pipeline(encoder_of(), place, f"sentence-transformers:{backbone}")
    assert not list(place.iterdir())


def test_what_is_no_pipeline_of_codes_is_refused(backbone: Path, tmp_path: Path) -> None:
    encoder_of().save(tmp_path / "encoder")
    with pytest.raises(CsrError, match="is an encoder without a backbone"):
        import_pipeline(tmp_path / "encoder")
    with pytest.raises(CsrError, match="is a pipeline without a SparseAutoEncoder"):
        import_pipeline(backbone)
    with pytest.raises(CsrError, match=r"sparse-encoder cannot load '/nowhere/model' \("):
        load_embedder("sparse-encoder:/nowhere/model")
    with pytest.raises(ConfigError, match="needs a model"):
        load_embedder("sparse-encoder:")
    with pytest.raises(CsrError, match="without a SparseAutoEncoder"):
        load_embedder(f"sparse-encoder:{backbone}", "cpu")


def _module(folder: Path) -> Any:
    from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder

    return SparseAutoEncoder.load(str(folder))


def test_replacing_a_pipeline_needs_permission(backbone: Path, tmp_path: Path) -> None:
    uri = f"sentence-transformers:{backbone}"
    export_pipeline(encoder_of(), tmp_path / "pipeline", uri)
    export_pipeline(replace(encoder_of(), k=2), tmp_path / "pipeline", uri, overwrite=True)
    assert import_pipeline(tmp_path / "pipeline").k == 2
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline"]


def test_an_open_model_is_exported_as_it_is(backbone: Path, tmp_path: Path) -> None:
    dense = SentenceTransformer(str(backbone), device="cpu", truncate_dim=9)
    export_pipeline(encoder_of(9), tmp_path / "pipeline", dense)
    model = SparseEncoder(str(tmp_path / "pipeline"), device="cpu")
    vectors = dense.encode_query(TEXTS, normalize_embeddings=True)
    expected = encoder_of(9).encode(vectors).to_dense()
    np.testing.assert_allclose(their_codes(model, TEXTS, "query"), expected, atol=1e-5)
    assert dense.truncate_dim == 9
    for other in (backbone, [dense], load_embedder(f"sentence-transformers:{backbone}", "cpu")):
        with pytest.raises(ConfigError, match="backbone must be a SentenceTransformer or the URI"):
            export_pipeline(encoder_of(), tmp_path / "other", other)
    assert not (tmp_path / "other").exists()
