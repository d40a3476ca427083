"""Requests over gRPC as the bodies that the REST interface has for them; no test itself.

The client's own conversions, for what they know, and here what they lack: the outer messages.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import (
    GrpcToRest,
    grpc_field_type_to_payload_schema,
    grpc_to_payload,
)

Message = Any


def part(message: Message, field: str, convert: Callable[[Any], Any] = lambda value: value) -> Any:
    """Return a field as the REST interface has it, None if it was not set."""
    return convert(getattr(message, field)) if message.HasField(field) else None


def creation(m: Message) -> models.CreateCollection:
    """Of `Collections.Create`."""
    plain = ("shard_number", "on_disk_payload", "replication_factor", "write_consistency_factor")
    return models.CreateCollection(
        vectors=part(m, "vectors_config", GrpcToRest.convert_vectors_config),
        sparse_vectors=part(m, "sparse_vectors_config", GrpcToRest.convert_sparse_vector_config),
        hnsw_config=part(m, "hnsw_config", GrpcToRest.convert_hnsw_config_diff),
        wal_config=part(m, "wal_config", GrpcToRest.convert_wal_config_diff),
        optimizers_config=part(m, "optimizers_config", GrpcToRest.convert_optimizers_config_diff),
        quantization_config=part(m, "quantization_config", GrpcToRest.convert_quantization_config),
        strict_mode_config=part(m, "strict_mode_config", GrpcToRest.convert_strict_mode_config),
        sharding_method=part(m, "sharding_method", GrpcToRest.convert_sharding_method),
        payload=part(m, "payload", GrpcToRest.convert_payload_storage_params),
        id_tracker=part(m, "id_tracker", GrpcToRest.convert_id_tracker_params),
        metadata=grpc_to_payload(m.metadata) or None,
        **{name: part(m, name) for name in plain},
    )


def aliases(m: Message) -> models.ChangeAliasesOperation:
    """Of `Collections.UpdateAliases`."""
    actions = [GrpcToRest.convert_alias_operations(each) for each in m.actions]
    return models.ChangeAliasesOperation(actions=actions)


def index(m: Message) -> models.CreateFieldIndex:
    """Of `Points.CreateFieldIndex`."""
    schema: Any
    if m.HasField("field_index_params"):
        schema = GrpcToRest.convert_payload_schema_params(m.field_index_params)
    else:
        kind = grpc_field_type_to_payload_schema(m.field_type)
        schema = GrpcToRest.convert_payload_schema_type(kind)
    return models.CreateFieldIndex(field_name=m.field_name, field_schema=schema)


def vector_name(m: Message) -> models.VectorNameConfig:
    """Of `Points.CreateVectorName`."""
    if m.HasField("sparse_config"):
        settings = m.sparse_config
        return models.SparseVectorNameConfig(
            sparse=models.SparseVectorConfig(
                modifier=part(settings, "modifier", GrpcToRest.convert_modifier),
                datatype=part(settings, "datatype", _storage),
            )
        )
    settings = m.dense_config
    return models.DenseVectorNameConfig(
        dense=models.DenseVectorConfig(
            size=settings.size,
            distance=GrpcToRest.convert_distance(settings.distance),
            multivector_config=part(
                settings, "multivector_config", GrpcToRest.convert_multivector_config
            ),
            datatype=part(settings, "datatype", _storage),
        )
    )


def points(m: Message) -> models.PointsList:
    """Of `Points.Upsert`."""
    for each in m.points:
        if not each.HasField("vectors"):
            raise ValueError("Expected some vectors")
        _check_numbers(each.payload.values())
    return models.PointsList(
        points=[GrpcToRest.convert_point_struct(each) for each in m.points],
        update_filter=part(m, "update_filter", GrpcToRest.convert_filter),
        update_mode=part(m, "update_mode", GrpcToRest.convert_update_mode),
    )


def vectors(m: Message) -> models.UpdateVectors:
    """Of `Points.UpdateVectors`."""
    return models.UpdateVectors(
        points=[GrpcToRest.convert_point_vectors(each) for each in m.points],
        update_filter=part(m, "update_filter", GrpcToRest.convert_filter),
    )


def lost_vectors(m: Message) -> models.DeleteVectors:
    """Of `Points.DeleteVectors`."""
    return models.DeleteVectors(vector=list(m.vectors.names), **_chosen(m.points_selector))


def lost_points(m: Message) -> models.PointsSelector:
    """Of `Points.Delete`."""
    return GrpcToRest.convert_points_selector(m.points)


def payload(m: Message) -> models.SetPayload:
    """Of `Points.SetPayload` and `Points.OverwritePayload`."""
    _check_numbers(m.payload.values())
    chosen = _chosen(m.points_selector)
    return models.SetPayload(payload=grpc_to_payload(m.payload), key=part(m, "key"), **chosen)


def ids(m: Message) -> models.PointRequest:
    """Of `Points.Get`."""
    return models.PointRequest(
        ids=[GrpcToRest.convert_point_id(each) for each in m.ids], **_wanted(m)
    )


def page(m: Message) -> models.ScrollRequest:
    """Of `Points.Scroll`."""
    return models.ScrollRequest(
        filter=part(m, "filter", GrpcToRest.convert_filter),
        limit=part(m, "limit"),
        offset=part(m, "offset", GrpcToRest.convert_point_id),
        order_by=part(m, "order_by", GrpcToRest.convert_order_by),
        **_wanted(m),
    )


def count(m: Message) -> models.CountRequest:
    """Of `Points.Count`."""
    chosen = part(m, "filter", GrpcToRest.convert_filter)
    return models.CountRequest(filter=chosen, exact=part(m, "exact"))


def facet(m: Message) -> models.FacetRequest:
    """Of `Points.Facet`."""
    chosen = part(m, "filter", GrpcToRest.convert_filter)
    return models.FacetRequest(key=m.key, filter=chosen, limit=part(m, "limit"))


def queries(m: Message) -> models.QueryRequestBatch:
    """Of `Points.QueryBatch`."""
    searches = [GrpcToRest.convert_query_points(each) for each in m.query_points]
    return models.QueryRequestBatch(searches=searches)


def groups(m: Message) -> models.QueryGroupsRequest:
    """Of `Points.QueryGroups`."""
    return models.QueryGroupsRequest(
        prefetch=[GrpcToRest.convert_prefetch_query(each) for each in m.prefetch] or None,
        query=part(m, "query", GrpcToRest.convert_query),
        using=part(m, "using"),
        filter=part(m, "filter", GrpcToRest.convert_filter),
        params=part(m, "params", GrpcToRest.convert_search_params),
        score_threshold=part(m, "score_threshold"),
        group_by=m.group_by,
        group_size=part(m, "group_size"),
        limit=part(m, "limit"),
        **_wanted(m),
    )


def _wanted(m: Message) -> dict[str, Any]:
    return {
        "with_payload": part(m, "with_payload", GrpcToRest.convert_with_payload_interface),
        "with_vector": part(m, "with_vectors", GrpcToRest.convert_with_vectors_selector),
    }


def _chosen(selector: grpc.PointsSelector) -> dict[str, Any]:
    chosen = GrpcToRest.convert_points_selector(selector)
    if isinstance(chosen, models.PointIdsList):
        return {"points": chosen.points}
    return {"filter": chosen.filter}


def _check_numbers(values: Iterable[Message]) -> None:
    for each in values:
        if not math.isfinite(each.double_value):
            raise ValueError("cannot convert to json number")
        _check_numbers(each.list_value.values)
        _check_numbers(each.struct_value.fields.values())


def _storage(datatype: Any) -> models.VectorStorageDatatype:
    return models.VectorStorageDatatype(GrpcToRest.convert_datatype(datatype).value)
