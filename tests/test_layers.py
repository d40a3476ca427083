"""The rooms of the house: imports go one way, and importing costs next to nothing."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {
    "csr_qdrant": (),
    "trainer": ("csr_qdrant",),
    "benchmarks": ("csr_qdrant", "csr_qdrant.trainer"),
    "cli": ("csr_qdrant", "csr_qdrant.trainer", "csr_qdrant.benchmarks"),
}
INSTALLED = {f"csr_qdrant.{room}" for room in ("trainer", "benchmarks", "cli")}
HEAVY = {
    "PIL",
    "faiss",
    "fastembed",
    "haystack",
    "langchain_core",
    "llama_index",
    "matplotlib",
    "mteb",
    "numba",
    "open_clip",
    "opentelemetry",
    "pyarrow",
    "qdrant_client",
    "qdrant_edge",
    "ray",
    "scipy",
    "sentence_transformers",
    "sklearn",
    "tensorboard",
    "torch",
    "transformers",
    "wordllama",
}


def modules(room: str) -> list[Path]:
    return sorted(p for p in (ROOT / room).rglob("*.py") if not _behind_a_link(p))


def _behind_a_link(path: Path) -> bool:
    return any(parent.is_symlink() for parent in path.parents)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, full name) of everything that a module imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{prefix}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _name(node.func).endswith("import_module"):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant):
                    yield node.lineno, str(argument.value)


def _name(node: ast.AST) -> str:
    return ast.unparse(node)


def room_of(name: str) -> str | None:
    """Return the installed name of the room that an import reaches into."""
    return next((room for room in INSTALLED if f"{name}.".startswith(f"{room}.")), None)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_one_way(room: str) -> None:
    own = {"csr_qdrant"} if room == "csr_qdrant" else {f"csr_qdrant.{room}"}
    allowed = own | set(ROOMS[room])
    found = modules(room)
    assert found
    for path in found:
        for line, name in imports(path):
            target = room_of(name)
            assert target is None or target in allowed, f"{path}:{line} imports {name}"


@pytest.mark.parametrize("room", [*ROOMS, "tests"])
def test_imports_are_absolute_and_by_the_installed_name(room: str) -> None:
    for path in modules(room):
        for line, name in imports(path):
            assert not name.startswith("."), f"{path}:{line} imports {name}: write it in full"
            first = name.split(".")[0]
            assert first not in ROOMS or first == "csr_qdrant", f"{path}:{line} imports {name}"


def test_the_checks_see_what_they_should(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text(
        "import csr_qdrant.cli.main\n"
        "from csr_qdrant import trainer\n"
        "def f():\n    from csr_qdrant.benchmarks.metrics import ndcg\n"
        "from . import x\n"
        "import_module('csr_qdrant.trainer.loop')\n"
        "from csr_qdrant.client import y\n"
    )
    found = sorted(imports(path))
    assert [line for line, _ in found] == [1, 2, 4, 5, 6, 7]
    assert [room_of(name) for _, name in found] == [
        "csr_qdrant.cli",
        "csr_qdrant.trainer",
        "csr_qdrant.benchmarks",
        None,
        "csr_qdrant.trainer",
        None,
    ]
    assert found[3][1].startswith(".")


@pytest.mark.parametrize("room", ["trainer", "benchmarks", "cli"])
def test_the_committed_links_show_the_installed_layout(room: str) -> None:
    link = ROOT / "csr_qdrant" / room
    assert link.is_symlink()
    assert link.readlink() == Path("..") / room


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter holds after `statement`."""
    code = f"{statement}\nimport json, sys\njson.dump(sorted(sys.modules), sys.stdout)"
    # -I: neither this folder nor PYTHONPATH may lend modules that the installed package lacks.
    run = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in json.loads(run.stdout.splitlines()[-1])}


@pytest.mark.parametrize(
    "statement",
    [
        "import csr_qdrant",
        "import csr_qdrant.cli.main",
        "import csr_qdrant.trainer",
        "import csr_qdrant.benchmarks",
        "import csr_qdrant.stores",
        "import csr_qdrant.sources",
        "import csr_qdrant.embedders",
        "import csr_qdrant.deployment",
        "import csr_qdrant.integrations",
        "from csr_qdrant import SparseCodes",
        "from csr_qdrant import Encoder",
        "from csr_qdrant import Collection",
    ],
)
def test_importing_loads_nothing_heavy(statement: str) -> None:
    assert loaded_by(statement) & HEAVY == set()


def test_the_root_and_the_command_load_no_numpy() -> None:
    assert "numpy" not in loaded_by("import csr_qdrant")
    assert "numpy" not in loaded_by("import csr_qdrant.cli.main")


def test_public_names_exist() -> None:
    import csr_qdrant

    for name in csr_qdrant.__all__:
        assert getattr(csr_qdrant, name).__module__.startswith("csr_qdrant.")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        csr_qdrant.nothing  # noqa: B018
