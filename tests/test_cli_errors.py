"""How a command fails: one sentence on stderr, an exit code, and no traceback unless asked for."""

import errno
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import typer
from safetensors import SafetensorError

from csr_qdrant import ConfigError, CsrError, MissingExtraError
from csr_qdrant.cli.errors import Failure, explain
from csr_qdrant.cli.main import app


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs `csr train ARGUMENTS` with a command of the test's own."""

    def call(command: Callable[..., None], *arguments: str) -> Ran:
        monkeypatch.setitem(sys.modules, "csr_qdrant.cli.train", SimpleNamespace(train=command))
        with pytest.raises(SystemExit) as exited:
            app(["train", *arguments], prog_name="csr")
        return Ran(int(exited.value.code or 0), *capsys.readouterr())

    return call


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


FULL = OSError(errno.ENOSPC, "No space left on device", "/data/enc")
UNEXPECTED = "this is a defect, please report it; set CSR_DEBUG=1 for the traceback"


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (CsrError("it is so:\n  mend it"), Failure("it is so: mend it", 1)),
        (ConfigError("k is wrong"), Failure("k is wrong", 2)),
        (
            MissingExtraError("torch", "train"),
            Failure(
                "torch is not installed: run `pip install 'csr-qdrant[train]'` and try again", 1
            ),
        ),
        (caused(CsrError("own words"), FULL), Failure("own words", 1)),
        (KeyboardInterrupt(), Failure("interrupted", 130)),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), Failure(None, 141)),
        (
            FULL,
            Failure(
                "disk full while writing /data/enc: free some space and run the same command again",
                1,
            ),
        ),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded"),
            Failure("disk full: free some space and run the same command again", 1),
        ),
        (
            SafetensorError("Error: No space left on device (os error 28)"),
            Failure("disk full: free some space and run the same command again", 1),
        ),
        (
            caused(RuntimeError("writing failed"), FULL),
            Failure(
                "disk full while writing /data/enc: free some space and run the same command again",
                1,
            ),
        ),
        (
            MemoryError(),
            Failure("out of memory: use smaller batches, or a machine with more of it", 1),
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "x.npy"),
            Failure("x.npy: No such file or directory", 1),
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", b"x"),
            Failure("x: Permission denied", 1),
        ),
        (KeyError("a\nb"), Failure(f"unexpected KeyError ('a\\nb'): {UNEXPECTED}", 1)),
        (ValueError(), Failure(f"unexpected ValueError (no message): {UNEXPECTED}", 1)),
        (OSError("odd"), Failure(f"unexpected OSError (odd): {UNEXPECTED}", 1)),
    ],
)
def test_every_error_has_its_sentence_and_code(error: BaseException, failure: Failure) -> None:
    assert explain(error) == failure


@pytest.mark.parametrize(
    ("error", "ran"),
    [
        (CsrError("no such thing"), Ran(1, "", "Error: no such thing\n")),
        (ConfigError("k is wrong"), Ran(2, "", "Error: k is wrong\n")),
        (KeyboardInterrupt(), Ran(130, "", "Error: interrupted\n")),
        (
            ZeroDivisionError("x"),
            Ran(1, "", f"Error: unexpected ZeroDivisionError (x): {UNEXPECTED}\n"),
        ),
        (typer.Exit(7), Ran(7, "", "")),
        (typer.BadParameter("not so"), Ran(2, "", "Error: Invalid value: not so\n")),
    ],
)
def test_commands_fail_with_one_sentence(run: Run, error: BaseException, ran: Ran) -> None:
    def train() -> None:
        raise error

    got = run(train)
    assert (got.code, got.out) == (ran.code, ran.out)
    assert got.err.endswith(ran.err)
    assert "Traceback" not in got.err


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
def test_tracebacks_come_on_request(
    run: Run, monkeypatch: pytest.MonkeyPatch, value: str, shown: bool
) -> None:
    def train() -> None:
        raise CsrError("no such thing")

    monkeypatch.setenv("CSR_DEBUG", value)
    got = run(train)
    assert ("Traceback (most recent call last)" in got.err) is shown
    assert got.err.endswith("Error: no such thing\n")
    assert got.code == 1
