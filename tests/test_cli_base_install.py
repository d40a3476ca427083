"""What the base install can do: index and query ready vectors, in a process where torch is not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.encoder import Encoder

BLOCK = """
import sys
from importlib.abc import MetaPathFinder

class NoExtras(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        extras = ("torch", "transformers", "sentence_transformers", "wordllama", "pyarrow",
                  "tensorboard", "scipy")
        if name.partition(".")[0] in extras:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoExtras())
from csr_qdrant.cli.main import main
main()
"""


def run(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCK, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=check,
    )


def test_index_query_info_and_embed_need_no_extra(tmp_path: Path, tiny_encoder: Encoder) -> None:
    # More rows than numpy answers without looking for torch.
    x = np.random.default_rng(1).normal(size=(5000, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "q.npy", x[:2])
    tiny_encoder.save(tmp_path / "enc")
    told: Any = json.loads(
        run(tmp_path, "index", "x.npy", "col", "--encoder", "enc", "--json").stdout
    )
    assert told["points"] == 5000
    found = run(tmp_path, "query", "col", "--vectors", "q.npy", "-n", "1", "--json").stdout
    assert [json.loads(line)["hits"][0]["id"] for line in found.splitlines()] == [0, 1]
    assert json.loads(run(tmp_path, "info", "col", "--json").stdout)["points"] == 5000
    run(tmp_path, "embed", "x.npy", "-o", "c.safetensors", "--encoder", "enc")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("train", "x.npy", "-o", "new"),
            "torch is not installed: run `pip install 'csr-qdrant[train]'`",
        ),
        (
            ("embed", "t.jsonl", "-o", "t.npy", "--embedder", "wordllama"),
            "wordllama is not installed",
        ),
        (("index", "x.parquet", "col", "--encoder", "enc"), "pyarrow is not installed"),
    ],
)
def test_a_missing_extra_is_one_sentence(
    tmp_path: Path, tiny_encoder: Encoder, arguments: tuple[str, ...], sentence: str
) -> None:
    np.save(tmp_path / "x.npy", np.ones((20, 8), np.float32))
    (tmp_path / "t.jsonl").write_text('{"id": 1, "text": "a"}\n')
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    tiny_encoder.save(tmp_path / "enc")
    before = sorted(tmp_path.iterdir())
    ran = run(tmp_path, *arguments, check=False)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert sentence in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
