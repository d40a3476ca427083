"""The routes of Qdrant's REST interface that csr-qdrant and its users' libraries call; no test.

Bodies are parsed by the client's own models, which refuse what they do not know. Statuses and
sentences are those of the server, 1.19.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from qdrant_client import models
from qdrant_client.http import models as http_models
from rest_engine import Engine, float32
from rest_strict import refuse

LIMIT_BYTES = 32 * 2**20
REFUSALS = (ValidationError, ValueError, TypeError, LookupError, FileExistsError)
_INVALID = ("must be unique", "same length", "Must be")  # found by checks of single fields
Body = Any
Do = Callable[[Engine, str, Body], Any]


class Answer(NamedTuple):
    """A status and the JSON document."""

    status: int
    document: Any


class Route(NamedTuple):
    """A method and a path, with the type of the body, and what is done."""

    method: str
    path: re.Pattern[str]
    body: Any
    do: Callable[..., Any]


def _route(method: str, path: str, body: Any, do: Callable[..., Any]) -> Route:
    named = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)
    return Route(method, re.compile(named), body, do)


def answer(engine: Engine, method: str, target: str, raw: bytes) -> Answer:
    """Return the answer to one request."""
    url = urlsplit(target)
    if (found := route_of(method, url.path)) is None:
        return failure(501, f"this stub of a server does not know {method} {url.path}")
    return _answer(engine, *found, parse_qs(url.query), raw)


def route_of(method: str, path: str) -> tuple[Route, dict[str, str]] | None:
    """Return the route of a request, and what the path names."""
    for route in ROUTES:
        if route.method == method and (found := route.path.fullmatch(path)):
            return route, {key: unquote(value) for key, value in found.groupdict().items()}
    return None


def perform(engine: Engine, route: Route, names: dict[str, str], *arguments: Body) -> Any:
    """Do what a request with these bodies, one or none, asks for."""
    with engine.lock:
        if "c" in names and route.method + route.path.pattern not in _WITHOUT_COLLECTION:
            engine.require(names["c"])
            refuse(engine.strict(names["c"]), *arguments or (None,))
        return route.do(engine, *names.values(), *arguments)


def failure(status: int, text: str) -> Answer:
    """Return an error as the server words it."""
    return Answer(status, {"status": {"error": text}, "time": 0.0})


def _answer(
    engine: Engine, route: Route, names: dict[str, str], params: dict[str, list[str]], raw: bytes
) -> Answer:
    try:
        arguments = () if route.body is None else (_parsed(route.body, raw),)
        result = perform(engine, route, names, *arguments)
    except REFUSALS as error:
        return failure_of(error)
    if isinstance(result, models.UpdateResult) and params.get("wait") != ["true"]:
        result.status = models.UpdateStatus.ACKNOWLEDGED
    if route.path.pattern == "/":
        return Answer(200, result)
    return Answer(200, {"result": result, "status": "ok", "time": 0.0})


def _parsed(kind: Any, raw: bytes) -> Any:
    return _adapter(kind).validate_python(from_json(raw, allow_inf_nan=False))


def warm_up() -> None:
    """Build what parses requests, so that the first ones take no longer than others."""
    for route in ROUTES:
        if route.body is not None:
            _adapter(route.body)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def failure_of(error: Exception) -> Answer:
    """Return what the server answers to one of REFUSALS."""
    text = str(error.args[0]) if error.args else str(error)
    if isinstance(error, FileExistsError):
        return failure(409, text)
    if isinstance(error, KeyError):  # of local mode: the point that is missing
        return failure(404, f"Not found: No point with id {text} found")
    if isinstance(error, LookupError):
        return failure(404, text)
    if isinstance(error, ValidationError):
        return failure(400, f"Format error in JSON body: {error.errors()[0]['msg']}")
    if any(part in text for part in _INVALID):
        return failure(422, f"Validation error in JSON body: [{text}]")
    told = text if text.startswith(("Wrong input", "Bad request")) else f"Wrong input: {text}"
    return failure(400, told)


# --- what is done ---------------------------------------------------------------------------


def _selected(body: Any) -> Any:
    """Return which points a request is about, as local mode takes it."""
    if getattr(body, "points", None) is not None:
        return models.PointIdsList(points=body.points)
    return models.FilterSelector(filter=body.filter)


def _upsert(engine: Engine, c: str, body: Any) -> Any:
    points = body.points if isinstance(body, models.PointsList) else body.batch
    return engine.client.upsert(
        c, points, update_filter=body.update_filter, update_mode=body.update_mode
    )


def _retrieve(engine: Engine, c: str, body: models.PointRequest) -> Any:
    payload = True if body.with_payload is None else body.with_payload
    return float32(engine.client.retrieve(c, body.ids, payload, body.with_vector or False))


def _scroll(engine: Engine, c: str, body: models.ScrollRequest) -> Any:
    points, following = engine.client.scroll(
        c,
        scroll_filter=body.filter,
        limit=10 if body.limit is None else body.limit,
        order_by=body.order_by,
        offset=body.offset,
        with_payload=True if body.with_payload is None else body.with_payload,
        with_vectors=body.with_vector or False,
    )
    return {"points": float32(points), "next_page_offset": following}


def _asked(engine: Engine, c: str, body: models.QueryRequest) -> Any:
    body.with_payload, body.with_vector = body.with_payload or False, body.with_vector or False
    (found,) = engine.client.query_batch_points(c, [body])
    return {"points": float32(found.points)}


def _batch(engine: Engine, c: str, body: models.QueryRequestBatch) -> Any:
    return [_asked(engine, c, each) for each in body.searches]


def _groups(engine: Engine, c: str, body: models.QueryGroupsRequest) -> Any:
    same = ("prefetch", "query", "using", "score_threshold", "lookup_from", "with_lookup")
    found = engine.client.query_points_groups(
        c,
        **{key: getattr(body, key) for key in same},
        group_by=body.group_by,
        query_filter=body.filter,
        search_params=body.params,
        limit=10 if body.limit is None else body.limit,
        group_size=3 if body.group_size is None else body.group_size,
        with_payload=body.with_payload or False,
        with_vectors=body.with_vector or False,
    )
    for group in found.groups:
        float32(group.hits)
    return found


def _aliases(engine: Engine, body: models.ChangeAliasesOperation) -> bool:
    for each in body.actions:
        if isinstance(each, models.CreateAliasOperation):
            alias, of = each.create_alias.alias_name, each.create_alias.collection_name
            names = [one.name for one in engine.client.get_collections().collections]
            if of not in names:
                raise LookupError(f"Not found: Collection `{of}` doesn't exist!")
            if alias in names:
                raise FileExistsError(f"Wrong input: Collection `{alias}` already exists!")
    return bool(engine.client.update_collection_aliases(body.actions))


def _count(engine: Engine, c: str, body: models.CountRequest) -> Any:
    return engine.client.count(c, count_filter=body.filter, exact=body.exact is not False)


def _facet(engine: Engine, c: str, body: models.FacetRequest) -> Any:
    limit = 10 if body.limit is None else body.limit
    return engine.client.facet(c, body.key, facet_filter=body.filter, limit=limit)


def _set_payload(engine: Engine, c: str, body: models.SetPayload) -> Any:
    return engine.client.set_payload(c, body.payload, _selected(body), key=body.key)


def _overwrite_payload(engine: Engine, c: str, body: models.SetPayload) -> Any:
    return engine.client.overwrite_payload(c, body.payload, _selected(body))


_C = "/collections/{c}"
_EXISTS = f"{_C}/exists"
ROUTES = [
    _route("GET", "/", None, lambda e: {"title": "qdrant", "version": e.version, "commit": None}),
    _route("GET", "/collections", None, lambda e: e.client.get_collections()),
    _route("GET", "/aliases", None, lambda e: e.client.get_aliases()),
    _route("POST", "/collections/aliases", models.ChangeAliasesOperation, _aliases),
    _route("PUT", _C, models.CreateCollection, Engine.create),
    _route("DELETE", _C, None, Engine.delete),
    _route("GET", _EXISTS, None, lambda e, c: {"exists": e.client.collection_exists(c)}),
    _route("GET", _C, None, Engine.info),
    _route("PATCH", _C, models.UpdateCollection, Engine.update),
    _route("GET", f"{_C}/aliases", None, lambda e, c: e.client.get_collection_aliases(c)),
    _route(
        "PUT",
        f"{_C}/index",
        models.CreateFieldIndex,
        lambda e, c, b: e.add_index(c, b.field_name, b.field_schema),
    ),
    _route("DELETE", f"{_C}/index/{{field}}", None, Engine.remove_index),
    _route(
        "PUT",
        f"{_C}/vectors/{{vector}}",
        http_models.VectorNameConfig,
        lambda e, c, vector, b: e.client.create_vector_name(c, vector, b),
    ),
    _route(
        "DELETE",
        f"{_C}/vectors/{{vector}}",
        None,
        lambda e, c, vector: e.client.delete_vector_name(c, vector),
    ),
    _route("PUT", f"{_C}/points", http_models.PointInsertOperations, _upsert),
    _route("POST", f"{_C}/points", models.PointRequest, _retrieve),
    _route("POST", f"{_C}/points/scroll", models.ScrollRequest, _scroll),
    _route("POST", f"{_C}/points/count", models.CountRequest, _count),
    _route(
        "POST",
        f"{_C}/points/delete",
        http_models.PointsSelector,
        lambda e, c, b: e.client.delete(c, b),
    ),
    _route(
        "PUT",
        f"{_C}/points/vectors",
        models.UpdateVectors,
        lambda e, c, b: e.client.update_vectors(c, b.points, update_filter=b.update_filter),
    ),
    _route(
        "POST",
        f"{_C}/points/vectors/delete",
        models.DeleteVectors,
        lambda e, c, b: e.client.delete_vectors(c, b.vector, _selected(b)),
    ),
    _route("POST", f"{_C}/points/payload", models.SetPayload, _set_payload),
    _route("PUT", f"{_C}/points/payload", models.SetPayload, _overwrite_payload),
    _route("POST", f"{_C}/points/query", models.QueryRequest, _asked),
    _route("POST", f"{_C}/points/query/batch", models.QueryRequestBatch, _batch),
    _route("POST", f"{_C}/points/query/groups", models.QueryGroupsRequest, _groups),
    _route("POST", f"{_C}/facet", models.FacetRequest, _facet),
]
_WITHOUT_COLLECTION = {
    method + _route(method, path, None, print).path.pattern
    for method, path in (("PUT", _C), ("DELETE", _C), ("GET", _EXISTS))
}
