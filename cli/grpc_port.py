"""The port for gRPC of a server that does not have it where servers do."""

import os

from csr_qdrant.errors import ConfigError

GRPC_PORT_VARIABLE = "QDRANT_GRPC_PORT"

GRPC_HELP = f"Speak gRPC with the server, at port 6334 or {GRPC_PORT_VARIABLE}."


def grpc_port() -> dict[str, int]:
    """Return the argument of `connect` if the environment names a port; ConfigError for none."""
    if not (given := os.environ.get(GRPC_PORT_VARIABLE)):
        return {}
    if not (given.isascii() and given.isdigit() and 0 < int(given) < 2**16):
        raise ConfigError(f"{GRPC_PORT_VARIABLE} must be a port from 1 to 65535, got {given!r}")
    return {"grpc_port": int(given)}
