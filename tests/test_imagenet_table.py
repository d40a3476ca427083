"""The recipe for the authors' embeddings and checkpoints, on a made-up copy of their layout."""

import json
import re
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch
import typer
from torch import Tensor
from typer.testing import CliRunner

from csr_qdrant.benchmarks.imagenet_table import PUBLISHED, main, read_encoders, scored
from csr_qdrant.benchmarks.labelled_task import load_pair
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.integrations.checkpoint import read_checkpoint

D, H = 24, 96


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(H, D, generator=generator) / D**0.5
    return {
        "pre_bias": 0.1 * torch.randn(D, generator=generator),
        "latent_bias": 0.1 * torch.randn(H, generator=generator),
        "stats_last_nonzero": torch.arange(H),
        "encoder.weight": weight,
        "decoder.linear.weight": weight,
    }


def _checkpoint(path: Path, state: dict[str, Tensor], prefix: str = "") -> Path:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(3))])
    state = {prefix + name: value for name, value in state.items()}
    torch.save({"epoch": 10, "state_dict": state, "optimizer": optimizer.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, weights: dict[str, Tensor]) -> Path:
    """Return a folder like the published one: a train set in parts, a validation set, a model."""
    folder = tmp_path_factory.mktemp("published")
    rng = np.random.default_rng(1)
    centres = 0.5 * rng.standard_normal((12, D))
    for name, n in (("train", 700), ("val", 200)):
        labels = rng.permutation(np.arange(n) % 12)
        data = (centres[labels] + 0.5 * rng.standard_normal((n, D))).astype(np.float32)
        (folder / name).mkdir()
        for start in range(0, n, 250):
            end = min(start + 250, n)
            path = folder / name / f"chunk_{start}_{end}.npz"
            np.savez_compressed(path, data=data[start:end], label=labels[start:end])
        np.savez(folder / f"{name}.npz", data=data, label=labels)
    backbone = {"pre_trained_backbone.fc.weight": torch.zeros(5, 5)}
    _checkpoint(folder / "k8.pth", {**weights, **backbone}, prefix="module.")
    return folder


def _evaluated(folder: Path, weights: dict[str, Tensor], k: int) -> float:
    """Return top-1 as the authors' scripts compute it: codes of h floats, FAISS on L2 distances."""
    made: list[tuple[Any, Any]] = []
    for name in ("train", "val"):
        arrays = np.load(folder / f"{name}.npz")
        x = torch.from_numpy(arrays["data"]) - weights["pre_bias"]
        activations = x @ weights["encoder.weight"].T + weights["latent_bias"]
        values, places = activations.topk(k, dim=1)
        codes = torch.zeros_like(activations).scatter_(1, places, values).relu().numpy()
        faiss.normalize_L2(codes)
        made.append((codes, arrays["label"]))
    (gallery, labels), (queries, wanted) = made
    index = faiss.IndexFlatL2(H)
    index.add(gallery)
    _, nearest = index.search(queries, 1)
    return float((labels[nearest[:, 0]] == wanted).mean())


@pytest.mark.parametrize("k", [4, 8])
def test_top1_is_that_of_the_authors_scripts(
    k: int, published: Path, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    data = load_pair(published / "train", published / "val", unpacked=tmp_path)
    (line,) = scored(data, {k: read_checkpoint(published / "k8.pth", k)})
    expected = _evaluated(published, weights, k)
    assert 0.2 < expected < 0.95
    assert line.top1 == pytest.approx(100 * expected, abs=1e-9)
    assert line.low < line.top1 < line.high
    assert (line.active, line.published) == (k, PUBLISHED["CSR"].get(k))


def test_the_command(published: Path, weights: dict[str, Tensor], tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(main)
    read_checkpoint(published / "k8.pth", 8).save(tmp_path / "encoder")
    words = ["--gallery", published / "train.npz", "--queries", published / "val.npz", "--dense"]
    words += ["--encoder", f"8={published / 'k8.pth'}", "--encoder", f"4={tmp_path / 'encoder'}"]
    words += ["--output", tmp_path]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "imagenet.json").read_text("utf-8"))["results"]
    assert (record["gallery"], record["queries"], record["classes"]) == (700, 200, 12)
    by_system = {(line["system"], line["active"]): line for line in record["systems"]}
    for k in (4, 8):
        expected = 100 * _evaluated(published, weights, k)
        assert by_system["CSR", k]["top1"] == pytest.approx(expected, abs=1e-9)
    assert by_system["CSR", 8]["published"] == 67.78
    assert by_system["CSR", 8]["published_mrl"] == 62.19
    assert by_system["CSR", 8]["agrees"] is (
        by_system["CSR", 8]["low"] <= 67.78 <= by_system["CSR", 8]["high"]
    )
    assert by_system["CSR", 4]["agrees"] is None
    assert by_system["dense", D]["published"] == 71.19
    assert "67.78" in result.output and "imagenet.json" in result.output


def test_the_documented_command_runs(published: Path, tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "protocols.md").read_text("utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    (block,) = (each for each in blocks if "imagenet_table" in each)
    words = block.replace("\\\n", " ").split()
    assert words[:3] == ["python", "-m", "csr_qdrant.benchmarks.imagenet_table"]
    places = {"TRAIN.npz": f"{published / 'train.npz'}", "VAL.npz": f"{published / 'val.npz'}"}
    places |= {f"{k}=K{k}.pth": f"{k}={published / 'k8.pth'}" for k in (8, 32)}
    places["WORK"] = f"{tmp_path / 'work'}"
    app = typer.Typer()
    app.command()(main)
    given = [places.get(word, word) for word in words[3:]]
    result = CliRunner().invoke(app, [*given, "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "imagenet.json").read_text("utf-8"))["results"]
    assert [line["active"] for line in record["systems"]] == [8, 32, D]
    assert len(list((tmp_path / "work").iterdir())) == 2


def test_the_command_says_what_is_wrong(published: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(main)
    words = ["--gallery", str(published / "train.npz"), "--queries", str(tmp_path / "none.npz")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2 and "give --encoder K=PATH, or --dense" in result.output
    result = CliRunner().invoke(app, [*words, "--dense"])
    assert result.exit_code == 1 and "none.npz does not exist" in result.output
    assert not list(tmp_path.iterdir())


# --- checkpoints ------------------------------------------------------------------------------


def test_a_checkpoint_is_an_encoder(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    for prefix in ("", "module."):
        encoder = read_checkpoint(_checkpoint(tmp_path / "x.pth", weights, prefix), 8)
        np.testing.assert_array_equal(encoder.weight, weights["encoder.weight"])
        np.testing.assert_array_equal(encoder.latent_bias, weights["latent_bias"])
        np.testing.assert_array_equal(encoder.pre_bias, weights["pre_bias"])
        assert encoder.steps_since_active is not None
        assert encoder.steps_since_active.tolist() == list(range(H))
        assert (encoder.d, encoder.h, encoder.k) == (D, H, 8)
    trainable = {n: w.requires_grad_() if w.is_floating_point() else w for n, w in weights.items()}
    torch.save(trainable, tmp_path / "state.pth")  # the state alone, as it was trained
    assert read_checkpoint(tmp_path / "state.pth", 8).fingerprint == encoder.fingerprint


def test_encoders_by_k(published: Path, tmp_path: Path) -> None:
    first = read_encoders([f"8={published / 'k8.pth'}", f"32={published / 'k8.pth'}"])
    assert {k: encoder.k for k, encoder in first.items()} == {8: 8, 32: 32}
    for wrong in ("k8.pth", "eight=k8.pth", "=k8.pth"):
        with pytest.raises(ConfigError, match="encoders are written K=PATH"):
            read_encoders([wrong])


class _Program:
    def __reduce__(self) -> Any:
        return print, ("this must not run",)


def test_unusable_checkpoints(
    tmp_path: Path, weights: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.pth"
    with pytest.raises(CsrError, match=r"x.pth does not exist"):
        read_checkpoint(path, 8)
    path.write_bytes(b"no tensors")
    with pytest.raises(CsrError, match=r"x.pth cannot be read as tensors alone"):
        read_checkpoint(path, 8)
    torch.save({"state_dict": _Program()}, path)
    with pytest.raises(CsrError, match=r"x.pth cannot be read as tensors alone"):
        read_checkpoint(path, 8)
    assert "must not run" not in capsys.readouterr().out
    torch.save([1, 2], path)
    with pytest.raises(CsrError, match="it holds no state_dict"):
        read_checkpoint(path, 8)
    _checkpoint(path, {"pre_bias": weights["pre_bias"]})
    with pytest.raises(CsrError, match=r"it lacks encoder.weight, latent_bias: name another"):
        read_checkpoint(path, 8)
    _checkpoint(path, {**weights, "decoder.linear.weight": torch.zeros(H, D)})
    with pytest.raises(CsrError, match="has a decoder of its own"):
        read_checkpoint(path, 8)
    _checkpoint(path, {**weights, "latent_bias": torch.full((H,), torch.nan)})
    with pytest.raises(CsrError, match=r"x.pth: the encoder's latent_bias holds NaN"):
        read_checkpoint(path, 8)
    with pytest.raises(ConfigError, match=r"x.pth: k must be in 1..96"):
        read_checkpoint(_checkpoint(path, weights), 97)


def test_vectors_of_another_model_are_refused(published: Path, tmp_path: Path) -> None:
    encoder = Encoder(
        weight=np.ones((4, 3), np.float32),
        latent_bias=np.zeros(4, np.float32),
        pre_bias=np.zeros(3, np.float32),
        k=2,
    )
    data = load_pair(published / "train.npz", published / "val.npz")
    with pytest.raises(CsrError, match=r"takes vectors of shape \(n, 3\), got \(700, 24\)"):
        scored(data, {2: encoder})
