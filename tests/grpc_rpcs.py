"""The calls of Qdrant's gRPC interface that csr-qdrant makes, by what REST has for them; no test.

So both interfaces do the same to the same collections, and are disturbed by the same plans.
"""

from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote

import grpc_bodies as bodies
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

Message = Any


class Rpc(NamedTuple):
    """A method and a path of REST, the body for a message, and the reply for a result."""

    method: str
    path: str
    body: Callable[[Message], Any] | None
    reply: Callable[[Any], Message]

    def target(self, message: Message) -> str:
        """Return the path for one message."""
        fields = {"c": "collection_name", "field": "field_name", "vector": "vector_name"}
        named = {key: getattr(message, name, "") for key, name in fields.items()}
        return self.path.format(**{key: quote(name, safe="") for key, name in named.items()})

    def arguments(self, message: Message) -> list[Any]:
        """Return the body for one message, if there is one."""
        return [] if self.body is None else [self.body(message)]


def _written(result: models.UpdateResult) -> Message:
    return grpc.PointsOperationResponse(result=RestToGrpc.convert_update_result(result))


def _changed(result: bool) -> Message:
    return grpc.CollectionOperationResponse(result=result)


def _record(record: models.Record) -> Message:
    record.payload = _sent(record.payload or {})
    return RestToGrpc.convert_record(record)


def _sent(value: Any) -> Any:
    """Return a payload as a server sends it: integers from 2^63 on as floating-point numbers."""
    if isinstance(value, dict):
        return {key: _sent(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_sent(each) for each in value]
    return float(value) if isinstance(value, int) and value >= 2**63 else value


def _scored(points: list[models.ScoredPoint]) -> list[Message]:
    for each in points:
        each.version, each.payload = each.version or 0, _sent(each.payload)
    return [RestToGrpc.convert_scored_point(each) for each in points]


def _info(info: models.CollectionInfo) -> Message:
    info.config.params.vectors = info.config.params.vectors or {}
    return grpc.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(info))


def _page(result: dict[str, Any]) -> Message:
    following = result["next_page_offset"]
    return grpc.ScrollResponse(
        result=[_record(each) for each in result["points"]],
        next_page_offset=(
            None if following is None else RestToGrpc.convert_extended_point_id(following)
        ),
    )


def _groups(result: models.GroupsResult) -> Message:
    for group in result.groups:
        _scored(group.hits)
    return grpc.QueryGroupsResponse(result=RestToGrpc.convert_groups_result(result))


def _aliases(result: models.CollectionsAliasesResponse) -> Message:
    found = [RestToGrpc.convert_alias_description(each) for each in result.aliases]
    return grpc.ListAliasesResponse(aliases=found)


def _collections(result: models.CollectionsResponse) -> Message:
    found = [RestToGrpc.convert_collection_description(each) for each in result.collections]
    return grpc.ListCollectionsResponse(collections=found)


def _batch(result: list[dict[str, Any]]) -> Message:
    answers = [grpc.BatchResult(result=_scored(each["points"])) for each in result]
    return grpc.QueryBatchResponse(result=answers)


_C = "/collections/{c}"
_P = f"{_C}/points"
ROOT = {
    "HealthCheck": Rpc(
        "GET",
        "/",
        None,
        lambda r: grpc.HealthCheckReply(title=r["title"], version=r["version"]),
    ),
}
COLLECTIONS = {
    "Get": Rpc("GET", _C, None, _info),
    "List": Rpc("GET", "/collections", None, _collections),
    "Create": Rpc("PUT", _C, bodies.creation, _changed),
    "Update": Rpc("PATCH", _C, GrpcToRest.convert_update_collection, _changed),
    "Delete": Rpc("DELETE", _C, None, _changed),
    "UpdateAliases": Rpc("POST", "/collections/aliases", bodies.aliases, _changed),
    "ListCollectionAliases": Rpc("GET", f"{_C}/aliases", None, _aliases),
    "ListAliases": Rpc("GET", "/aliases", None, _aliases),
    "CollectionExists": Rpc(
        "GET",
        f"{_C}/exists",
        None,
        lambda r: grpc.CollectionExistsResponse(result=grpc.CollectionExists(exists=r["exists"])),
    ),
}
POINTS = {
    "Upsert": Rpc("PUT", _P, bodies.points, _written),
    "Delete": Rpc("POST", f"{_P}/delete", bodies.lost_points, _written),
    "Get": Rpc(
        "POST", _P, bodies.ids, lambda r: grpc.GetResponse(result=[_record(each) for each in r])
    ),
    "UpdateVectors": Rpc("PUT", f"{_P}/vectors", bodies.vectors, _written),
    "DeleteVectors": Rpc("POST", f"{_P}/vectors/delete", bodies.lost_vectors, _written),
    "SetPayload": Rpc("POST", f"{_P}/payload", bodies.payload, _written),
    "OverwritePayload": Rpc("PUT", f"{_P}/payload", bodies.payload, _written),
    "CreateFieldIndex": Rpc("PUT", f"{_C}/index", bodies.index, _written),
    "DeleteFieldIndex": Rpc("DELETE", f"{_C}/index/{{field}}", None, _written),
    "CreateVectorName": Rpc("PUT", f"{_C}/vectors/{{vector}}", bodies.vector_name, _written),
    "DeleteVectorName": Rpc("DELETE", f"{_C}/vectors/{{vector}}", None, _written),
    "Scroll": Rpc("POST", f"{_P}/scroll", bodies.page, _page),
    "Count": Rpc(
        "POST",
        f"{_P}/count",
        bodies.count,
        lambda r: grpc.CountResponse(result=RestToGrpc.convert_count_result(r)),
    ),
    "Facet": Rpc(
        "POST",
        f"{_C}/facet",
        bodies.facet,
        lambda r: grpc.FacetResponse(
            hits=[RestToGrpc.convert_facet_value_hit(each) for each in r.hits]
        ),
    ),
    "Query": Rpc(
        "POST",
        f"{_P}/query",
        GrpcToRest.convert_query_points,
        lambda r: grpc.QueryResponse(result=_scored(r["points"])),
    ),
    "QueryBatch": Rpc("POST", f"{_P}/query/batch", bodies.queries, _batch),
    "QueryGroups": Rpc("POST", f"{_P}/query/groups", bodies.groups, _groups),
}
