"""What the strict mode of a collection lets a request ask for.

Administrators set it so that no single request slows others down. Whatever of it has to do with the
size of our requests is kept here; what it forbids altogether comes back as the server's refusal.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from qdrant_client import QdrantClient, models

from csr_qdrant.stores.server_errors import is_refused, reason

T = TypeVar("T")
COUNT_PAGE = 10_000  # ids


class Limits(NamedTuple):
    """The most that one request may ask for; None: no limit."""

    page: int | None = None  # points to scroll
    update: int | None = None  # points to write
    condition: int | None = None  # ids that a filter may name


def read_limits(info: models.CollectionInfo) -> Limits:
    """Return the limits of a collection, none unless its strict mode is on."""
    strict = info.config.strict_mode_config
    if strict is None or not strict.enabled:
        return Limits()
    return Limits(
        strict.max_query_limit or None,
        strict.upsert_max_batchsize or None,
        strict.condition_max_size or None,
    )


def at_most(count: int, limit: int | None) -> int:
    """Return `count`, or `limit` if that is less."""
    return count if limit is None else min(count, limit)


def portions(ids: Sequence[T], limit: int | None) -> Iterator[Sequence[T]]:
    """Yield `ids` in parts of at most `limit`."""
    step = at_most(max(1, len(ids)), limit)
    for start in range(0, len(ids), step):
        yield ids[start : start + step]


def exact_count(
    client: QdrantClient,
    collection: str,
    having: models.Filter | None,
    limits: Callable[[], Limits],
    call: Callable[[Callable[[], Any]], Any],
) -> int:
    """Return the exact number of points that fit `having`.

    Strict mode may forbid exact counts (search_allow_exact), and then all ids are read. `call`
    runs a function until it succeeds or fails for good.
    """

    def count() -> int | None:
        try:
            return client.count(collection, count_filter=having, exact=True).count
        except Exception as error:  # each part of the client raises types of its own
            if is_refused(error) and "exact" in reason(error).lower():
                return None
            raise

    counted: int | None = call(count)
    if counted is not None:
        return counted
    return sum(_page_lengths(client, collection, having, limits().page, call))


def _page_lengths(
    client: QdrantClient,
    collection: str,
    having: models.Filter | None,
    limit: int | None,
    call: Callable[[Callable[[], Any]], Any],
) -> Iterator[int]:
    offset: Any = None
    while True:
        found, offset = call(
            partial(
                client.scroll,
                collection,
                having,
                limit=at_most(COUNT_PAGE, limit),
                offset=offset,
                with_payload=False,
                with_vectors=False,
            )
        )
        yield len(found)
        if offset is None:
            return
