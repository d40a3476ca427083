"""Every way in which a command can fail, as one sentence on stderr and an exit code."""

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import typer

from csr_qdrant import logs
from csr_qdrant.cli.keys import hidden
from csr_qdrant.errors import CsrError

DEBUG_VARIABLE = "CSR_DEBUG"
INTERRUPTED = 130  # 128 + SIGINT, what shells expect
BROKEN_PIPE = 141  # 128 + SIGPIPE, what `cat | head` ends with
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Failure(NamedTuple):
    """What the user reads, and the exit code of the process; no sentence means silence."""

    sentence: str | None
    exit_code: int


def explain(error: BaseException) -> Failure:
    """Return what to tell the user about any error."""
    if isinstance(error, CsrError):
        return Failure(_one_line(error), error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return Failure("interrupted", INTERRUPTED)
    if isinstance(error, BrokenPipeError):
        return Failure(None, BROKEN_PIPE)
    if _disk_is_full(error):
        return Failure(_full_sentence(error), 1)
    if isinstance(error, MemoryError):
        return Failure("out of memory: use smaller batches, or a machine with more of it", 1)
    if isinstance(error, OSError) and error.filename is not None:
        return Failure(f"{os.fsdecode(error.filename)}: {error.strerror}", 1)
    text = hidden(_one_line(error)) or "no message"
    return Failure(
        f"unexpected {type(error).__name__} ({text}): this is a "
        f"defect, please report it; set {DEBUG_VARIABLE}=1 for the traceback",
        1,
    )


@contextmanager
def reported() -> Iterator[None]:
    """Turn any error in the block into its sentence on stderr and `typer.Exit`.

    Usage errors, exits and aborts are Typer's own and pass through.
    """
    try:
        yield
        sys.stdout.flush()  # here, so that a closed pipe or a full disk is met inside the block
    except _passing():
        raise
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0"):
            sys.stderr.write(hidden("".join(traceback.format_exception(error))))
        failure = explain(error)
        _give_up_stdout()
        if failure.sentence is not None:
            said = f"Error: {failure.sentence}"
            typer.echo(
                logs.log_line("error", failure.sentence) if logs.as_json() else said, err=True
            )
        raise typer.Exit(failure.exit_code) from error


def _passing() -> tuple[type[BaseException], ...]:
    """Return Typer's own exceptions; newer releases carry their own copy of click's."""
    usage_error = typer.BadParameter.__mro__[2]  # BadParameter < UsageError < ClickException
    return typer.Exit, typer.Abort, usage_error


def _chain(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def _disk_is_full(error: BaseException) -> bool:
    # Native libraries report a full disk by its text only.
    return any(
        getattr(each, "errno", None) in _FULL or os.strerror(errno.ENOSPC) in str(each)
        for each in _chain(error)
    )


def _full_sentence(error: BaseException) -> str:
    names = [each.filename for each in _chain(error) if isinstance(each, OSError)]
    place = next((f" while writing {os.fsdecode(name)}" for name in names if name), "")
    return f"disk full{place}: free some space and run the same command again"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _give_up_stdout() -> None:
    """Point stdout to nowhere if it takes nothing, or the interpreter's last flush fails too."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
