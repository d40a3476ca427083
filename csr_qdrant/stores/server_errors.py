"""What goes wrong between here and a server: sentences, and which of it is worth another try."""

import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import (
    ApiException,
    ResponseHandlingException,
    UnexpectedResponse,
)
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
)

from csr_qdrant.errors import ConfigError, CsrError

T = TypeVar("T")

BUSY_STATUSES = (408, 429, 502, 503, 504)
BUSY_CODES = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")  # gRPC
# Qdrant takes messages of any size; what stands before it, and other servers, have limits.
TOO_LARGE_CODES = ("RESOURCE_EXHAUSTED", "OUT_OF_RANGE")


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How long to insist on a request that failed for a reason which may pass.

    The pause doubles from `first_s` up to `longest_s`, less a random part of up to a half, so that
    many clients do not come back at once; a server that names a pause itself is obeyed up to
    `longest_s`.
    """

    attempts: int = 8
    first_s: float = 0.5
    longest_s: float = 30.0

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.attempts < 1:
            raise ConfigError(f"attempts must be at least 1, got {self.attempts}")
        if not 0 <= self.first_s <= self.longest_s:
            raise ConfigError(
                f"pauses must rise from 0, got first {self.first_s} s and longest "
                f"{self.longest_s} s"
            )

    def call(self, function: Callable[[], T], hurry: threading.Event | None = None) -> T:
        """Return what `function` returns, called until it does or the policy gives up.

        `hurry`, which any thread may set, ends a pause at once and makes the next try the last.
        """
        hurry = hurry or threading.Event()
        retrying = Retrying(
            retry=retry_if_exception(may_pass),
            stop=stop_after_attempt(self.attempts) | stop_when_event_set(hurry),
            sleep=sleep_using_event(hurry),
            wait=self._pause,
            reraise=True,
        )
        return retrying(function)

    def _pause(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, ResourceExhaustedResponse):
            return min(error.retry_after_s + random.uniform(0, self.first_s), self.longest_s)
        # The exponent is held down, or a policy of thousands of attempts would overflow.
        pause = self.first_s * 2.0 ** min(state.attempt_number - 1, 60)
        return min(pause, self.longest_s) * random.uniform(0.5, 1)


def may_pass(error: BaseException) -> bool:
    """Tell whether the same request may succeed later."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code in BUSY_STATUSES
    if isinstance(error, ResponseHandlingException):
        return isinstance(error.source, httpx.TransportError)
    if isinstance(error, QdrantException):  # 429, also one whose Retry-After is unreadable
        return True
    if _grpc_code(error) not in BUSY_CODES:
        return False
    details = _grpc_details(error)
    return not (_too_large(details) or _disk_full(details))


def is_too_large(error: BaseException) -> bool:
    """Tell whether the server refused a request for its size."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code == 413 or _too_large(_message(error))
    return _grpc_code(error) in TOO_LARGE_CODES and _too_large(_grpc_details(error))


def is_gone(error: BaseException) -> bool:
    """Tell whether something that the request names does not exist."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code == 404
    return isinstance(error, KeyError) or _grpc_code(error) == "NOT_FOUND"  # KeyError: local mode


def is_refused(error: BaseException) -> bool:
    """Tell whether the server found fault with the content of a request."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code in (400, 422)
    return isinstance(error, ValueError) or _grpc_code(error) == "INVALID_ARGUMENT"


def is_worth_splitting(error: BaseException) -> bool:
    """Tell whether parts of a request may be taken that was refused as a whole."""
    return is_too_large(error) or (is_refused(error) and not is_full(error))


def is_full(error: BaseException) -> bool:
    """Tell whether a collection in strict mode takes nothing more, whatever the points are."""
    text = reason(error).lower()
    return "resident memory" in text or (" limit of " in text and "reached" in text)


def reason(error: BaseException, secret: str | None = None) -> str:
    """Return the server's own words, on one line; `secret`, the API key, is never among them."""
    text = _message(error) if isinstance(error, UnexpectedResponse) else _grpc_details(error)
    return _Words(secret)(_understandable(text))


@contextmanager
def server_errors(location: str, secret: str | None = None) -> Iterator[None]:
    """Turn what a client raises into CsrError; `secret`, the API key, never gets into its text."""
    try:
        yield
    except CsrError:
        raise
    except (ApiException, QdrantException, ValueError, AssertionError) as error:
        raise CsrError(_explain(error, location, _Words(secret))) from None
    except Exception as error:
        if _grpc_code(error) is None:
            raise
        raise CsrError(_explain_grpc(error, location, _Words(secret))) from None


class _Words:
    """What a server says, on one line that is not too long, without the API key."""

    def __init__(self, secret: str | None) -> None:
        # Servers that echo requests may write it as JSON or as part of a URL.
        forms = {secret, json.dumps(secret)[1:-1], quote(secret, safe="")} if secret else set()
        self._secrets = sorted(forms, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:  # before the text is cut, or a part of the key would stay
            text = text.replace(secret, "***")
        line = " ".join(text.split())
        return line if len(line) <= 300 else line[:297] + "..."


def _explain(error: Exception, location: str, words: _Words) -> str:
    if isinstance(error, UnexpectedResponse):
        return _explain_status(error.status_code or 0, _message(error), location, words)
    if isinstance(error, ResponseHandlingException):
        return _explain_transport(error.source, location, words)
    if isinstance(error, QdrantException):
        return _explain_status(429, str(error), location, words)
    if isinstance(error, AssertionError):  # the client's way to miss a field in an answer
        return _foreign(location)
    return f"{location}: {words(_understandable(str(error)))}"


def _understandable(text: str) -> str:
    """Say what the client only hints at, when it cannot make a message of a payload."""
    number = text.removeprefix("Value out of range: ")
    return text if number == text else f"gRPC cannot carry the integer {number}: use REST instead"


def _foreign(location: str) -> str:
    return f"{location}: the answer is not one of a Qdrant server: check the URL"


def _explain_status(status: int, message: str, location: str, words: _Words) -> str:
    if status in (401, 403):
        return (
            f"{location}: the server refused the API key ({status}): "
            "set QDRANT_API_KEY to a key that may use this collection"
        )
    if status == 404:
        return f"{location}: not found: check the name of the collection and the URL"
    if status == 413 or _too_large(message):
        return (
            f"{location}: the server refused a request as too large: make the payloads smaller, "
            "or raise service.max_request_size_mb on the server"
        )
    if status == 507 or _disk_full(message):
        return f"{location}: the server's disk is full: free some space there and try again"
    if status == 429:
        return f"{location}: the server is still limiting requests: try again later"
    return f"{location}: the server answered {status}: {words(message)}"


def _explain_transport(error: BaseException, location: str, words: _Words) -> str:
    if isinstance(error, httpx.TimeoutException):
        return f"{location}: no answer in time: check the server or allow a longer timeout"
    if isinstance(error, httpx.TransportError):
        return (
            f"{location}: cannot reach the server ({words(str(error))}): "
            "check the URL and that the server runs"
        )
    if isinstance(error, ValueError):  # no JSON, or not the expected one
        return _foreign(location)
    return f"{location}: {words(str(error))}"


def _explain_grpc(error: BaseException, location: str, words: _Words) -> str:
    code, details = _grpc_code(error), words(_grpc_details(error))
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return _explain_status(401, details, location, words)
    if code == "NOT_FOUND":
        return _explain_status(404, details, location, words)
    if code in TOO_LARGE_CODES and _too_large(details):
        return _explain_status(413, details, location, words)
    if _disk_full(details):
        return _explain_status(507, details, location, words)
    if code == "RESOURCE_EXHAUSTED":
        return _explain_status(429, details, location, words)
    if code == "DEADLINE_EXCEEDED":
        return f"{location}: no answer in time: check the server or allow a longer timeout"
    if code == "UNAVAILABLE":
        return (
            f"{location}: cannot reach the server ({details}): "
            "check the URL, its gRPC port (6334) and that the server runs"
        )
    return f"{location}: the server answered {code}: {details}"


def _grpc_code(error: BaseException) -> str | None:
    """Return the name of a gRPC status, None for other errors; grpc itself is not imported."""
    if not any(base.__name__ == "RpcError" for base in type(error).__mro__):
        return None
    code: Any = getattr(error, "code", None)
    return str(code().name) if callable(code) else "UNKNOWN"


def _grpc_details(error: BaseException) -> str:
    details: Any = getattr(error, "details", None)
    return str(details() or "") if callable(details) else str(error)


def _message(error: UnexpectedResponse) -> str:
    """Return the error text of Qdrant's answer, or of whatever else answered."""
    try:
        return str(error.structured()["status"]["error"])
    except (ValueError, KeyError, TypeError):
        return error.content.decode("utf-8", "replace") or error.reason_phrase


def _too_large(text: str) -> bool:
    lowered = text.lower()
    found = ("larger than", "payload reached size limit", "message length too large")
    return any(each in lowered for each in found)


def _disk_full(text: str) -> bool:
    lowered = text.lower()
    return any(each in lowered for each in ("insufficient storage", "no space left", "out of disk"))
