"""Look whether a collection, its encoder and its surroundings fit together; nothing is written."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from csr_qdrant.collection import ENCODER_FOLDER
from csr_qdrant.deployment import doctor_machine as machine
from csr_qdrant.deployment.doctor_codes import check_balance, check_codes
from csr_qdrant.deployment.doctor_report import Chart, Diagnosis, Finding
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.identity import Identity
from csr_qdrant.stores.base import Schema, Store
from csr_qdrant.stores.writing import CodeWriter

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

__all__ = ["SAMPLE", "Diagnosis", "Finding", "diagnose", "diagnose_on"]

SAMPLE = 10_000  # points whose codes are counted


def diagnose(
    folder: str | Path, encoder: Encoder | None = None, *, sample: int = SAMPLE
) -> Diagnosis:
    """Examine a collection of Qdrant Edge, with `encoder` or the copy that lies beside it.

    At most `sample` points are read. What is wrong with the collection is told in the findings,
    never raised; ConfigError for a sample below 1.
    """
    _check_sample(sample)
    chart, path = Chart(), Path(folder)
    chart.features |= machine.edge_features()
    started = time.perf_counter()
    try:
        _edge(chart, path, encoder, sample, started)
    except CsrError as error:
        chart.problem("collection", str(error))
    return _diagnosis(chart, str(path))


def diagnose_on(
    client: "QdrantClient", name: str, encoder: Encoder | None = None, *, sample: int = SAMPLE
) -> Diagnosis:
    """Examine the collection `name` on a server as `diagnose` does; it keeps no encoder."""
    from csr_qdrant.stores.server_config import address

    _check_sample(sample)
    chart, location = Chart(), f"collection {name!r} {address(client)}"
    try:
        _server(chart, client, name, encoder, sample)
    except CsrError as error:
        chart.problem("collection", str(error))
    return _diagnosis(chart, location)


def _check_sample(sample: int) -> None:
    if sample < 1:
        raise ConfigError(f"a sample needs at least 1 point, got {sample}")


def _diagnosis(chart: Chart, location: str) -> Diagnosis:
    chart.metrics.setdefault("csr_up", 0)
    chart.metrics |= {
        "csr_problems": chart.count("problem"),
        "csr_warnings": chart.count("warning"),
    }
    versions = machine.versions()
    if "server" in chart.facts:
        versions["server"] = chart.facts["server"]
    return Diagnosis(
        location=location,
        versions=versions,
        features=chart.features,
        cuda=machine.cuda(),
        findings=tuple(chart.findings),
        metrics=chart.metrics,
    )


def _edge(chart: Chart, path: Path, encoder: Encoder | None, sample: int, started: float) -> None:
    from csr_qdrant.stores.edge import EdgeStore
    from csr_qdrant.stores.edge_writer import EdgeCodeWriter

    with EdgeCodeWriter.open(path) as reader:  # which only counts here
        chart.metrics |= {"csr_up": 1, "csr_connect_ms": 1e3 * (time.perf_counter() - started)}
        schema = reader.schema()
        if schema is None:
            _say_bare(chart, str(path))
            return
        readable = _check_vectors(chart, reader, schema)
    if encoder is None:
        encoder = _own_encoder(chart, path)
    with EdgeStore.open(path) as store:
        _examine(chart, store, encoder, sample, readable)


def _own_encoder(chart: Chart, path: Path) -> Encoder | None:
    try:
        return Encoder.load(path / ENCODER_FOLDER)
    except CsrError as error:
        chart.problem("encoder", f"the encoder beside the collection cannot be used: {error}")
        return None


def _server(
    chart: Chart, client: "QdrantClient", name: str, encoder: Encoder | None, sample: int
) -> None:
    from csr_qdrant.stores import server_config as config
    from csr_qdrant.stores.server import READS, ServerStore
    from csr_qdrant.stores.server_errors import server_errors
    from csr_qdrant.stores.server_writer import ServerCodeWriter

    location = f"collection {name!r} {config.address(client)}"
    started = time.perf_counter()
    with server_errors(location, client.init_options.get("api_key")):
        version = READS.call(lambda: machine.server_version(client))
        chart.metrics["csr_connect_ms"] = 1e3 * (time.perf_counter() - started)
        chart.facts["server"] = version
        chart.features |= machine.server_features(version)
    if not chart.features["named_vector_creation"]:
        chart.warn(
            "server",
            f"the server has version {version}, which cannot add codes to a collection in place "
            "(1.18 can): upgrade it, or copy it with codes by csr migrate",
        )
    reader = ServerCodeWriter.open(client, name)  # which only counts here
    chart.metrics["csr_up"] = 1
    schema = reader.schema()
    if schema is None:
        _say_bare(chart, location)
        return
    readable = _check_vectors(chart, reader, schema)
    if encoder is None:
        chart.warn("encoder", "no encoder was given, so codes were not compared: pass --encoder")
    _examine(chart, ServerStore.open(client, name), encoder, sample, readable)


def _say_bare(chart: Chart, location: str) -> None:
    chart.warn("codes", f"{location} has no codes of csr-qdrant: add them with csr attach")


def _examine(
    chart: Chart, store: Store, encoder: Encoder | None, sample: int, readable: bool
) -> None:
    identity = Identity.from_metadata(store.metadata(), store.location)
    chart.metrics |= {"csr_dimension": identity.d, "csr_k": identity.k}
    dense = store.schema.dense_dim
    if dense not in (None, identity.d):
        chart.problem(
            "dense",
            f"the dense vectors have {dense} dimensions, the encoder takes {identity.d}: train one "
            "on this collection and attach its codes",
        )
    fits = _check_encoder(chart, store, identity, encoder)
    if not readable:
        return
    if not (points := store.count()):
        chart.warn("counts", f"{store.location} holds no points yet")
    chart.metrics["csr_points"] = points
    check_codes(chart, store, identity, encoder if fits else None, sample)
    check_balance(chart, store, sample)


def _check_encoder(chart: Chart, store: Store, identity: Identity, encoder: Encoder | None) -> bool:
    """Compare the encoder with the collection; returns whether it is the collection's own."""
    if identity.h != store.schema.h:
        chart.problem(
            "encoder",
            f"the collection's records disagree: {identity.h:,} latents and {store.schema.h:,}; "
            "index or attach anew",
        )
    if encoder is None:
        return False
    try:
        identity.check(encoder, store.location)
    except CsrError as error:
        chart.problem("encoder", str(error))
        return False
    return True


def _check_vectors(chart: Chart, reader: CodeWriter, schema: Schema) -> bool:
    """Compare what the engine holds with the record; returns whether there are codes to read."""
    layout = reader.layout()
    if schema.code_name not in layout.sparse:
        chart.problem(
            "codes",
            f"the sparse vector {schema.code_name!r} is gone from {reader.location}: run csr "
            "attach again, or index anew",
        )
        return False
    chart.metrics["csr_points_coded"] = reader.count(schema.code_name)
    if schema.dense_dim is None:
        return True
    dense = layout.dense.get(schema.dense_name)
    if dense is None or dense.dimension != schema.dense_dim:
        label = f"vector {schema.dense_name!r}" if schema.dense_name else "unnamed vector"
        now = "is gone" if dense is None else f"has {dense.dimension} dimensions"
        chart.problem(
            "dense",
            f"the dense {label} {now}, where codes were made of {schema.dense_dim}: queries cannot "
            "be rescored; attach codes of the vectors that are there",
        )
        return dense is not None
    _check_lacking(chart, reader, schema)
    return True


def _check_lacking(chart: Chart, reader: CodeWriter, schema: Schema) -> None:
    dense = reader.count(schema.dense_name)
    lacking = reader.count(schema.dense_name, schema.code_name)
    chart.metrics |= {"csr_points_dense": dense, "csr_points_lacking_code": lacking}
    if lacking:
        again = "csr attach" if schema.attached else "csr index"
        chart.warn(
            "counts",
            f"{100 * lacking / dense:.3g} % of the points with a dense vector ({lacking:,}) lack a "
            f"code and are never found: run {again} again; vectors without an active latent have "
            "none",
        )
