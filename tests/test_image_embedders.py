"""Embedders of images: timm, open_clip and functions, against hand-made forward passes."""

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from csr_qdrant.embedders import load_embedder, load_image_embedder, torch_model
from csr_qdrant.embedders.torch_model import TorchModel
from csr_qdrant.errors import ConfigError, CsrError, MissingExtraError
from csr_qdrant.images import UndecodableError

TINY_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the weights of a whole `test_vit`, with the classifier of another task."""
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("timm") / "vit.safetensors"
    save_file(timm.create_model("test_vit", num_classes=7).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Teach open_clip a tiny architecture, and save random weights of it."""
    import open_clip  # type: ignore[import-untyped]

    folder = tmp_path_factory.mktemp("open_clip")
    (folder / "tiny-clip.json").write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    torch.save(open_clip.create_model("tiny-clip").state_dict(), folder / "tiny.pt")
    return folder / "tiny.pt"


@pytest.fixture(autouse=True)
def quiet_root_logger() -> Iterator[None]:
    """Undo what open_clip does to the root logger."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def pictures(n: int = 5) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = [(40 + 7 * i, 60 - 5 * i) for i in range(n)]
    return [Image.fromarray(rng.integers(0, 256, (*s, 3)).astype(np.uint8)) for s in sizes]


def normalised(vectors: torch.Tensor) -> npt.NDArray[np.float32]:
    array = vectors.numpy()
    return np.asarray(array / np.linalg.norm(array, axis=1, keepdims=True))


# --- timm -------------------------------------------------------------------------------------


def test_timm_gives_the_features_before_the_classifier(vit: Path) -> None:
    import timm
    from safetensors.torch import load_file

    model: Any = timm.create_model("test_vit", num_classes=7)
    model.load_state_dict(load_file(vit))
    data: Any = timm.data
    transform = data.create_transform(**data.resolve_model_data_config(model), is_training=False)
    with torch.no_grad():
        batch = torch.stack([transform(each) for each in pictures()])
        expected = model.eval().forward_head(model.forward_features(batch), pre_logits=True)
    embedder = load_image_embedder(f"timm:test_vit@{vit}", "cpu")
    assert (embedder.uri, embedder.dimension) == (f"timm:test_vit@{vit}", 64)
    vectors = embedder.embed_images(pictures())
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, normalised(expected), atol=2e-6)


def test_batches_and_forms_of_images_make_no_difference(
    vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = load_image_embedder(f"timm:test_vit@{vit}", "cpu")
    whole = embedder.embed_images(pictures())
    files = [tmp_path / f"{i}.png" for i in range(5)]
    for file, picture in zip(files, pictures(), strict=True):
        picture.save(file)
    monkeypatch.setattr(torch_model, "IMAGE_BATCH", 2)
    np.testing.assert_allclose(embedder.embed_images(files), whole, atol=2e-6)
    contents = [file.read_bytes() for file in files]
    np.testing.assert_allclose(embedder.embed_images(contents), whole, atol=2e-6)
    assert embedder.embed_images([]).shape == (0, 64)
    with pytest.raises(UndecodableError):
        embedder.embed_images([b"no picture"])


def test_timm_loads_pretrained_weights_unless_a_checkpoint_is_named(
    vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm

    create, asked = timm.create_model, []

    def creating(name: str, **options: Any) -> Any:
        asked.append((name, options))
        return create(name, **options | {"pretrained": False})

    monkeypatch.setattr(timm, "create_model", creating)
    embedder = load_image_embedder("timm:test_vit", "cpu")
    load_image_embedder(f"timm:test_vit@{vit}", "cpu")
    assert asked == [
        ("test_vit", {"pretrained": True, "num_classes": 0}),
        ("test_vit", {"pretrained": False, "num_classes": 0}),
    ]
    assert (embedder.uri, embedder.dimension) == ("timm:test_vit", 64)


def test_the_dimension_is_that_of_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    create = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, **o: create(name, **o | {"pretrained": False})
    )
    # Its head widens the 64 features that `num_features` counts.
    embedder = load_image_embedder("timm:test_mambaout", "cpu")
    assert embedder.dimension == 256
    assert embedder.embed_images(pictures(1)).shape == (1, 256)


def test_timm_knows_no_texts(vit: Path) -> None:
    embedder = load_embedder(f"timm:test_vit@{vit}", "cpu")
    for embed in (embedder.embed_documents, embedder.embed_queries):
        with pytest.raises(ConfigError, match=r"embeds images only, got texts: choose"):
            embed(["a"])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "timm needs a model: write timm:NAME"),
        ("no_such_model", r"timm:no_such_model cannot be loaded \(Unknown model"),
        ("test_vit", "timm:test_vit cannot be loaded .* be online for weights of the hub"),
        ("test_vit@/nowhere.pt", "checkpoint /nowhere.pt does not exist"),
        ("test_resnet@{vit}", r"cannot be loaded \(Error.* for ResNet: Missing key"),
        ("test_vit@{text}", "other things than tensors, which are never loaded"),
        ("test_vit@{pickle}", "other things than tensors, which are never loaded"),
    ],
)
def test_timm_models_that_cannot_be_loaded_are_one_sentence(
    name: str, sentence: str, vit: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.pt").write_text("no weights")
    torch.save({"model": Path("an object")}, tmp_path / "pickle.pt")
    places = {"vit": vit, "text": tmp_path / "text.pt", "pickle": tmp_path / "pickle.pt"}
    with pytest.raises(CsrError, match=sentence) as caught:
        load_image_embedder(f"timm:{name.format(**places)}", "cpu")
    assert "\n" not in str(caught.value)


# --- open_clip --------------------------------------------------------------------------------


def test_both_towers_of_open_clip_are_its_own(clip: Path) -> None:
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms("tiny-clip", str(clip))
    model.eval()
    texts = ["a red car", "two dogs " * 20, ""]
    with torch.no_grad():
        images = model.encode_image(torch.stack([transform(each) for each in pictures()]))
        expected_texts = model.encode_text(open_clip.get_tokenizer("tiny-clip")(texts))
    uri = f"open_clip:tiny-clip/{clip}"
    embedder: Any = load_embedder(uri, "cpu")
    assert (embedder.uri, embedder.dimension) == (uri, 24)
    np.testing.assert_allclose(embedder.embed_images(pictures()), normalised(images), atol=2e-6)
    for embed in (embedder.embed_documents, embedder.embed_queries):
        np.testing.assert_allclose(embed(texts), normalised(expected_texts), atol=2e-6)
        assert embed([]).shape == (0, 24)
    assert load_image_embedder(uri, "cpu").dimension == 24
    with pytest.raises(ConfigError, match="got one text: put it into a list"):
        embedder.embed_queries("a")


def test_many_texts_are_embedded_in_batches(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from csr_qdrant.embedders import open_clip_model

    embedder = load_embedder(f"open_clip:tiny-clip/{clip}", "cpu")
    texts = [f"picture number {i}" for i in range(7)]
    whole = embedder.embed_documents(texts)
    monkeypatch.setattr(open_clip_model, "TEXT_BATCH", 3)
    np.testing.assert_allclose(embedder.embed_documents(texts), whole, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "open_clip needs a model and its weights, got 'open_clip:'"),
        ("tiny-clip", "open_clip needs a model and its weights, got 'open_clip:tiny-clip'"),
        ("tiny-clip/", "needs a model and its weights"),
        ("/x", "needs a model and its weights"),
        ("no-such/openai", "open_clip:no-such/openai cannot be loaded"),
        ("tiny-clip/no-tag", "open_clip:tiny-clip/no-tag cannot be loaded"),
        ("tiny-clip//nowhere/x.pt", "open_clip:tiny-clip//nowhere/x.pt cannot be loaded"),
        ("local-dir:/nowhere", "open_clip:local-dir:/nowhere cannot be loaded"),
    ],
)
def test_open_clip_models_that_cannot_be_loaded_are_one_sentence(
    name: str, sentence: str, clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(CsrError, match=sentence) as caught:
        load_embedder(f"open_clip:{name}", "cpu")
    assert "\n" not in str(caught.value)
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


def test_a_checkpoint_with_objects_is_not_loaded(clip: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": Path("an object")}, tmp_path / "pickle.pt")
    with pytest.raises(CsrError, match="other things than tensors, which are never loaded"):
        load_embedder(f"open_clip:tiny-clip/{tmp_path / 'pickle.pt'}", "cpu")


# --- devices and precision --------------------------------------------------------------------


def test_a_device_that_is_not_there_is_refused(vit: Path, clip: Path) -> None:
    for uri in (f"timm:test_vit@{vit}", f"open_clip:tiny-clip/{clip}"):
        with pytest.raises(ConfigError, match="device 'cuda:77' cannot be used"):
            load_embedder(uri, "cuda:77")


def test_what_overflows_in_half_precision_is_computed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner = TorchModel("mine", torch.device("cpu"))
    asked: list[bool] = []

    def run(forward: Any, batch: torch.Tensor, *, half: bool) -> torch.Tensor:
        asked.append(half)
        return (batch.half() if half else batch).float()

    monkeypatch.setattr(runner, "_run", run)
    monkeypatch.setattr(runner, "_half", True)
    small, large = torch.tensor([[3.0, 4.0]]), torch.tensor([[3e5, 4e5]])
    np.testing.assert_allclose(runner.vectors(None, small), [[0.6, 0.8]], atol=1e-6)  # type: ignore[arg-type]
    assert asked == [True]
    np.testing.assert_allclose(runner.vectors(None, large), [[0.6, 0.8]], atol=1e-6)  # type: ignore[arg-type]
    assert asked == [True, True, False]


def test_a_full_device_is_one_sentence() -> None:
    def forward(batch: torch.Tensor) -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(CsrError, match="mine runs out of memory on cpu with 3 inputs at once"):
        TorchModel("mine", torch.device("cpu")).vectors(forward, torch.zeros(3, 2))


def test_half_precision_gives_the_same_directions(
    vit: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for uri in (f"timm:test_vit@{vit}", f"open_clip:tiny-clip/{clip}"):
        embedder: Any = load_image_embedder(uri, "cpu")
        exact = embedder.embed_images(pictures())
        monkeypatch.setattr(embedder._runner, "_half", True)
        half = embedder.embed_images(pictures())
        assert half.dtype == np.float32
        assert not np.array_equal(half, exact)
        np.testing.assert_allclose((exact * half).sum(1), 1, atol=1e-4)


@pytest.mark.gpu
def test_on_cuda_vectors_are_those_of_the_cpu_but_for_rounding(vit: Path, clip: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    for uri in (f"timm:test_vit@{vit}", f"open_clip:tiny-clip/{clip}"):
        exact = load_image_embedder(uri, "cpu").embed_images(pictures())
        half = load_image_embedder(uri, "cuda").embed_images(pictures())
        np.testing.assert_allclose((exact * half).sum(1), 1, atol=1e-4)


# --- functions --------------------------------------------------------------------------------


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a module of functions where Python finds it."""
    (tmp_path / "my_functions.py").write_text(
        "import numpy as np\n"
        "calls = []\n"
        "def lengths(texts):\n"
        "    calls.append(len(texts))\n"
        "    return [[len(text), 1, 0] for text in texts]\n"
        "def known(texts): return lengths(texts)\n"
        "known.dimension = 3\n"
        "def means(images):\n"
        "    return np.stack([np.asarray(image).mean(axis=(0, 1)) for image in images])\n"
        "def one(texts): return [1.0, 2.0]\n"
        "class Model:\n"
        "    @staticmethod\n"
        "    def embed(texts): return lengths(texts)\n"
        "number = 3\n"
    )
    (tmp_path / "broken_module.py").write_text("raise RuntimeError('not today')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_functions", raising=False)


def test_a_function_of_texts_is_an_embedder(functions: None) -> None:
    embedder = load_embedder("python:my_functions:lengths", own_code=True)
    assert embedder.uri == "python:my_functions:lengths"
    assert embedder.embed_documents(["ab", "c"]).tolist() == [[2, 1, 0], [1, 1, 0]]
    assert embedder.embed_queries(["abc"]).dtype == np.float32
    assert embedder.dimension == 3
    assert sys.modules["my_functions"].calls == [2, 1]  # no sample was needed
    assert load_embedder("python:my_functions:Model.embed", own_code=True).dimension == 3


def test_an_attribute_tells_the_dimension(functions: None) -> None:
    embedder = load_embedder("python:my_functions:known", own_code=True)
    assert embedder.embed_documents([]).shape == (0, 3)
    assert sys.modules["my_functions"].calls == []


def test_a_function_of_images_is_an_embedder(functions: None) -> None:
    embedder = load_image_embedder("python:my_functions:means", own_code=True)
    assert embedder.dimension == 3  # found with an image, since a text fails
    expected = [np.asarray(each).mean(axis=(0, 1)) for each in pictures()]
    np.testing.assert_allclose(embedder.embed_images(pictures()), expected, rtol=1e-6)
    assert embedder.embed_images([]).shape == (0, 3)


def test_code_runs_only_where_the_user_names_it() -> None:
    for load in (load_embedder, load_image_embedder):
        with pytest.raises(ConfigError, match="runs code of this machine"):
            load("python:os:system")


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("my_functions", "python needs a module and a function, got 'python:my_functions'"),
        ("my_functions:", "needs a module and a function"),
        ("no_such_module:f", "cannot be imported .ModuleNotFoundError"),
        ("broken_module:f", "cannot be imported .RuntimeError: not today"),
        ("my_functions:nothing", "cannot be imported .AttributeError"),
        ("my_functions:number", "is no function but int"),
    ],
)
def test_places_without_a_function_are_refused(functions: None, place: str, sentence: str) -> None:
    with pytest.raises(CsrError, match=sentence):
        load_embedder(f"python:{place}", own_code=True)


def test_functions_that_give_no_matrix_are_refused(functions: None) -> None:
    embedder = load_embedder("python:my_functions:one", own_code=True)
    with pytest.raises(CsrError, match=r"one vector for each of its 2 inputs.*shape \(2,\)"):
        embedder.embed_documents(["a", "b"])
    with pytest.raises(CsrError, match=r"one vector for each of its 1 inputs"):
        _ = embedder.dimension


# --- all of them ------------------------------------------------------------------------------


@pytest.mark.parametrize("uri", ["wordllama", "wordllama:64", "sentence-transformers:x?dims=3"])
def test_embedders_of_texts_take_no_images(uri: str) -> None:
    with pytest.raises(ConfigError, match="embeds texts only, got images: choose one of timm:NAME"):
        load_image_embedder(uri)


@pytest.mark.parametrize(
    ("uri", "module", "extra"),
    [("timm:x", "timm", "image"), ("open_clip:x/y", "open_clip", "multimodal")],
)
def test_missing_packages_name_the_extra(
    uri: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'csr-qdrant\[{extra}\]'"):
        load_image_embedder(uri)
