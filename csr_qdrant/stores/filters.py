"""Filters for the engines: from Qdrant's JSON form to what each engine takes.

The engines' packages are imported on use, so that a deployment loads only the one it has.
"""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from csr_qdrant.errors import CsrError
from csr_qdrant.stores.base import Json
from csr_qdrant.stores.filter_json import CLAUSES, filter_json

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["client_filter", "edge_filter", "filter_json"]


def client_filter(filter: Any) -> "models.Filter | None":
    """Return a filter as `qdrant_client.models.Filter`; raises CsrError if it is malformed."""
    checked = filter_json(filter)
    if checked is None:
        return None
    from pydantic import ValidationError
    from qdrant_client import models

    try:
        return models.Filter.model_validate(checked)
    except ValidationError as error:
        first = error.errors()[-1]
        place = ".".join(str(part) for part in first["loc"])
        raise CsrError(f"the filter is malformed at {place}: {first['msg']}") from error


def edge_filter(filter: Any) -> Any:
    """Return a filter as `qdrant_edge.Filter` or None; raises CsrError if it is malformed."""
    checked = filter_json(filter)
    return None if checked is None else _filter(checked)


def _filter(checked: Json) -> Any:
    from qdrant_edge import Filter, MinShould

    parts: dict[str, Any] = {
        name: [_condition(condition) for condition in checked[name]]
        for name in CLAUSES
        if name in checked
    }
    if "min_should" in checked:
        conditions = [_condition(condition) for condition in checked["min_should"]["conditions"]]
        parts["min_should"] = MinShould(conditions, checked["min_should"]["min_count"])
    return Filter(**parts)


def _condition(checked: Json) -> Any:
    if "key" not in checked and not _standalone().keys() & checked.keys():
        return _filter(checked)
    try:
        if "key" in checked:
            return _field(checked)
        ((name, argument),) = checked.items()
        return _standalone()[name](argument)
    except CsrError:
        raise
    except Exception as error:  # the engine's own reading of JSON paths and of dates
        raise CsrError(f"filter condition {checked} is malformed: {error}") from error


def _field(checked: Json) -> Any:
    from qdrant_edge import FieldCondition

    ((name, argument),) = ((name, value) for name, value in checked.items() if name != "key")
    return FieldCondition(checked["key"], **{name: _arguments()[name](argument)})


@cache
def _standalone() -> dict[str, Callable[[Any], Any]]:
    import qdrant_edge as edge

    return {
        "is_empty": lambda value: edge.IsEmptyCondition(value["key"]),
        "is_null": lambda value: edge.IsNullCondition(value["key"]),
        "has_id": lambda value: edge.HasIdCondition(set(value)),
        "has_vector": edge.HasVectorCondition,
        "nested": lambda value: edge.NestedCondition(value["key"], _filter(value["filter"])),
    }


@cache
def _arguments() -> dict[str, Callable[[Any], Any]]:
    import qdrant_edge as edge

    return {
        "match": _match,
        "range": _range,
        "geo_radius": lambda v: edge.GeoRadius(_point(v["center"]), v["radius"]),
        "geo_bounding_box": lambda v: edge.GeoBoundingBox(
            _point(v["top_left"]), _point(v["bottom_right"])
        ),
        "geo_polygon": lambda v: edge.GeoPolygon(
            _ring(v["exterior"]), [_ring(ring) for ring in v.get("interiors", [])]
        ),
        "values_count": lambda v: edge.ValuesCount(**v),
        "is_empty": bool,
        "is_null": bool,
    }


def _match_value(value: bool | int | str) -> Any:
    from numpy import bool_
    from qdrant_edge import MatchValue

    # qdrant-edge-py 0.9.0 reads a Python bool as the integer 0 or 1; numpy's is no integer.
    exact: Any = bool_(value) if isinstance(value, bool) else value
    return MatchValue(exact)


def _match(checked: Json) -> Any:
    import qdrant_edge as edge

    makers: dict[str, Callable[[Any], Any]] = {
        "value": _match_value,
        "text": edge.MatchText,
        "text_any": edge.MatchTextAny,
        "phrase": edge.MatchPhrase,
        "prefix": edge.MatchPrefix,
        "substring": edge.MatchSubstring,
        "any": edge.MatchAny,
        "except": edge.MatchExcept,
    }
    ((name, argument),) = checked.items()
    return makers[name](argument)


def _range(bounds: Json) -> Any:
    from qdrant_edge import RangeDateTime, RangeFloat

    is_time = any(isinstance(bound, str) for bound in bounds.values())
    return RangeDateTime(**bounds) if is_time else RangeFloat(**bounds)


def _point(checked: Json) -> Any:
    from qdrant_edge import GeoPoint

    return GeoPoint(checked["lon"], checked["lat"])


def _ring(checked: Json) -> list[Any]:
    return [_point(point) for point in checked["points"]]
