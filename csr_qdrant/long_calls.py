"""Calls of the embedded engine that hold the interpreter for minutes.

Python hears no signal before such a call returns, Ctrl-C neither. A program that may be killed at
any moment, as the `csr` command may, can set `around` so that Ctrl-C kills it there; a library
must leave that to the program it is part of.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

around: Callable[[], AbstractContextManager[object]] = nullcontext
