"""Run by `make test-base` with the Python of an environment that holds the wheel alone."""

import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

HEAVY = {"torch", "transformers", "sentence_transformers", "qdrant_client", "wordllama", "scipy"}
PUBLIC = ("SparseCodes", "Encoder", "Collection")


def check() -> None:
    """Raise AssertionError if the base install is not what it should be."""
    assert importlib.util.find_spec("torch") is None, "this environment must not hold torch"
    package = importlib.import_module("csr_qdrant")
    assert Path(sys.prefix).resolve() in Path(package.__file__ or "").resolve().parents
    loaded = HEAVY & sys.modules.keys()
    assert not loaded, f"`import csr_qdrant` loaded {loaded}"
    for name in PUBLIC:
        assert getattr(package, name).__name__ == name
    _check_command(package.__version__)


def _check_command(version: str) -> None:
    command = str(Path(sys.executable).with_name("csr"))
    for arguments in (["--help"], ["index", "--help"], ["query", "--help"]):
        shown = subprocess.run([command, *arguments], capture_output=True, text=True, check=True)
        assert shown.stdout.startswith("Usage: csr"), shown
    shown = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout == f"csr-qdrant {version}\n", shown
    assert importlib.metadata.version("csr-qdrant") == version


if __name__ == "__main__":
    check()
    sys.stdout.write("the base install works\n")
