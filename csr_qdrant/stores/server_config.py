"""How a collection is set up on a server, and what is read back from one that exists."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from qdrant_client import QdrantClient, models

from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.stores.base import Json, Schema
from csr_qdrant.stores.layout import DenseVector, Layout

FORMAT = 1
META_KEY = "csr_qdrant"  # of the format and the schema; each metadata key follows a dot
OLDEST_SERVER = (1, 16)  # the first with metadata of collections
NAMED_VECTORS = (1, 18)  # the first that adds a vector name to an existing collection
GRPC_PORT = 6334
# Left to itself, a channel waits up to two minutes before it connects again to a server that was
# away, and fails at once meanwhile: longer than we go on asking.
GRPC_OPTIONS = {
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
}
_CREDENTIALS = re.compile(r"^([^:/?#@]*://)?.*@", re.DOTALL)
DATATYPES = {
    "f32": models.Datatype.FLOAT32,
    "f16": models.Datatype.FLOAT16,
    "u8": models.Datatype.UINT8,
}


def connect(
    url: str,
    *,
    api_key: str | None = None,
    prefer_grpc: bool = False,
    grpc_port: int = GRPC_PORT,
    timeout_s: int | None = None,
) -> QdrantClient:
    """Return a client of the server at `url`; nothing is sent yet.

    With `prefer_grpc` it speaks gRPC, at `grpc_port` of the same host. Raises ConfigError for a URL
    or a key that cannot be used.
    """
    if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
        raise ConfigError("the API key holds characters that no key has: check QDRANT_API_KEY")
    try:
        # The version is checked when a collection is opened, without a thread or a warning.
        return QdrantClient(
            url=url,
            api_key=api_key,
            prefer_grpc=prefer_grpc,
            grpc_port=grpc_port,
            grpc_options=dict(GRPC_OPTIONS),  # the client adds to it
            timeout=timeout_s,
            check_compatibility=False,
        )
    except Exception:  # each part of the client raises types of its own
        raise ConfigError(
            f"{without_password(url)!r} is not the URL of a Qdrant server: "
            "write it like http://localhost:6333"
        ) from None  # whose text may hold a password


def address(client: QdrantClient) -> str:
    """Return where a client leads, for messages; never a key or a password."""
    options = client.init_options
    if options.get("url"):
        return f"at {without_password(str(options['url']))}"
    if options.get("location") == ":memory:" or options.get("path"):
        return "in local mode"
    location = options.get("location") or options.get("host") or "localhost"
    return f"at {without_password(str(location))}"


def without_password(url: str) -> str:
    """Return a URL without user and password, written with its scheme or not."""
    # Not parsed as a URL: what looks like one to its user may be none, and its password is secret.
    return _CREDENTIALS.sub(r"\1", url)


def without_passwords(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command without users and passwords in the URLs among them."""
    shown = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        flag, equals, value = argument.partition("=")
        if before == "--url" or "://" in argument:
            argument = without_password(argument)
        if equals and flag == "--url":
            argument = f"{flag}={without_password(value)}"
        shown.append(argument)
    return shown


def is_older(version: str, oldest: tuple[int, int]) -> bool:
    """Tell whether a server's version is below `oldest`; of versions without numbers none is."""
    parts = version.removeprefix("v").split(".")[:2]
    return all(part.isdigit() for part in parts) and tuple(map(int, parts)) < oldest


def refuse_old(client: QdrantClient) -> None:
    """Raise CsrError for a server below 1.16; local mode has the version of the client."""
    version = client.info().version
    if is_older(version, OLDEST_SERVER):
        raise CsrError(
            f"the Qdrant server {address(client)} has version {version}, csr-qdrant needs at least "
            f"{'.'.join(map(str, OLDEST_SERVER))}: upgrade the server"
        )


def dense_config(schema: Schema) -> dict[str, models.VectorParams]:
    """Return the dense vectors' set-up: none, or on disk and without a graph.

    They serve rescoring only; a graph, or RAM for them, would cost what the codes save.
    """
    if schema.dense_dim is None:
        return {}
    parameters = models.VectorParams(
        size=schema.dense_dim,
        distance=models.Distance.COSINE,
        datatype=DATATYPES[schema.dense_datatype],
        on_disk=True,
        hnsw_config=models.HnswConfigDiff(m=0),
    )
    return {schema.dense_name: parameters}


def sparse_config(schema: Schema) -> dict[str, models.SparseVectorParams]:
    """Return the codes' set-up."""
    index = models.SparseIndexParams(datatype=DATATYPES[schema.datatype])
    return {schema.code_name: models.SparseVectorParams(index=index)}


def first_metadata(schema: Schema, metadata: Mapping[str, Any]) -> Json:
    """Return what a new collection holds as metadata, all under keys of our own."""
    own = {f"{META_KEY}.{key}": value for key, value in metadata.items()}
    return {META_KEY: {"format": FORMAT, "schema": schema.to_json()}, **own}


def read_schema(info: models.CollectionInfo, location: str) -> Schema:
    """Return the schema of a collection; raises CsrError if csr-qdrant did not make it."""
    schema = recorded_schema(info, location)
    if schema is None:
        raise CsrError(
            f"{location} was not made by csr-qdrant (its metadata has no {META_KEY!r}): "
            "add codes to it with `csr attach`, or index into a new collection"
        )
    if schema.code_name not in (info.config.params.sparse_vectors or {}):
        raise CsrError(f"{location} has lost its sparse vectors {schema.code_name!r}")
    return schema


def recorded_schema(info: models.CollectionInfo, location: str) -> Schema | None:
    """Return the schema in a collection's metadata, None if there is none.

    Raises CsrError for one that is damaged or newer than this release.
    """
    described = (info.config.metadata or {}).get(META_KEY)
    if described is None:
        return None
    try:
        if described["format"] > FORMAT:
            raise CsrError(
                f"{location} has format {described['format']}, this version reads up to {FORMAT}: "
                "upgrade csr-qdrant"
            )
        return Schema(**described["schema"])
    except (KeyError, TypeError, ValueError) as error:
        raise CsrError(f"the metadata of {location} are damaged ({error})") from error


def layout(info: models.CollectionInfo) -> Layout:
    """Return the vectors that a collection holds."""
    parameters = info.config.params
    given = parameters.vectors or {}
    named = given if isinstance(given, dict) else {"": given}
    multi = tuple(name for name, each in named.items() if each.multivector_config)
    dense = {
        name: DenseVector(name, each.size, each.distance.value)
        for name, each in named.items()
        if name not in multi
    }
    return Layout(dense, multi, tuple(parameters.sparse_vectors or {}))


def own_metadata(info: models.CollectionInfo) -> Json:
    """Return the metadata below our keys."""
    prefix = META_KEY + "."
    stored = info.config.metadata or {}
    return {key.removeprefix(prefix): v for key, v in stored.items() if key.startswith(prefix)}
