"""External ids of any kind, and the point ids that Qdrant knows (u64 and UUID).

An id that Qdrant cannot hold becomes a uuid5 in a fixed namespace, the same on every machine and
in every run; the original stands in the payload under `_id` and comes back with every hit.
"""

import re
import uuid
from collections.abc import Mapping
from numbers import Integral
from typing import Any

from csr_qdrant.errors import CsrError

ExternalId = int | str
PointId = int | str

ID_KEY = "_id"
NAMESPACE = uuid.UUID("6d0f9b1e-4c1d-5a57-9b53-0d2f6a8c7e11")
_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def normalise_id(raw: Any) -> ExternalId:
    """Return `raw` (int, str, UUID or a numpy integer) as a plain int or str.

    Raises CsrError for ids of other types, and for strings and integers that no payload can hold.
    """
    if isinstance(raw, str):
        return _checked_text(str(raw))
    if isinstance(raw, uuid.UUID):
        return str(raw)
    if isinstance(raw, bool) or not isinstance(raw, Integral):
        raise CsrError(f"ids must be integers, strings or UUIDs, got {type(raw).__name__} {raw!r}")
    number = int(raw)
    if not -(2**63) <= number < 2**64:
        raise CsrError(f"integer ids must fit into 64 bits, got {number}: use a string instead")
    return number


def _checked_text(text: str) -> str:
    if not text:
        raise CsrError("ids must not be empty strings: give each row an id of its own")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise CsrError(f"ids must be valid Unicode, got {text!r}: mend its encoding") from error
    return text


def point_id(external: ExternalId) -> PointId:
    """Return the point id of an id that `normalise_id` gave."""
    if isinstance(external, str):
        if _CANONICAL_UUID.fullmatch(external):
            return external
        return str(uuid.uuid5(NAMESPACE, "s:" + external))
    return external if external >= 0 else str(uuid.uuid5(NAMESPACE, f"i:{external}"))


def filter_with_point_ids(filter: Any) -> Any:
    """Return a filter whose `has_id` conditions name external ids as one of point ids.

    Takes Qdrant's JSON form or a `qdrant_client.models.Filter`; the argument stays as it is.
    """
    if hasattr(filter, "model_dump"):
        filter = filter.model_dump(mode="json", exclude_none=True)
    if isinstance(filter, Mapping):
        return {
            key: [point_id(normalise_id(each)) for each in value]
            if key == "has_id" and isinstance(value, list)
            else filter_with_point_ids(value)
            for key, value in filter.items()
        }
    if isinstance(filter, list):
        return [filter_with_point_ids(each) for each in filter]
    return filter


def payload_with_id(
    external: ExternalId, point: PointId, payload: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return a copy of `payload` that holds the external id where the point id does not.

    Raises CsrError if the payload already uses the reserved key.
    """
    own = dict(payload or {})
    if ID_KEY in own:
        raise CsrError(
            f"payload key {ID_KEY!r} is reserved for the external id, got it in the payload of "
            f"id {external!r}: rename that key"
        )
    if external != point:
        own[ID_KEY] = external
    return own


def external_id(point: PointId, payload: Mapping[str, Any] | None) -> ExternalId:
    """Return the external id of a stored point."""
    original: ExternalId = (payload or {}).get(ID_KEY, point)
    return original
