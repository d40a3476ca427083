"""Filters mean the same in every engine, and malformed ones are refused before any engine."""

import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import CsrError
from csr_qdrant.stores.base import PointBatch, Schema, Search, Store
from csr_qdrant.stores.filters import client_filter, edge_filter, filter_json

UUID = str(uuid.uuid5(uuid.NAMESPACE_DNS, "example"))
BERLIN, PARIS = {"lon": 13.4, "lat": 52.5}, {"lon": 2.35, "lat": 48.86}
IDS: list[int | str] = [0, 1, 2, 3, 4, UUID]
PAYLOADS: list[dict[str, Any]] = [
    {"n": 0, "x": 0.5, "flag": True, "tags": ["red", "blue"], "title": "Grüße aus dem Süden"},
    {"n": 1, "x": 1.5, "flag": False, "tags": ["red"], "title": "the north wind", "at": BERLIN},
    {"n": 2, "x": -2.5, "tags": [], "day": "2024-03-01T12:00:00Z", "at": PARIS},
    {"n": 3, "x": 1e9, "tags": None, "day": "2024-05-01T00:00:00Z", "title": "wind of the north"},
    {"n": -4, "parts": [{"kind": "a", "size": 1}, {"kind": "b", "size": 9}], "deep": {"n": 7}},
    {"n": 2**53 + 1, "parts": [{"kind": "a", "size": 9}], "day": "2023-12-31T23:00:00+02:00"},
]
LAST = UUID
SQUARE = [(0.0, 45.0), (20.0, 45.0), (20.0, 50.0), (0.0, 50.0), (0.0, 45.0)]


def field(key: str, **condition: Any) -> dict[str, Any]:
    return {"key": key, **condition}


def must(*conditions: dict[str, Any]) -> dict[str, Any]:
    return {"must": list(conditions)}


def ring(points: list[tuple[float, float]]) -> dict[str, Any]:
    return {"points": [{"lon": lon, "lat": lat} for lon, lat in points]}


TABLE: list[tuple[str, dict[str, Any], list[int | str]]] = [
    ("integer", must(field("n", match={"value": 2})), [2]),
    ("large integer", must(field("n", match={"value": 2**53 + 1})), [LAST]),
    ("true is not 1", must(field("flag", match={"value": True})), [0]),
    ("false is not 0", must(field("flag", match={"value": False})), [1]),
    ("1 is not true", must(field("n", match={"value": 1})), [1]),
    ("keyword", must(field("title", match={"value": "the north wind"})), [1]),
    ("any element of a list", must(field("tags", match={"value": "red"})), [0, 1]),
    ("nested key", must(field("deep.n", match={"value": 7})), [4]),
    ("key through a list", must(field("parts[].size", match={"value": 9})), [4, LAST]),
    ("any of texts", must(field("tags", match={"any": ["blue", "green"]})), [0]),
    ("any of integers", must(field("n", match={"any": [0, 3, 99]})), [0, 3]),
    ("any of nothing", must(field("n", match={"any": []})), []),
    ("except", must(field("n", match={"except": [0, 1, 2, 3]})), [4, LAST]),
    ("text", must(field("title", match={"text": "Süden"})), [0]),
    ("phrase", must(field("title", match={"phrase": "north wind"})), [1]),
    ("range", must(field("x", range={"gte": 0.5, "lt": 2})), [0, 1]),
    ("open range", must(field("x", range={"gt": 1.5})), [3]),
    ("range without limits given as null", must(field("x", range={"lte": -2.5, "gt": None})), [2]),
    ("datetime", must(field("day", range={"gte": "2024-03-01T13:00:00+01:00"})), [2, 3]),
    ("day", must(field("day", range={"gte": "2024-03-02"})), [3]),
    ("datetime without zone", must(field("day", range={"gt": "2024-04-30T23:59:59"})), [3]),
    ("datetime in another zone", must(field("day", range={"lt": "2024-01-01T00:00:00Z"})), [LAST]),
    (
        "radius",
        must(field("at", geo_radius={"center": {"lon": 13.0, "lat": 52.0}, "radius": 80_000})),
        [1],
    ),
    (
        "box",
        must(
            field(
                "at",
                geo_bounding_box={
                    "top_left": {"lon": 0, "lat": 50},
                    "bottom_right": {"lon": 20, "lat": 45},
                },
            )
        ),
        [2],
    ),
    ("polygon", must(field("at", geo_polygon={"exterior": ring(SQUARE)})), [2]),
    ("values count", must(field("tags", values_count={"gte": 2})), [0]),
    ("empty", must({"is_empty": {"key": "title"}}), [2, 4, LAST]),
    ("null", must({"is_null": {"key": "tags"}}), [3]),
    ("field is empty", must(field("flag", is_empty=False)), [0, 1]),
    ("field is null", must(field("tags", is_null=True)), [3]),
    ("ids", must({"has_id": [1, 3, 77, UUID]}), [1, 3, LAST]),
    ("ids in capitals", must({"has_id": [UUID.upper()]}), [LAST]),
    ("vector", must({"has_vector": "csr"}), [*IDS]),
    ("unnamed vector", must({"has_vector": ""}), []),
    (
        "nested holds within one element",
        must(
            {
                "nested": {
                    "key": "parts",
                    "filter": must(
                        field("kind", match={"value": "a"}), field("size", match={"value": 9})
                    ),
                }
            }
        ),
        [LAST],
    ),
    (
        "should",
        {"should": [field("n", match={"value": 0}), field("n", match={"value": 3})]},
        [0, 3],
    ),
    ("must not", {"must_not": [field("n", range={"lt": 3})]}, [3, LAST]),
    ("one condition without a list", {"must": field("n", match={"value": 1})}, [1]),
    (
        "all clauses together",
        {
            "must": [field("n", range={"gte": 0})],
            "should": [field("tags", match={"value": "red"}), field("n", match={"value": 2})],
            "must_not": [{"has_id": [0]}],
        },
        [1, 2],
    ),
    (
        "minimum of conditions",
        {
            "min_should": {
                "conditions": [
                    field("tags", match={"value": "red"}),
                    field("tags", match={"value": "blue"}),
                    field("flag", match={"value": False}),
                ],
                "min_count": 2,
            }
        },
        [0, 1],
    ),
    (
        "filter within a filter",
        must({"should": [field("n", match={"value": 2}), {"must": [{"has_id": [4]}]}]}),
        [2, 4],
    ),
]


def all_alike() -> SparseCodes:
    codes = np.zeros((len(IDS), 4), np.float32)
    codes[:, 1] = 1
    return SparseCodes.from_dense(codes)


@pytest.fixture
def store(make_store: Callable[..., Store]) -> Store:
    made = make_store(Schema(h=4))
    made.upsert(PointBatch(IDS, all_alike(), None, PAYLOADS))
    return made


def test_filters_select_the_same_points_in_every_engine(store: Store) -> None:
    for name, filter, wanted in TABLE:
        assert store.count(filter) == len(wanted), name
        (hits,) = store.search(Search(codes=all_alike()[:1], limit=10, filter=filter))
        assert {hit.id for hit in hits} == set(wanted), name


def test_filters_of_the_client_are_taken_as_well(store: Store) -> None:
    for name, filter, wanted in TABLE:
        typed: Any = models.Filter.model_validate(filter)
        assert store.count(typed) == len(wanted), name


def test_no_filter_counts_everything(store: Store) -> None:
    empty: list[Any] = [None, {}, {"must": []}, {"must": None}, models.Filter()]
    for filter in empty:
        assert filter_json(filter) is None
        assert store.count(filter) == len(IDS)


MALFORMED: list[tuple[Any, str]] = [
    ([], "filter needs an object"),
    ({"musst": []}, "filter does not know 'musst': it takes must, should, must_not, min_should"),
    ({"must": "n"}, "filter.must needs a list of conditions, got 'n'"),
    (must({"kye": "n"}), r"filter.must\[0\] does not know 'kye'"),
    (must({}), r"filter.must\[0\] needs a key, or one of is_empty"),
    (must(field("n")), "on 'n' needs exactly one of match, range"),
    (must(field("n", match={"value": 1}, range={"gt": 1})), "got match, range: write one"),
    (must(field("", match={"value": 1})), "key needs a non-empty text"),
    (must(field("n", mtach={"value": 1})), "does not know 'mtach'"),
    (must(field("n", match={"values": 1})), "does not know 'values'"),
    (must(field("n", match={"value": 1.5})), "use range for other numbers"),
    (must(field("n", match={"value": [1]})), "needs a text or an integer or a boolean"),
    (must(field("n", match={"value": 2**63})), "needs an integer in"),
    (must(field("n", match={"any": "red"})), "any needs a list of texts or of integers"),
    (must(field("n", match={"any": ["red", 1]})), "needs texts only or integers only"),
    (must(field("n", match={"any": [True]})), "use range for other numbers"),
    (must(field("n", match={"text": 3})), "text needs a non-empty text, got 3"),
    (must(field("n", range={})), "range needs one of lt, gt, gte, lte"),
    (must(field("n", range={"gt": "2024-01-01", "lt": 3})), "gt needs a finite number"),
    (must(field("n", range={"gt": float("nan")})), "gt needs a finite number"),
    (must(field("n", range={"above": 3})), "does not know 'above'"),
    (must(field("n", range={"gt": "yesterday"})), "needs a date or time like 2024-03-01"),
    (must(field("n", values_count={"gt": -1})), "gt needs an integer in 0"),
    (must(field("a", geo_radius={"center": {"lon": 1}, "radius": 2})), "lon and lat"),
    (must(field("a", geo_radius={"center": {"lon": 1, "lat": 91}, "radius": 2})), "lat in -90"),
    (must(field("a", geo_radius={"center": {"lon": 1, "lat": 1}, "radius": "2"})), "radius needs"),
    (must(field("a", geo_polygon={"exterior": ring(SQUARE[:3])})), "at least 4 points"),
    (must(field("a", geo_polygon={"exterior": ring(SQUARE[:4])})), "equal to the first"),
    (must(field("a", is_null="yes")), "is_null needs true or false"),
    (must({"has_id": 3}), "has_id needs a list of point ids"),
    (must({"has_id": ["doc-3"]}), "integers from 0 or UUIDs, got 'doc-3'"),
    (must({"has_id": [-1]}), "needs an integer in 0"),
    (must({"has_vector": ["csr"]}), r"has_vector needs the name of a vector, got \['csr'\]"),
    (must({"is_empty": {"kye": "n"}}), "does not know 'kye'"),
    (must({"nested": {"key": "parts"}}), "key and filter"),
    (must({"nested": {"key": "parts", "filter": {"nust": []}}}), "does not know 'nust'"),
    ({"min_should": {"conditions": []}}, "conditions and min_count"),
    ({"min_should": {"conditions": [], "min_count": "2"}}, "min_count needs an integer"),
]


@pytest.mark.parametrize("convert", [edge_filter, client_filter])
def test_malformed_filters_are_refused_in_one_sentence(convert: Callable[[Any], Any]) -> None:
    for filter, message in MALFORMED:
        with pytest.raises(CsrError, match=message) as caught:
            convert(filter)
        assert "\n" not in str(caught.value), filter
        assert caught.value.exit_code == 1


def test_a_filter_is_not_changed_by_its_conversion() -> None:
    filter = {"must": {"key": "n", "match": {"any": (1, 2)}}, "should": None}
    assert filter_json(filter) == {"must": [{"key": "n", "match": {"any": [1, 2]}}]}
    assert filter == {"must": {"key": "n", "match": {"any": (1, 2)}}, "should": None}


def test_converted_filters_stay_the_same_when_converted_again() -> None:
    for name, filter, _ in TABLE:
        once = filter_json(filter)
        assert filter_json(once) == once, name
        assert filter_json(client_filter(filter)) == filter_json(client_filter(once)), name
