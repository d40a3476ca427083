"""Every error that a user can cause: what is wrong, what was got, how to mend it."""


class CsrError(Exception):
    """Base of all errors that this package raises on purpose; its text is one sentence."""

    exit_code = 1


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
