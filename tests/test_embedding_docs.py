"""docs/embedding.md: its commands and its Python run, on tiny models instead of real ones."""

import io
import json
import re
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Csr = Callable[..., Any]

DOCUMENT = (Path(__file__).parents[1] / "docs" / "embedding.md").read_text("utf-8")
CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def code(language: str, containing: str) -> str:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    text = next(block for block in blocks if containing in block)
    text = text.replace("vit_base_patch16_224.augreg_in21k", "test_vit@vit.safetensors")
    return text.replace("ViT-B-32/laion2b_s34b_b79k", "documented/clip.pt")


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 10 + number), (9 * number, 200 - number, number)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def models(csr: Csr, monkeypatch: pytest.MonkeyPatch) -> Csr:
    """Write images, shards and weights of tiny models to the current folder."""
    import open_clip  # type: ignore[import-untyped]
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(timm.create_model("test_vit").state_dict(), "vit.safetensors")
    Path("documented.json").write_text(json.dumps(CLIP))
    open_clip.add_model_config(Path("documented.json"))
    torch.save(open_clip.create_model("documented").state_dict(), "clip.pt")
    for number in range(24):
        file = Path("photos", "cat" if number < 12 else "dog", f"{number:02}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(number))
    Path("shards").mkdir()
    with tarfile.open("shards/0.tar", "w") as tar:
        for number in range(24):
            caption = f"picture number {number}".encode()
            for ending, content in (("png", png(number)), ("txt", caption)):
                info = tarfile.TarInfo(f"{number:02}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    monkeypatch.setattr(sys, "path", sys.path[:])
    return csr


def run(csr: Csr, commands: str) -> list[Any]:
    """Run each line, trainings in a few steps; return what each told."""
    told = []
    for command in commands.strip().splitlines():
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', command)][1:]
        if words[0] == "train":
            words += ["--steps", "2", "--h", "32", "--k", "4", "--held-out", "4"]
            words += ["--adapter-steps", "2"]
        ran = csr(*words, "--json")
        assert ran.exit_code == 0, f"{command}: {ran.stderr}"
        told.append(json.loads(ran.stdout))
    return told


def test_the_commands_for_images_run(models: Csr) -> None:
    embedded, trained, _ = run(models, code("sh", "photos-by-code"))
    assert (embedded["rows"], trained["data"]["labels"]) == (24, 24)
    assert Path("photos-by-code").is_dir()


def test_the_commands_for_images_and_texts_run(models: Csr) -> None:
    images, captions, trained, _, found = run(models, code("sh", "gallery"))
    assert images["rows"] == captions["rows"] == trained["data"]["pairs"] == 24
    assert len(found["hits"]) == 10
    assert found["hits"][0]["payload"]["caption"].startswith("picture number")


def test_the_python_runs(models: Csr, capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, Any] = {}
    exec(compile(code("python", "RowEmbedder"), "embedding.md", "exec"), found)
    assert found["vectors"].shape == (12, 64)
    assert capsys.readouterr().out.startswith("(24, 64) ['cat', 'cat'")
    assert found["queries"].shape == (1, 24)


def test_the_function_embeds(models: Csr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colours", raising=False)
    Path("colours.py").write_text(code("python", "# colours.py"))
    assert run(models, code("sh", "python:colours"))[0]["rows"] == 24
    np.testing.assert_allclose(np.load("colours.npy")[3], [27, 197, 3])
