"""Strict mode as a server has it: what it refuses, in its words; no test itself.

As lib/collection/src/operations/verification of Qdrant 1.19 has it, for the requests that
csr-qdrant sends.
"""

from typing import Any

from pydantic import BaseModel
from qdrant_client import models


def refuse(strict: models.StrictModeConfig | None, body: Any) -> None:
    """Raise ValueError if a collection in strict mode refuses a request with this body."""
    if strict is None or not strict.enabled:
        return
    if isinstance(body, models.QueryRequestBatch):
        _limit(len(body.searches), strict.search_max_batchsize, "search batch size")
        for each in body.searches:
            refuse(strict, each)
    if isinstance(body, (models.QueryRequest, models.ScrollRequest, models.QueryGroupsRequest)):
        _limit(body.limit, strict.max_query_limit, "limit")
    if isinstance(body, models.PointsList):
        _limit(len(body.points), strict.upsert_max_batchsize, "upsert limit")
    if isinstance(body, models.UpdateVectors):
        _limit(len(body.points), strict.upsert_max_batchsize, "update limit")
    if strict.search_allow_exact is False and _exact(body):
        raise ValueError("Bad request: Exact search disabled!. Help: Set exact=false.")
    for chosen in _filters(body):
        _conditions(strict, chosen)


def _limit(value: int | None, limit: int | None, name: str) -> None:
    if value is not None and limit is not None and value > limit:
        raise ValueError(
            f'Bad request: Limit exceeded {value} > {limit} for "{name}". Help: Reduce the '
            f'"{name}" parameter to or below {limit}.'
        )


def _exact(body: Any) -> bool:
    if isinstance(body, models.CountRequest):
        return body.exact is not False
    params = getattr(body, "params", None)
    return bool(params is not None and params.exact)


def _filters(body: Any) -> list[models.Filter]:
    if not isinstance(body, BaseModel):
        return []
    found = [getattr(body, "filter", None)]  # not update_filter, which is about few points
    return [each for each in found if isinstance(each, models.Filter)]


def _conditions(strict: models.StrictModeConfig, chosen: models.Filter) -> None:
    conditions = [
        one
        for part in (chosen.must, chosen.must_not, chosen.should)
        for one in (part if isinstance(part, list) else [part] if part else [])
    ]
    count, most = len(conditions), strict.filter_max_conditions
    if most is not None and count > most:
        raise ValueError(f"Bad request: Filter condition limit reached ({count} > {most})")
    for each in conditions:
        size, largest = len(getattr(each, "has_id", [])), strict.condition_max_size
        if largest is not None and size > largest:
            raise ValueError(f"Bad request: Condition size limit reached ({size} > {largest})")
