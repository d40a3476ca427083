"""`csr bench mteb`, and the examples of docs/mteb.md."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.encoder import Encoder

sys.path.insert(0, str(Path(__file__).parent))
from mteb_world import hub_folder

datasets = pytest.importorskip("datasets")


def test_the_command_scores_the_matrix(
    csr: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    hub_folder(Path("nfcorpus"))
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(128, 64)).astype(np.float32)
    latents, inputs = np.zeros(128, np.float32), np.zeros(64, np.float32)
    Encoder(weight=weight, latent_bias=latents, pre_bias=inputs, k=8).save(Path("enc"))
    command = ("bench", "mteb", "NFCorpus", "--local", "nfcorpus", "--embedder", "wordllama:64")
    settings = ("--systems", "exact,csr", "--candidates", 0, "--depth", 10)
    rows = csr(*command, *settings, "--encoder", "enc", "--json").json
    assert [row["system"] for row in rows] == ["dense float32, exact", "CSR k=8", "CSR k=8, u8"]
    assert rows[0]["difference"] is None and rows[1]["difference"]["low"] <= 0
    assert all(Path(row["result"]).is_file() and row["main_score"] > 0 for row in rows)
    assert "against the first system" in csr(*command, *settings, "--encoder", "enc").stdout


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    hub_folder(tmp_path / "nfcorpus")
    text = (Path(__file__).parents[1] / "docs" / "mteb.md").read_text("utf-8")
    readme = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert readme is not None
    (tmp_path / "nfcorpus" / "README.md").write_text(readme[1])
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(128, 64)).astype(np.float32)
    latents, inputs = np.zeros(128, np.float32), np.zeros(64, np.float32)
    encoder = Encoder(weight=weight, latent_bias=latents, pre_bias=inputs, k=32)
    encoder.save(tmp_path / "encoder")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    for said, meant in {
        "sentence-transformers:BAAI/bge-small-en-v1.5": "wordllama:64",  # comes with its package
        "minutes=5": "minutes=0.05",
        'scored = run_mteb("NFCorpus", embedder, systems, Path("mteb-nfcorpus"), tell=print)': (
            "scored = []"  # that one asks the hub
        ),
        "candidates=100": "candidates=20",
        "depth=10": "depth=10, local=Path('nfcorpus')",
    }.items():
        assert said in code
        code = code.replace(said, meant)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/mteb.md", "exec"), names)
    assert [each.system for each in names["scored"]] == [
        "dense float32, exact",
        "int8, rescored",
        "truncated to 16, rescored 20",
        "CSR k=32, queries 16, rescored 20",
    ]
    assert names["difference"].low <= names["difference"].mean <= names["difference"].high
