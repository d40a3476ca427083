"""Commands in processes of their own: closed pipes, full disks, Ctrl-C, terminals."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from csr_qdrant import long_calls
from csr_qdrant.cli.interrupts import killed_by_ctrl_c
from csr_qdrant.collection import Collection
from csr_qdrant.deployment.attach import AttachConfig, attach

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import EdgeTarget, encoder_of, vectors_of


def script(folder: Path, body: str) -> list[str]:
    """Return the command line of a process that runs `csr train` with a command of our own."""
    path = folder / "run.py"
    path.write_text(
        "import sys, time, types\n"
        "from csr_qdrant.cli.main import main\n"
        "from csr_qdrant.cli.output import Output, table\n"
        f"def train() -> None:\n    {body}\n"
        "sys.modules['csr_qdrant.cli.train'] = types.SimpleNamespace(train=train)\n"
        "sys.argv = ['csr', 'train']\n"
        "main()\n"
    )
    return [sys.executable, str(path)]


# As users run it: what is written waits in a buffer.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
ONE = "Output().result({}, 'one line')"
RAW = "[sys.stdout.write('x' * 100 + chr(10)) for _ in range(20_000)]"
MANY = "[Output().row({}, 'x' * 100) for _ in range(20_000)]"
TABLES = "[Output().row({}, table(['x' * 100], [])) for _ in range(20_000)]"


@pytest.mark.parametrize("body", [MANY, TABLES, RAW])
def test_a_closed_pipe_ends_the_command_quietly(tmp_path: Path, body: str) -> None:
    writer = subprocess.Popen(
        script(tmp_path, body),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=BUFFERED,
    )
    assert writer.stdout is not None
    assert "x" * 100 in writer.stdout.readline() + writer.stdout.readline()
    writer.stdout.close()
    assert writer.stderr is not None
    assert writer.stderr.read() == ""
    assert writer.wait(timeout=60) == 141
    writer.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("body", [MANY, ONE, "sys.stdout.write('unflushed')"])
def test_a_full_disk_behind_stdout_is_one_sentence(tmp_path: Path, body: str) -> None:
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            script(tmp_path, body),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=BUFFERED,
        )
    sentence = "Error: disk full: free some space and run the same command again\n"
    assert (ran.returncode, ran.stderr) == (1, sentence)


@contextmanager
def ready(command: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """Run a command that hears Ctrl-C, until it says `ready`."""
    # A test run in the background passes on that it ignores SIGINT; here it must be heard.
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
        yield process


def test_control_c_ends_the_command_with_130(tmp_path: Path) -> None:
    body = "(Output().note('ready'), time.sleep(60))"
    with ready(script(tmp_path, body)) as process:
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read() == "Error: interrupted\n"
        assert process.wait(timeout=60) == 130


@pytest.mark.skipif(sys.platform == "win32", reason="needs the C library's sleep")
def test_control_c_ends_calls_that_hold_the_interpreter(tmp_path: Path) -> None:
    body = """
    import ctypes
    from csr_qdrant import long_calls
    Output().note('ready')
    with long_calls.around():
        ctypes.PyDLL(None).sleep(60)  # with the lock held, as the engine does
"""
    with ready(script(tmp_path, body)) as process:
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == -signal.SIGINT


def test_an_ignored_control_c_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with killed_by_ctrl_c():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with killed_by_ctrl_c():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_only_the_command_changes_what_control_c_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[str] = []

    @contextmanager
    def watch() -> Iterator[None]:
        entered.append("optimise")
        yield

    assert long_calls.around is nullcontext
    monkeypatch.setattr(long_calls, "around", watch)
    encoder = encoder_of()
    with Collection.create(tmp_path / "docs", encoder, keep_dense=True) as docs:
        docs.add(range(20), vectors=vectors_of(20))
        docs.optimise()
    target = EdgeTarget(tmp_path / "shard")
    target.upsert(range(20), vectors_of(20))
    attach(target.folder, encoder, AttachConfig(vector="text"))
    assert entered == ["optimise"] * 2


def on_terminal(command: list[str]) -> tuple[str, str]:
    """Run with stderr on a terminal; return (stdout, stderr)."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, text=True, env=environment
    ) as process:
        os.close(theirs)
        shown = b""
        while chunk := _read(ours):
            shown += chunk
        assert process.stdout is not None
        out = process.stdout.read()
    os.close(ours)
    assert process.returncode == 0, shown
    return out, shown.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # how Linux says that the other end was closed
        return b""


def test_progress_on_a_terminal_is_a_bar_and_stdout_stays_clean(tmp_path: Path) -> None:
    body = (
        "output = Output()\n"
        "    with output.progress('embedding', 2000) as progress:\n"
        "        progress.advance(500, note='loss 0.5')\n"
        "        output.note('a note')\n"
        "        output.row({}, 'early')\n"
        "        progress.update(2000)\n"
        "    output.result({}, 'data')"
    )
    out, shown = on_terminal(script(tmp_path, body))
    assert out == "early\ndata\n"
    assert "━" in shown
    assert "2000/2000" in shown
    assert "loss 0.5" in shown
    assert "a note\r\n" in shown
