"""Qdrant's filter in its JSON form, checked: what an engine would misread is refused here."""

import math
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NoReturn

from csr_qdrant.errors import CsrError
from csr_qdrant.stores.base import Json

CLAUSES = ("must", "should", "must_not")
BOUNDS = ("lt", "gt", "gte", "lte")
TEXT_MATCHES = ("text", "text_any", "phrase", "prefix", "substring")


def filter_json(filter: Any) -> Json | None:
    """Return a filter (its JSON form, a `qdrant_client.models.Filter`, or None) as checked JSON.

    Clauses are lists, ids canonical; None if there is nothing to filter by. Raises CsrError that
    names the condition which is unknown or malformed.
    """
    if filter is None:
        return None
    if hasattr(filter, "model_dump"):
        filter = filter.model_dump(mode="json", by_alias=True, exclude_none=True)
    return _filter(filter, "filter") or None


def _refuse(where: str, need: str, got: Any) -> NoReturn:
    raise CsrError(f"{where} needs {need}, got {got!r}")


def _mapping(value: Any, where: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    """Return `value` without its None entries if it is an object with known keys only."""
    if not isinstance(value, Mapping):
        _refuse(where, f"an object with {', '.join(known)}", value)
    for key in value:
        if key not in known:
            raise CsrError(f"{where} does not know {key!r}: it takes {', '.join(known)}")
    return {key: entry for key, entry in value.items() if entry is not None}


def _filter(value: Any, where: str) -> Json:
    clauses = _mapping(value, where, (*CLAUSES, "min_should"))
    checked: Json = {}
    for name in CLAUSES:
        if name in clauses:
            conditions = _conditions(clauses[name], f"{where}.{name}")
            if conditions:
                checked[name] = conditions
    if "min_should" in clauses:
        checked["min_should"] = _min_should(clauses["min_should"], f"{where}.min_should")
    return checked


def _conditions(value: Any, where: str) -> list[Json]:
    if isinstance(value, Mapping):  # Qdrant takes a single condition without its list
        value = [value]
    if not isinstance(value, list | tuple):
        _refuse(where, "a list of conditions", value)
    return [_condition(condition, f"{where}[{row}]") for row, condition in enumerate(value)]


def _min_should(value: Any, where: str) -> Json:
    parts = _mapping(value, where, ("conditions", "min_count"))
    if set(parts) != {"conditions", "min_count"}:
        _refuse(where, "conditions and min_count", value)
    count = _integer(parts["min_count"], f"{where}.min_count", 0, 2**63 - 1)
    conditions = _conditions(parts["conditions"], f"{where}.conditions")
    return {"conditions": conditions, "min_count": count}


def _condition(value: Any, where: str) -> Json:
    """Return one condition: told apart by its keys, as in Qdrant's own schema."""
    if not isinstance(value, Mapping):
        _refuse(where, "a condition", value)
    if "key" in value:
        return _field(value, where)
    if any(name in value for name in (*CLAUSES, "min_should")):
        return _filter(value, where)
    parts = _mapping(value, where, ("key", *_STANDALONE, *CLAUSES, "min_should"))
    if len(parts) != 1:
        _refuse(where, f"a key, or one of {', '.join(_STANDALONE)}", value)
    ((name, argument),) = parts.items()
    return {name: _STANDALONE[name](argument, f"{where}.{name}")}


def _field(value: Mapping[str, Any], where: str) -> Json:
    parts = dict(_mapping(value, where, ("key", *_FIELD)))
    key = _text(parts.pop("key", None), f"{where}.key")
    if len(parts) != 1:
        raise CsrError(
            f"{where} on {key!r} needs exactly one of {', '.join(_FIELD)}, "
            f"got {', '.join(parts) or 'none'}: write one condition for each"
        )
    ((name, argument),) = parts.items()
    return {"key": key, name: _FIELD[name](argument, f"{where} on {key!r}: {name}")}


# --- conditions on a field --------------------------------------------------------------------


def _match(value: Any, where: str) -> Json:
    parts = _mapping(value, where, ("value", "any", "except", *TEXT_MATCHES))
    if len(parts) != 1:
        _refuse(where, f"exactly one of value, any, except, {', '.join(TEXT_MATCHES)}", value)
    ((name, argument),) = parts.items()
    if name in TEXT_MATCHES:
        return {name: _text(argument, f"{where} {name}")}
    if name == "value":
        return {name: _keyword(argument, f"{where} value", booleans=True)}
    if not isinstance(argument, list | tuple | set | frozenset):
        _refuse(f"{where} {name}", "a list of texts or of integers", argument)
    entries = [_keyword(entry, f"{where} {name}", booleans=False) for entry in argument]
    if len({type(entry) for entry in entries}) > 1:
        _refuse(f"{where} {name}", "texts only or integers only", argument)
    return {name: entries}


def _keyword(value: Any, where: str, *, booleans: bool) -> bool | int | str:
    if isinstance(value, str) or (booleans and isinstance(value, bool)):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        hint = "a text or an integer" + (" or a boolean" if booleans else "")
        _refuse(where, f"{hint} (use range for other numbers)", value)
    return _integer(value, where, -(2**63), 2**63 - 1)


def _range(value: Any, where: str) -> Json:
    bounds = _mapping(value, where, BOUNDS)
    if not bounds:
        _refuse(where, f"one of {', '.join(BOUNDS)}", value)
    if all(isinstance(bound, str) for bound in bounds.values()):
        return {name: _time(bound, f"{where} {name}") for name, bound in bounds.items()}
    return {name: _number(bound, f"{where} {name}") for name, bound in bounds.items()}


def _values_count(value: Any, where: str) -> Json:
    bounds = _mapping(value, where, BOUNDS)
    if not bounds:
        _refuse(where, f"one of {', '.join(BOUNDS)}", value)
    return {name: _integer(n, f"{where} {name}", 0, 2**63 - 1) for name, n in bounds.items()}


def _geo_point(value: Any, where: str) -> Json:
    parts = _exactly(value, where, ("lon", "lat"))
    lon, lat = _number(parts["lon"], f"{where} lon"), _number(parts["lat"], f"{where} lat")
    if not (-180 <= lon <= 180 and -90 <= lat <= 90):
        _refuse(where, "lon in -180..180 and lat in -90..90", value)
    return {"lon": lon, "lat": lat}


def _geo_radius(value: Any, where: str) -> Json:
    parts = _exactly(value, where, ("center", "radius"))
    centre = _geo_point(parts["center"], f"{where} center")
    return {"center": centre, "radius": _number(parts["radius"], f"{where} radius")}


def _geo_box(value: Any, where: str) -> Json:
    names = ("top_left", "bottom_right")
    parts = _exactly(value, where, names)
    return {name: _geo_point(parts[name], f"{where} {name}") for name in names}


def _geo_polygon(value: Any, where: str) -> Json:
    parts = _mapping(value, where, ("exterior", "interiors"))
    checked: Json = {"exterior": _ring(parts.get("exterior"), f"{where} exterior")}
    if parts.get("interiors"):
        rings = parts["interiors"]
        checked["interiors"] = [_ring(ring, f"{where} interiors") for ring in rings]
    return checked


def _ring(value: Any, where: str) -> Json:
    points = _exactly(value, where, ("points",))["points"]
    if not isinstance(points, list | tuple) or len(points) < 4 or points[0] != points[-1]:
        _refuse(where, "at least 4 points, the last equal to the first", value)
    return {"points": [_geo_point(point, where) for point in points]}


# --- conditions on a point --------------------------------------------------------------------


def _has_id(value: Any, where: str) -> list[int | str]:
    if not isinstance(value, list | tuple | set | frozenset):
        _refuse(where, "a list of point ids", value)
    return [_point_id(point, where) for point in value]


def _point_id(value: Any, where: str) -> int | str:
    if isinstance(value, int):
        return _integer(value, where, 0, 2**64 - 1)
    try:
        return str(uuid.UUID(str(value)))
    except ValueError:
        _refuse(where, "point ids, integers from 0 or UUIDs", value)


def _nested(value: Any, where: str) -> Json:
    parts = _exactly(value, where, ("key", "filter"))
    key = _text(parts["key"], f"{where}.key")
    return {"key": key, "filter": _filter(parts["filter"], f"{where}.filter")}


def _vector_name(value: Any, where: str) -> str:
    """Return the name of a vector; the empty one is that of the unnamed vector."""
    if not isinstance(value, str):
        _refuse(where, "the name of a vector", value)
    return value


def _payload_field(value: Any, where: str) -> Json:
    return {"key": _text(_exactly(value, where, ("key",))["key"], f"{where}.key")}


# --- values -----------------------------------------------------------------------------------


def _exactly(value: Any, where: str, names: tuple[str, ...]) -> Mapping[str, Any]:
    parts = _mapping(value, where, names)
    if set(parts) != set(names):
        _refuse(where, f"an object with {' and '.join(names)}", value)
    return parts


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        _refuse(where, "a non-empty text", value)
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        _refuse(where, "a finite number", value)
    return value


def _time(value: str, where: str) -> str:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        _refuse(where, "a date or time like 2024-03-01 or 2024-03-01T12:00:00Z", value)
    return value


def _integer(value: Any, where: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        _refuse(where, f"an integer in {low}..{high}", value)
    return value


def _boolean(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        _refuse(where, "true or false", value)
    return value


_Check = Callable[[Any, str], Any]
_STANDALONE: dict[str, _Check] = {
    "is_empty": _payload_field,
    "is_null": _payload_field,
    "has_id": _has_id,
    "has_vector": _vector_name,
    "nested": _nested,
}
_FIELD: dict[str, _Check] = {
    "match": _match,
    "range": _range,
    "geo_radius": _geo_radius,
    "geo_bounding_box": _geo_box,
    "geo_polygon": _geo_polygon,
    "values_count": _values_count,
    "is_empty": _boolean,
    "is_null": _boolean,
}
