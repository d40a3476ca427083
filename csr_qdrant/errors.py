"""Every error that a user can cause: what is wrong, what was got, how to mend it."""

import re

LONGEST = 1500  # characters of a sentence; the beginning and the end of longer ones are kept
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class CsrError(Exception):
    """Base of all errors that this package raises on purpose; its text is one sentence.

    What a file or a server gave may stand in it: that is shortened, and loses control characters,
    which a terminal would obey.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        """Take the sentence."""
        super().__init__(_plain(message))


def _plain(message: str) -> str:
    if len(message) > LONGEST:
        message = f"{message[: LONGEST // 2]} … {message[-LONGEST // 2 :]}"
    return _CONTROL.sub(lambda found: " " if found[0] == "\n" else repr(found[0])[1:-1], message)


class ConfigError(CsrError, ValueError):
    """A setting or argument that cannot work: found before anything is read or written."""

    exit_code = 2


class RowError(CsrError):
    """A row that cannot be used; the rows before it can."""

    def __init__(self, row: int, message: str) -> None:
        """Keep the number of the `row` beside the sentence that names it."""
        super().__init__(message)
        self.row = row


class MissingExtraError(CsrError, ImportError):
    """A feature needs packages that the base install leaves out."""

    def __init__(self, package: str, extra: str) -> None:
        """Name the `package` that failed to import and the `extra` that brings it."""
        super().__init__(
            f"{package} is not installed: run `pip install 'csr-qdrant[{extra}]'` and try again"
        )
