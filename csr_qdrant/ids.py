"""External ids of any kind, and the point ids that Qdrant knows (u64 and UUID).

An id that Qdrant cannot hold becomes a uuid5 in a fixed namespace, the same on every machine and
in every run; the original stands in the payload under `_id` and comes back with every hit.
"""

import re
import uuid
from collections.abc import Mapping
from typing import Any

from csr_qdrant.errors import CsrError

ExternalId = int | str
PointId = int | str

ID_KEY = "_id"
NAMESPACE = uuid.UUID("6d0f9b1e-4c1d-5a57-9b53-0d2f6a8c7e11")
_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def normalise_id(raw: Any) -> ExternalId:
    """Return `raw` (int, str, UUID or a numpy integer) as a plain int or str.

    Raises CsrError for ids of other types, empty strings and integers that no payload can hold.
    """
    if isinstance(raw, str):
        if not raw:
            raise CsrError("ids must not be empty strings: give each row an id of its own")
        return raw
    if isinstance(raw, uuid.UUID):
        return str(raw)
    if isinstance(raw, bool) or not hasattr(raw, "__index__"):
        raise CsrError(f"ids must be integers, strings or UUIDs, got {type(raw).__name__} {raw!r}")
    number = int(raw)
    if not -(2**63) <= number < 2**64:
        raise CsrError(f"integer ids must fit into 64 bits, got {number}: use a string instead")
    return number


def point_id(external: ExternalId) -> PointId:
    """Return the point id of an id that `normalise_id` gave."""
    if isinstance(external, str):
        if _CANONICAL_UUID.fullmatch(external):
            return external
        return str(uuid.uuid5(NAMESPACE, "s:" + external))
    return external if external >= 0 else str(uuid.uuid5(NAMESPACE, f"i:{external}"))


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
