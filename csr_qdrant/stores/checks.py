"""What every store checks before it calls its engine; the embedded engine checks nothing itself."""

import json
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.ids import PointId
from csr_qdrant.stores.base import PointBatch, Schema, Search


def refuse_attached(schema: Schema) -> None:
    """Raise CsrError for an attached collection: writing whole points would drop what is not ours.

    A point that is written anew keeps only the vectors and the payload that come with it.
    """
    if schema.attached:
        raise CsrError(
            "codes were attached to this collection, which holds more than them: write its points "
            "through csr_qdrant.client.CsrQdrant, or as before and run `csr attach` again"
        )


def refuse_deleting(schema: Schema, name: str) -> None:
    """Raise CsrError for an attached collection: it is for its owner to delete."""
    if schema.attached:
        raise CsrError(
            f"{name} was not made by csr-qdrant, which only attached codes to it, so it is not "
            "deleted: take the codes away with `csr detach`"
        )


def check_points(points: PointBatch, schema: Schema) -> None:
    """Raise CsrError unless `points` fit `schema`: equal counts, h, dense shape, finite values."""
    refuse_attached(schema)
    counts = {"ids": len(points.ids), "codes": len(points.codes), "payloads": len(points.payloads)}
    if points.dense is not None:
        counts["dense vectors"] = len(points.dense)
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise CsrError(f"points need as many ids as codes, vectors and payloads, got {listed}")
    _check_hidden(points.codes.h, schema)
    if schema.dense_dim is None and points.dense is not None:
        raise CsrError("this collection keeps no dense vectors: write the points without them")
    if schema.dense_dim is not None and points.dense is None:
        raise CsrError(
            f"this collection keeps dense vectors of {schema.dense_dim} dimensions: "
            "write the points with theirs"
        )
    if points.dense is not None:
        _check_dense(points.dense, schema)


def check_search(request: Search, schema: Schema) -> None:
    """Raise CsrError or ConfigError unless `request` can be answered by a store of `schema`."""
    if request.limit < 1:
        raise ConfigError(f"limit must be at least 1, got {request.limit}")
    _check_hidden(request.codes.h, schema)
    lengths = request.codes.lengths.tolist()
    if not all(lengths):
        raise CsrError(
            f"a query needs at least one active latent, query {lengths.index(0)} has none"
        )
    _check_fusion(request, schema)
    if request.dense is None:
        return
    if schema.dense_dim is None:
        raise CsrError(
            "this collection keeps no dense vectors, so it cannot rescore: "
            "search without rescoring or index again with the dense vectors kept"
        )
    if request.candidates < 1:
        raise ConfigError(f"candidates must be at least 1, got {request.candidates}")
    if len(request.dense) != len(request.codes):
        raise CsrError(
            f"queries need as many dense vectors as codes, got {len(request.dense)} "
            f"and {len(request.codes)}"
        )
    _check_dense(request.dense, schema)


def _check_fusion(request: Search, schema: Schema) -> None:
    fusion = request.fusion
    if fusion is None:
        return
    if fusion.method not in ("rrf", "dbsf"):
        raise ConfigError(f"fusion must be rrf or dbsf, got {fusion.method!r}")
    if fusion.candidates < 1:
        raise ConfigError(f"a fusion's candidates must be at least 1, got {fusion.candidates}")
    if len(fusion.queries) != len(request.codes):
        raise CsrError(
            f"queries need one of the other vector each, got {len(fusion.queries)} "
            f"and {len(request.codes)} codes"
        )
    if isinstance(fusion.queries, np.ndarray) and fusion.name == schema.dense_name:
        if schema.dense_dim is None:
            raise CsrError(
                "this collection keeps no dense vectors to fuse with: name another of its vectors"
            )
        _check_dense(fusion.queries, schema)


def _check_hidden(h: int, schema: Schema) -> None:
    if h != schema.h:
        raise CsrError(
            f"this collection holds codes over {schema.h} latents, got codes over {h}: "
            "use the encoder that it was made with"
        )


def _check_dense(dense: npt.NDArray[Any], schema: Schema) -> None:
    if dense.ndim != 2 or dense.shape[1] != schema.dense_dim:
        raise CsrError(
            f"dense vectors must have shape (n, {schema.dense_dim}), got {dense.shape}: "
            "use the embedder that the collection was made with"
        )
    if not np.isfinite(dense).all():
        bad = int(np.flatnonzero(~np.isfinite(dense).all(axis=1))[0])
        raise CsrError(f"dense vectors must be finite, got NaN or infinity in row {bad}")


def check_point_id(point: Any) -> PointId:
    """Return `point` if it is a u64 or a UUID's text; raises CsrError for any other id."""
    if isinstance(point, str):
        try:
            uuid.UUID(point)
            return point
        except ValueError:
            pass
    elif isinstance(point, int) and not isinstance(point, bool) and 0 <= point < 2**64:
        return point
    raise CsrError(f"point ids must be integers in 0..{2**64 - 1} or UUIDs, got {point!r}")


def payload_text(point: PointId, payload: Mapping[str, Any]) -> str:
    """Return `payload` as ASCII JSON; raises CsrError that names the point if it is none."""
    try:
        return json.dumps(dict(payload), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CsrError(
            f"point {point!r} cannot be stored: its payload is no JSON ({error})"
        ) from error
