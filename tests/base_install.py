"""Run by `make test-base` with the Python of an environment that holds the wheel alone."""

import importlib
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

LATER = {"torch", "transformers", "sentence_transformers", "qdrant_client", "wordllama", "scipy"}
CSR = str(Path(sys.executable).with_name("csr"))


def check() -> None:
    """Raise AssertionError if the base install is not what it should be."""
    assert importlib.util.find_spec("torch") is None, "this environment must not hold torch"
    package = importlib.import_module("csr_qdrant")
    assert Path(sys.prefix).resolve() in Path(package.__file__ or "").resolve().parents
    loaded = LATER & sys.modules.keys()
    assert not loaded, f"`import csr_qdrant` loaded {loaded}"
    for name in ("SparseCodes", "Encoder", "Collection"):
        assert getattr(package, name).__name__ == name
    assert importlib.metadata.version("csr-qdrant") == package.__version__
    assert csr("--version") == f"csr-qdrant {package.__version__}\n"
    for command in ("demo", "train", "embed", "index", "query", "info"):
        assert csr(command, "--help").startswith(f"Usage: csr {command} ")
    with tempfile.TemporaryDirectory() as folder:
        _index_and_query(Path(folder))


def csr(*arguments: str) -> str:
    """Run the command and return what it writes to stdout."""
    ran = subprocess.run([CSR, *arguments], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def _index_and_query(folder: Path) -> None:
    """Index ready vectors into an embedded collection and find them again."""
    import numpy as np

    from csr_qdrant import Encoder

    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(500, 16)).astype(np.float32)
    weight = rng.normal(size=(256, 16)).astype(np.float32)
    zeros = [np.zeros(n, np.float32) for n in weight.shape]
    Encoder(weight=weight, latent_bias=zeros[0], pre_bias=zeros[1], k=32).save(folder / "encoder")
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "queries.npy", vectors[[3, 41]])
    place = str(folder / "collection")
    csr("index", str(folder / "vectors.npy"), place, "--encoder", str(folder / "encoder"), "-q")
    lines = csr("query", place, "--vectors", str(folder / "queries.npy"), "-n", "1", "--json")
    hits = [json.loads(line)["hits"] for line in lines.splitlines()]
    assert [hit["id"] for (hit,) in hits] == [3, 41], hits
    assert all(abs(hit["score"] - 1) < 1e-5 for (hit,) in hits), hits


if __name__ == "__main__":
    check()
    sys.stdout.write("the base install works\n")
