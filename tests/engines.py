"""The engines that one suite runs over, and clients of them; not a test itself."""

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from grpc_server import GrpcServer
    from qdrant_client import QdrantClient
    from rest_server import RestServer

# Local mode, a server of the tests' own (`grpc_server.py`) in both its languages, and the one at
# QDRANT_URL: over gRPC with QDRANT_PREFER_GRPC=1, at QDRANT_GRPC_PORT or 6334.
CLIENTS = ["memory", "rest", "grpc", pytest.param("server", marks=pytest.mark.server)]
ENGINES = ["edge", *CLIENTS]


LANGUAGES = ["rest", "grpc"]


def open_server(language: str, seed: int = 0) -> "RestServer | GrpcServer":
    """Return a server of the tests in this process, which `connect` reaches in this language.

    By its `url` and `connection`. To be closed, or used in a `with` block.
    """
    if language == "grpc":
        from grpc_server import GrpcServer

        return GrpcServer(seed=seed)
    from rest_server import RestServer

    return RestServer(seed=seed)


def open_client(kind: str, request: pytest.FixtureRequest) -> "QdrantClient":
    """Return a client of one of CLIENTS; skip the test if there is no server at QDRANT_URL."""
    if kind == "memory":
        from qdrant_client import QdrantClient

        return QdrantClient(":memory:")
    from csr_qdrant.stores.server import connect

    if kind == "rest":
        return connect(request.getfixturevalue("rest_url"))
    if kind == "grpc":
        url, port = request.getfixturevalue("grpc_at")
        return connect(url, prefer_grpc=True, grpc_port=port)
    if not (url := os.environ.get("QDRANT_URL")):
        pytest.skip("QDRANT_URL is not set")
    return connect(
        url,
        api_key=os.environ.get("QDRANT_API_KEY"),
        prefer_grpc=os.environ.get("QDRANT_PREFER_GRPC") == "1",
        grpc_port=int(os.environ.get("QDRANT_GRPC_PORT", "6334")),
    )
