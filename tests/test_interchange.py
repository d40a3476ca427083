"""Encoder folders: sentence-transformers and this package read and write the same ones."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.numpy import load_file, save_file
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder
from tokenizers import Tokenizer, models, pre_tokenizers

from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.trainer import TrainConfig, fit

D, H, K = 24, 96, 6


def vectors(n: int = 200, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)


@pytest.fixture(scope="module")
def trained() -> Encoder:
    config = TrainConfig(k=(3, K), steps=5, h=H, held_out=10)
    return fit(vectors(), config, info={"embedder": "wordllama:64"})


def their_module(normalize: bool = False) -> SparseAutoEncoder:
    """A module of theirs whose biases are not zero."""
    torch.manual_seed(1)
    module = SparseAutoEncoder(D, H, k=K, k_aux=40, normalize=normalize, dead_threshold=7)
    torch.nn.init.normal_(module.pre_bias, std=0.3)
    torch.nn.init.normal_(module.latent_bias, std=0.3)
    module.stats_last_nonzero += torch.arange(H)
    return module


def their_codes(
    module: SparseAutoEncoder, dense: npt.NDArray[np.float32], k: int | None = None
) -> npt.NDArray[np.float32]:
    with torch.inference_mode():
        features = module({"sentence_embedding": torch.from_numpy(dense)}, max_active_dims=k)
    codes: npt.NDArray[np.float32] = features["sentence_embedding"].numpy()
    return codes


def saved(module: SparseAutoEncoder, folder: Path) -> Path:
    folder.mkdir()
    module.save(str(folder))
    return folder


def check_equal(encoder: Encoder, module: SparseAutoEncoder) -> None:
    dense = vectors(50, seed=9) + 0.5
    for device in ("numpy", "cpu"):
        for k in (None, 1, K, 4 * K, H):
            ours = encoder.encode(dense, k, device=device)
            np.testing.assert_allclose(ours.to_dense(), their_codes(module, dense, k), atol=1e-5)


# --- both ways ------------------------------------------------------------------------------------


def check_same_files(ours: Path, theirs: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


def test_ours_loads_there_and_is_to_the_byte_what_they_write(
    trained: Encoder, tmp_path: Path
) -> None:
    trained.save(tmp_path / "ours")
    module = SparseAutoEncoder.load(str(tmp_path / "ours"))
    assert (module.input_dim, module.hidden_dim, module.k) == (D, H, K)
    check_equal(trained, module)
    check_same_files(tmp_path / "ours", saved(module, tmp_path / "theirs"))


@pytest.mark.parametrize("normalize", [False, True])
def test_theirs_loads_here_and_is_written_again_to_the_byte(
    normalize: bool, tmp_path: Path
) -> None:
    module = their_module(normalize)
    encoder = Encoder.load(saved(module, tmp_path / "theirs"))
    assert (encoder.d, encoder.h, encoder.k) == (D, H, K)
    assert (encoder.layer_norm, encoder.k_aux, encoder.dead_threshold) == (normalize, 40, 7)
    assert encoder.info == {} and encoder.embedder is None
    check_equal(encoder, module)
    encoder.save(tmp_path / "ours")
    check_same_files(tmp_path / "ours", tmp_path / "theirs")


def test_both_decode_alike(trained: Encoder, tmp_path: Path) -> None:
    trained.save(tmp_path / "ours")
    module = SparseAutoEncoder.load(str(tmp_path / "ours"))
    codes = trained.encode(vectors(20, seed=3))
    with torch.inference_mode():
        expected = module.decode(torch.from_numpy(codes.to_dense())).numpy()
    np.testing.assert_allclose(trained.decode(codes), expected, atol=1e-5)


def pipeline(module: SparseAutoEncoder) -> SparseEncoder:
    """A whole model of theirs, with word vectors as its backbone."""
    words = {word: number for number, word in enumerate(["[UNK]", *"abcdefghij"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    weights = np.random.default_rng(4).standard_normal((len(words), D)).astype(np.float32)
    backbone = StaticEmbedding(tokenizer, embedding_weights=weights)
    return SparseEncoder(modules=[backbone, module], device="cpu")


def test_a_whole_pipeline_of_theirs_loads_here(tmp_path: Path) -> None:
    model = pipeline(their_module())
    model.save(str(tmp_path / "model"))
    encoder = Encoder.load(tmp_path / "model")
    texts = ["a b c", "j j i", "h", "unknown words"]
    backbone: Any = model[0]
    with torch.inference_mode():
        dense = backbone(backbone.preprocess(texts))["sentence_embedding"].numpy()
    for k in (None, 2, 50):
        theirs = model.encode(texts, max_active_dims=k, convert_to_sparse_tensor=False)
        expected = np.stack([each.numpy() for each in theirs])
        np.testing.assert_allclose(encoder.encode(dense, k).to_dense(), expected, atol=1e-5)


# --- our own part -------------------------------------------------------------------------------


def test_everything_comes_back(trained: Encoder, tmp_path: Path) -> None:
    steps = np.arange(H, dtype=np.int64)
    encoder = replace(trained, k_aux=99, dead_threshold=11, layer_norm=True, k=5)
    encoder = replace(encoder, steps_since_active=steps)
    encoder.save(tmp_path / "encoder")
    loaded = Encoder.load(str(tmp_path / "encoder"))
    for name in ("weight", "latent_bias", "pre_bias", "steps_since_active"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(encoder, name))
    for name in ("k", "layer_norm", "k_aux", "dead_threshold", "fingerprint"):
        assert getattr(loaded, name) == getattr(encoder, name), name
    assert loaded.info == json.loads(json.dumps(encoder.info))
    assert loaded.embedder == "wordllama:64"


def test_half_precision_weights_are_widened(trained: Encoder, tmp_path: Path) -> None:
    trained.save(tmp_path / "half")
    file = tmp_path / "half" / "model.safetensors"
    save_file({name: a.astype(np.float16) for name, a in load_file(file).items()}, file)
    loaded = Encoder.load(tmp_path / "half")
    assert loaded.weight.dtype == np.float32
    np.testing.assert_allclose(loaded.weight, trained.weight, atol=1e-3)


def test_bfloat16_weights_are_widened_exactly(trained: Encoder, tmp_path: Path) -> None:
    trained.save(tmp_path / "half")
    cast(tmp_path / "half", torch.bfloat16, ("decoder.linear.weight", "pre_bias"))
    loaded = Encoder.load(tmp_path / "half")
    expected = torch.from_numpy(trained.weight.copy()).bfloat16().float().numpy()
    np.testing.assert_array_equal(loaded.weight, expected)
    np.testing.assert_array_equal(loaded.latent_bias, trained.latent_bias)
    assert loaded.steps_since_active is not None and loaded.steps_since_active.shape == (H,)


def test_an_existing_folder_is_replaced_only_on_request(trained: Encoder, tmp_path: Path) -> None:
    trained.save(tmp_path / "encoder")
    other = trained.with_k(2)
    with pytest.raises(ConfigError, match="already exists"):
        other.save(tmp_path / "encoder")
    assert Encoder.load(tmp_path / "encoder").k == K
    other.save(tmp_path / "encoder", overwrite=True)
    assert Encoder.load(tmp_path / "encoder").k == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder"]


def test_a_failed_save_leaves_what_was_there(trained: Encoder, tmp_path: Path) -> None:
    trained.save(tmp_path / "encoder")
    unwritable = replace(trained, k=2, info={"not": {"json"}})
    with pytest.raises(TypeError):
        unwritable.save(tmp_path / "encoder", overwrite=True)
    assert Encoder.load(tmp_path / "encoder").k == K
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder"]


# --- what is refused ------------------------------------------------------------------------------


def edited(name: str, **changes: Any) -> Callable[[Path], None]:
    """Return a function that sets keys of a JSON file, or removes those set to None."""

    def edit(folder: Path) -> None:
        value = json.loads((folder / name).read_text()) | changes
        kept = {key: each for key, each in value.items() if each is not None}
        (folder / name).write_text(json.dumps(kept))

    return edit


def tensors(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        arrays = load_file(folder / "model.safetensors")
        change(arrays)
        save_file(arrays, folder / "model.safetensors")

    return edit


def content(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return edit


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def put_nan(arrays: dict[str, Any]) -> None:
    arrays["pre_bias"][3] = np.nan


def as_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"latent_bias": 1}))


def cast(folder: Path, dtype: torch.dtype, names: tuple[str, ...]) -> None:
    from safetensors.torch import load_file as load
    from safetensors.torch import save_file as save

    file = folder / "model.safetensors"
    tensors = load(file)
    save(tensors | {name: tensors[name].to(dtype) for name in names}, file)


def as_float8(folder: Path) -> None:
    cast(folder, torch.float8_e4m3fn, ("pre_bias",))


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "config gone": (remove("config.json"), r"is not an encoder, it lacks config\.json: give"),
    "weights gone": (remove("model.safetensors"), r"is not an encoder, it lacks model\.safet"),
    "pickle": (as_pickle, r"keeps its weights in pytorch_model\.bin, a pickle, which is never"),
    "truncated": (content("model.safetensors", lambda b: b[:-9]), r"safetensors is damaged \("),
    "empty": (content("model.safetensors", lambda b: b""), r"safetensors is damaged \("),
    "no safetensors": (content("model.safetensors", lambda b: b"x" * 99), r"is damaged \("),
    "float8": (as_float8, r"cannot be read, \w+ is F8_E4M3: save its weights as float32"),
    "no JSON": (content("config.json", lambda b: b[:-9]), r"config\.json is damaged \("),
    "no UTF-8": (content("config.json", lambda b: b"\xff"), r"config\.json is damaged \("),
    "deep JSON": (content("config.json", lambda b: b"[" * 10**5), r"config\.json is damaged \("),
    "no object": (content("config.json", lambda b: b"[1]"), "must hold an object"),
    "k lacking": (edited("config.json", k=None), r"is damaged: config\.json lacks 'k'; copy"),
    "k no number": (edited("config.json", k=[1]), "is damaged: int"),
    "k too large": (edited("config.json", k=H + 1), r"k must be in 1\.\.96 .* got 97"),
    "other d": (edited("config.json", input_dim=7), r"says d=7, h=96, but the weights have d=24"),
    "h lacking": (edited("config.json", hidden_dim=None), r"says d=24, h=None, but the weights"),
    "tensor lacking": (tensors(lambda a: a.pop("latent_bias")), r"safetensors lacks 'latent_bias'"),
    "untied": (
        tensors(lambda a: a.update({"encoder.weight": a["decoder.linear.weight"] * 2})),
        r"safetensors holds 'encoder\.weight', unknown for tied weights",
    ),
    "shape": (
        tensors(lambda a: a.update(latent_bias=np.zeros(5, np.float32))),
        r"got shapes \(96, 24\), \(5,\), \(24,\)",
    ),
    "scalar": (
        tensors(lambda a: a.update(pre_bias=np.zeros((), np.float32))),
        r"got shapes \(96, 24\), \(96,\), \(1,\)",
    ),
    "statistics": (
        tensors(lambda a: a.update(stats_last_nonzero=np.zeros(5, np.int64))),
        r"steps_since_active must have shape \(96,\), got \(5,\)",
    ),
    "NaN": (tensors(put_nan), "the encoder's pre_bias holds NaN or infinity"),
    "our JSON": (content("csr.json", lambda b: b[:9]), r"csr\.json is damaged \("),
    "newer": (edited("csr.json", format_version=2), "has format version 2, this release reads 1"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_folders(case: str, trained: Encoder, tmp_path: Path) -> None:
    damage, message = DAMAGE[case]
    trained.save(tmp_path / "encoder")
    damage(tmp_path / "encoder")
    with pytest.raises(CsrError, match=message) as got:
        Encoder.load(tmp_path / "encoder")
    assert str(tmp_path / "encoder") in str(got.value)
    assert "\n" not in str(got.value)
    assert got.value.exit_code == 1


def test_no_folder_and_pipelines_without_codes(tmp_path: Path) -> None:
    with pytest.raises(CsrError, match=r"there is no folder .*nowhere: give the folder that"):
        Encoder.load(tmp_path / "nowhere")
    model = SparseEncoder(
        modules=[pipeline(their_module())[0], Dense(D, H), their_module()], device="cpu"
    )
    model.save(str(tmp_path / "model"))
    modules = tmp_path / "model" / "modules.json"
    described = json.loads(modules.read_text())
    modules.write_text(json.dumps(described[:2]))
    with pytest.raises(CsrError, match="is a pipeline without a SparseAutoEncoder"):
        Encoder.load(tmp_path / "model")
    for outside in ("../elsewhere", "/etc"):
        modules.write_text(json.dumps([{"type": "x.SparseAutoEncoder", "path": outside}]))
        with pytest.raises(CsrError, match=f"names '{outside}', outside of its folder"):
            Encoder.load(tmp_path / "model")
    for damaged in ("{", '{"a": 1}', "[1]", '[{"type": "x.SparseAutoEncoder"}]'):
        modules.write_text(damaged)
        with pytest.raises(CsrError, match=r"modules\.json is damaged \("):
            Encoder.load(tmp_path / "model")
