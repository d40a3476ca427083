"""Ctrl-C, also where Python does not hear it."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SHOW_CURSOR = "\x1b[?25h"  # a progress bar on a terminal hides it


@contextmanager
def killed_by_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C end the process at once, as the system does: whatever was begun goes on next time.

    For calls that hold the interpreter (`csr_qdrant.long_calls`). A program that handles Ctrl-C in
    its own way, or ignores it, goes on doing so. The first process of a container cannot be ended
    like that: it hears Ctrl-C after the call.
    """
    ours = threading.current_thread() is threading.main_thread() and os.getpid() != 1
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    if sys.stderr.isatty():
        sys.stderr.write(SHOW_CURSOR)
        sys.stderr.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
