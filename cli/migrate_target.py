"""Where `csr migrate` puts the copy: in a folder, or on a server, the source's or another."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from csr_qdrant.cli.keys import KEY_VARIABLE, TARGET_KEY_VARIABLE
from csr_qdrant.cli.places import URL_VARIABLE, FolderPlace, Place, ServerPlace, ServerSettings
from csr_qdrant.cli.rows import about
from csr_qdrant.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TargetSettings:
    """Where the copy is to be."""

    to: Path | None = field(
        default=None, metadata=about("Folder for the copy, unless on a server.", "FOLDER")
    )
    to_url: str | None = field(
        default=None,
        metadata=about(
            f"Server for the copy. [default: the source's, or {URL_VARIABLE}]",
            "URL",
        ),
    )
    to_collection: str | None = field(
        default=None, metadata=about("Name of the copy on the server.", "NAME")
    )
    to_api_key_file: Path | None = field(
        default=None,
        metadata=about(
            "File that holds the API key of the copy's server, if that is another one; - asks for "
            f"it. [default: {TARGET_KEY_VARIABLE}]",
            "FILE",
        ),
    )
    to_grpc: bool = field(default=False, metadata=about("Speak gRPC with the copy's server."))
    to_timeout: int | None = field(
        default=None, metadata=about("Seconds to wait for the copy's server.", "SECONDS")
    )


def target_of(settings: TargetSettings, source: Place) -> Place:
    """Return the place of the copy; ConfigError unless the settings name one.

    The key of the source's server is never sent to another one.
    """
    on_server = settings.to_url is not None or settings.to_collection is not None
    if settings.to is not None and on_server:
        raise ConfigError(
            f"got both a folder ({settings.to}) and a server for the copy: give one of them, --to "
            "or --to-collection"
        )
    if settings.to is not None:
        return FolderPlace(settings.to)
    if not on_server:
        raise ConfigError(
            "the copy has no place: give --to FOLDER, or --to-collection, with --to-url for "
            "another server"
        )
    theirs = source.url if isinstance(source, ServerPlace) else None
    url = settings.to_url or theirs or os.environ.get(URL_VARIABLE)
    if url is None:
        raise ConfigError(f"--to-collection needs a server: pass --to-url or set {URL_VARIABLE}")
    if not settings.to_collection:
        raise ConfigError("--to-url needs a name for the copy: pass --to-collection")
    how = ServerSettings(
        api_key_file=settings.to_api_key_file, grpc=settings.to_grpc, timeout=settings.to_timeout
    )
    same = source if theirs == url and settings.to_api_key_file is None else None
    if isinstance(same, ServerPlace):
        return ServerPlace(url, settings.to_collection, how, key_of=same)
    own = theirs is not None or bool(os.environ.get(TARGET_KEY_VARIABLE))
    variable = TARGET_KEY_VARIABLE if own else KEY_VARIABLE
    return ServerPlace(url, settings.to_collection, how, variable)
