"""What is built from the files that git knows: complete, and nothing generic at the top."""

import ast
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import csr_qdrant

ROOT = Path(__file__).parent.parent
LINKED = ("benchmarks", "cli", "trainer")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def build(source: Path, target: Path, kind: str) -> Path:
    """Build a wheel or a source archive without reaching for the network."""
    command = [sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", target]
    run = subprocess.run([*map(str, command), str(source)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "absent from the `packages` configuration" not in run.stdout + run.stderr
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the files that git knows, links kept as links."""
    if not (ROOT / ".git").exists():
        pytest.skip("the files of a clone are known to git only")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    folder = tmp_path_factory.mktemp("clone")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


@pytest.fixture(scope="module")
def archive(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(clone, tmp_path_factory.mktemp("sdist"), "sdist")


@pytest.fixture(scope="module")
def wheel(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = build(clone, tmp_path_factory.mktemp("wheel"), "wheel")
    with zipfile.ZipFile(path) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def expected_files(clone: Path) -> dict[str, Path]:
    """Return the path in the wheel of every module and data file of the clone.

    Results of benchmarks are kept in the repository for the documentation; they are no data.
    """
    found = {}
    for room in ("csr_qdrant", *LINKED):
        for path in (clone / room).rglob("*"):
            within = path.relative_to(clone / room)
            linked = room == "csr_qdrant" and within.parts[0] in LINKED
            if path.is_file() and not linked and within.parts[0] != "results":
                place = Path("csr_qdrant") / ("" if room == "csr_qdrant" else room) / within
                found[place.as_posix()] = path
    return found


def test_the_wheel_holds_every_file_once_and_nothing_else(
    clone: Path, wheel: dict[str, bytes]
) -> None:
    expected = expected_files(clone)
    assert "csr_qdrant/benchmarks/data/nave/corpus.jsonl.gz" in expected
    assert "csr_qdrant/py.typed" in expected
    packed = {name: data for name, data in wheel.items() if ".dist-info/" not in name}
    assert sorted(packed) == sorted(expected)
    assert all(packed[name] == path.read_bytes() for name, path in expected.items())


def test_the_wheel_puts_one_name_into_site_packages(wheel: dict[str, bytes]) -> None:
    info = f"csr_qdrant-{csr_qdrant.__version__}.dist-info"
    assert {name.split("/")[0] for name in wheel} == {"csr_qdrant", info}
    assert wheel[f"{info}/top_level.txt"] == b"csr_qdrant\n"
    assert wheel[f"{info}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert b"csr = csr_qdrant.cli.main:main" in wheel[f"{info}/entry_points.txt"]


def test_the_base_install_needs_no_torch(wheel: dict[str, bytes]) -> None:
    metadata = next(data for name, data in wheel.items() if name.endswith("/METADATA")).decode()
    base = [
        line.removeprefix("Requires-Dist: ")
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist: ") and "extra ==" not in line
    ]
    names = {line.split(">")[0].split("<")[0].split("=")[0] for line in base}
    assert names == {
        "numpy",
        "qdrant-client",
        "qdrant-edge-py",
        "rich",
        "safetensors",
        "tenacity",
        "typer",
    }


def test_the_source_archive_builds_the_same_wheel(
    archive: Path, wheel: dict[str, bytes], tmp_path: Path
) -> None:
    with tarfile.open(archive) as opened:
        # The safe filter came with Python 3.11.4; Debian 12 has 3.11.2.
        safe: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        opened.extractall(tmp_path / "source", **safe)
    (source,) = (tmp_path / "source").iterdir()
    assert {p.name for p in source.iterdir()} >= {"Makefile", "constraints.txt", "tests"}
    with zipfile.ZipFile(build(source, tmp_path / "wheel", "wheel")) as rebuilt:
        again = {name: rebuilt.read(name) for name in rebuilt.namelist()}
    assert again == wheel


def test_all_packages_are_declared() -> None:
    declared = set(PROJECT["tool"]["setuptools"]["packages"])
    found = {
        ".".join(["csr_qdrant", *(() if room == "csr_qdrant" else (room,)), *within.parts])
        for room in ("csr_qdrant", *LINKED)
        for path in (ROOT / room).rglob("__init__.py")
        if (within := path.parent.relative_to(ROOT / room)).parts[:1] not in [(r,) for r in LINKED]
    }
    assert found == declared


def test_extras_that_errors_name_exist() -> None:
    extras = PROJECT["project"]["optional-dependencies"].keys()
    named = {}
    for room in ("csr_qdrant", *LINKED):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "MissingExtraError":
                    named[str(path)] = ast.literal_eval(node.args[1])
    assert set(named.values()) <= set(extras), named


def test_versions_agree() -> None:
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {csr_qdrant.__version__}\n" in citation
    assert f"## {csr_qdrant.__version__} " in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_every_direct_dependency_has_a_tested_version() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    known = {name.lower().replace("_", "-") for name in pinned}
    project = PROJECT["project"]
    extras = [each for group in project["optional-dependencies"].values() for each in group]
    for requirement in [*project["dependencies"], *extras]:
        name = requirement.split("[")[0].split(">")[0].split("=")[0].lower().replace("_", "-")
        # faiss-gpu takes the place of faiss-cpu, and needs a GPU to be tested; fastembed wants
        # other versions of what stands here, and has an environment of its own.
        apart = ("csr-qdrant", "faiss-gpu", "fastembed")
        assert name in apart or name in known, requirement
    assert not [version for version in pinned.values() if "+" in version]
