"""OpenTelemetry spans around what takes time; nothing at all without the extra `telemetry`.

Spans are named `csr_qdrant.encode` and so on, and carry counts and sizes: never texts, vectors,
payloads, ids or keys. Where they go is for the application to say, as with any library's spans.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

PREFIX = "csr_qdrant."
_NOTHING: AbstractContextManager[None] = nullcontext()


def span(name: str, **attributes: str | int | float | bool) -> AbstractContextManager[Any]:
    """Return a span called `csr_qdrant.NAME` for a `with` block.

    It is a no-op where opentelemetry is not installed or no provider of spans is set up. An
    exception that leaves the block is recorded by its type, not by its text.
    """
    tracer = _tracer()
    if tracer is None:
        return _NOTHING
    given = {PREFIX + key: value for key, value in attributes.items()}
    return _Span(tracer, PREFIX + name, given)


class _Span(AbstractContextManager[Any]):
    """A span whose status is an error if an exception leaves the block."""

    def __init__(self, tracer: Any, name: str, attributes: dict[str, Any]) -> None:
        self._opened = tracer.start_as_current_span(
            name, attributes=attributes, record_exception=False, set_status_on_exception=False
        )

    def __enter__(self) -> Any:
        self._span = self._opened.__enter__()
        return self._span

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None:
            from opentelemetry.trace import StatusCode

            # The text of an error may name a row, an address or a path: only its type is told.
            self._span.set_status(StatusCode.ERROR, kind.__name__)
        self._opened.__exit__(kind, error, trace)


def _tracer() -> Any:
    """Return the library's tracer, None where nobody listens; a provider may be set up later."""
    trace = _opentelemetry()
    if trace is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return None
    return _own_tracer()


@cache
def _opentelemetry() -> Any:
    try:
        from opentelemetry import trace
    except ModuleNotFoundError:
        return None
    return trace


@cache
def _own_tracer() -> Any:
    from csr_qdrant import __version__

    return _opentelemetry().get_tracer("csr_qdrant", __version__)
