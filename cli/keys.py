"""The API key of a server: a file, a prompt or the environment has it, never the command line."""

import getpass
import os
import re
import sys
from pathlib import Path

from csr_qdrant.errors import ConfigError

KEY_VARIABLE = "QDRANT_API_KEY"
TARGET_KEY_VARIABLE = "QDRANT_TARGET_API_KEY"  # of a second server, which never gets the first key
SECRET_VARIABLES = (KEY_VARIABLE, TARGET_KEY_VARIABLE, "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
KEY_HELP = (
    "File that holds the server's API key alone; - asks for it, or reads it from a pipe. "
    f"[default: {KEY_VARIABLE}]"
)
_CREDENTIALS = re.compile(r"://[^\s/@'\"]*@")
_MOST = 16_384  # bytes of a key


def hidden(text: str) -> str:
    """Return a text without keys of the environment, and without users and passwords in URLs.

    The last line of defence: of errors that are not expected, and of tracebacks.
    """
    for variable in SECRET_VARIABLES:
        if secret := os.environ.get(variable):
            text = text.replace(secret, "***")
    return _CREDENTIALS.sub("://", text)


def api_key(file: Path | None, variable: str = KEY_VARIABLE) -> str | None:
    """Return the key in `file`; for None that of the environment's `variable`, if it has one.

    The file `-` is a prompt that shows nothing, or what comes through a pipe. Raises ConfigError,
    without what was read, unless that is one word of text.
    """
    if file is None:
        return os.environ.get(variable) or None
    name = "the key that was given" if str(file) == "-" else str(file)
    try:
        content = _asked(variable) if str(file) == "-" else _read(file)
        words = content.decode().split()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ConfigError(f"{name} cannot be read as an API key ({why}): check the path") from None
    if len(content) > _MOST or len(words) != 1:
        raise ConfigError(f"{name} must be an API key and nothing else: check what it holds")
    return words[0]


def _asked(variable: str) -> bytes:
    if sys.stdin.isatty():
        return getpass.getpass(f"{variable}: ").encode()
    return sys.stdin.buffer.readline(_MOST + 1)


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(_MOST + 1)
