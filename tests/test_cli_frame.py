"""The `csr` command itself: its list of commands, help, completion, and what it loads."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from csr_qdrant import __version__
from csr_qdrant.cli.bench import COMMANDS as BENCHMARKS
from csr_qdrant.cli.main import COMMANDS

CSR = str(Path(sys.executable).with_name("csr"))
HEAVY = {
    "qdrant_client",
    "qdrant_edge",
    "scipy",
    "sentence_transformers",
    "torch",
    "transformers",
    "wordllama",
}


def csr(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CSR, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | variables,
        timeout=120,
    )


def test_help_lists_every_command_once() -> None:
    shown = csr("--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    listed = [line.split()[0] for line in shown.stdout.split("Commands:\n")[1].splitlines()]
    assert listed == list(COMMANDS)
    assert "…" not in shown.stdout.split("Commands:\n")[1]
    assert "..." not in shown.stdout.split("Commands:\n")[1]


EVERY = [*COMMANDS, *(f"bench {name}" for name in BENCHMARKS)]


@pytest.mark.parametrize("name", EVERY)
def test_every_command_shows_its_help_and_loads_nothing_heavy(name: str) -> None:
    code = (
        "import sys\n"
        "from csr_qdrant.cli.main import app\n"
        "try:\n    app(sys.argv[1:], prog_name='csr')\n"
        "except SystemExit as exit:\n    assert not exit.code, exit.code\n"
        f"heavy = sorted(sys.modules.keys() & {HEAVY!r})\n"
        "assert not heavy, heavy\n"
    )
    shown = subprocess.run(
        [sys.executable, "-I", "-c", code, *name.split(), "--help"], capture_output=True, text=True
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"Usage: csr {name} [OPTIONS]")
    assert "--json" in shown.stdout or "\nCommands:\n" in shown.stdout


def test_help_of_the_root_imports_no_command_at_all() -> None:
    code = (
        "import sys\n"
        "from csr_qdrant.cli.main import app\n"
        "try:\n    app(['--help'], prog_name='csr')\n"
        "except SystemExit:\n    pass\n"
        "loaded = {m for m in sys.modules if m.startswith('csr_qdrant')}\n"
        "assert loaded <= {'csr_qdrant', 'csr_qdrant.errors', 'csr_qdrant.cli', "
        "'csr_qdrant.cli.main', 'csr_qdrant.cli.errors', 'csr_qdrant.cli.keys', "
        "'csr_qdrant.cli.lazy', 'csr_qdrant.cli.interrupts', 'csr_qdrant.long_calls', "
        "'csr_qdrant.logs'}, loaded\n"
        "assert not sys.modules.keys() & {'numpy', 'rich', 'pydantic'}\n"
    )
    subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=True)


def test_version_and_wrong_commands() -> None:
    assert csr("--version").stdout == f"csr-qdrant {__version__}\n"
    wrong = csr("trian")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "Did you mean 'train'?" in wrong.stderr
    assert "Usage: csr" in csr().stdout + csr().stderr


@pytest.mark.parametrize(
    ("words", "expected"), [("csr tr", ["train"]), ("csr in", ["index", "info"])]
)
def test_shells_complete_commands(words: str, expected: list[str]) -> None:
    shown = csr(_CSR_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD="1")
    assert shown.stdout.split() == expected


def test_the_command_starts_fast() -> None:
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        csr("--help")
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.5, seconds
