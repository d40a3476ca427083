"""Indexes, attaches and migrates over REST or gRPC in processes of their own; not a test itself."""

import sys
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient

from csr_qdrant import indexing
from csr_qdrant.collection import Collection
from csr_qdrant.deployment import journal
from csr_qdrant.deployment.attach import AttachConfig, attach_on
from csr_qdrant.deployment.migrate import MigrateConfig, migrate
from csr_qdrant.encoder import Encoder
from csr_qdrant.indexing import IndexConfig, index_source
from csr_qdrant.sources import base, open_source
from csr_qdrant.stores import edge, whole_points_edge, whole_points_server  # noqa: F401
from csr_qdrant.stores.server import READS, connect
from csr_qdrant.stores.server_errors import RetryPolicy

sys.path.insert(0, str(Path(__file__).parent))
from indexing_worker import main

FLUSH = 64  # rows between records of progress, so that there are many
BATCH = 16


def hurry() -> None:
    """Record progress often, and don't wait long before a request is sent again."""
    indexing.FLUSH_ROWS = journal.FLUSH_POINTS = FLUSH
    base.BLOCK_ROWS.update(vectors=BATCH)
    RetryPolicy._pause = lambda self, state: 0.005  # type: ignore[method-assign]


def run(arguments: dict[str, Any]) -> None:
    """Do what `what` says through a client of `url`."""
    hurry()
    encoder = Encoder.load(arguments["encoder"])
    client = connect(
        arguments["url"], timeout_s=arguments.get("timeout_s", 5), **arguments["connection"]
    )
    try:
        globals()[f"_{arguments['what']}"](client, encoder, arguments)
    finally:
        client.close()


def _nothing(client: QdrantClient, encoder: Encoder, arguments: dict[str, Any]) -> None:
    """Take the time that a run takes before it begins."""
    client.info()


def _index(client: QdrantClient, encoder: Encoder, arguments: dict[str, Any]) -> None:
    name = arguments["target"]
    if READS.call(lambda: client.collection_exists(name)):
        collection = Collection.open_on(client, name, encoder)
    else:
        collection = Collection.create_on(client, name, encoder, keep_dense=True)
    with collection:
        index_source(open_source(arguments["source"]), collection, IndexConfig(device="numpy"))


def _attach(client: QdrantClient, encoder: Encoder, arguments: dict[str, Any]) -> None:
    config = AttachConfig(vector="text", batch=BATCH, device="numpy")
    attach_on(client, arguments["target"], encoder, config)


def _migrate(client: QdrantClient, encoder: Encoder, arguments: dict[str, Any]) -> None:
    config = MigrateConfig(
        vector="text", batch=BATCH, device="numpy", alias=arguments.get("alias"), wait=10
    )
    source, target = (_end(client, arguments[key]) for key in ("source", "target"))
    migrate(source, target, encoder, config)


def _end(client: QdrantClient, name: str) -> Any:
    """Return a folder, where `name` is a path, or else a collection of the server."""
    return name if "/" in name else (client, name)


if __name__ == "__main__":
    main(run)
