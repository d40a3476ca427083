"""Where a collection is: in a folder, or under a name on a Qdrant server."""

import os
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from csr_qdrant.atomic import remove_whole
from csr_qdrant.cli.grpc_port import GRPC_HELP, grpc_port
from csr_qdrant.cli.keys import KEY_HELP, KEY_VARIABLE, api_key
from csr_qdrant.cli.output import Output
from csr_qdrant.cli.rows import about
from csr_qdrant.collection import ENCODER_FOLDER, Collection
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.identity import Identity
from csr_qdrant.stores.base import Datatype, Json, Schema
from csr_qdrant.stores.checks import refuse_deleting

if TYPE_CHECKING:
    from csr_qdrant.embedders import Embedder
    from csr_qdrant.stores.disk import DiskSizes
    from csr_qdrant.stores.edge import EdgeStore
    from csr_qdrant.stores.server import ServerStore

URL_VARIABLE = "QDRANT_URL"
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How to reach a collection on a server; its API key is in a file or in QDRANT_API_KEY."""

    url: str | None = field(
        default=None,
        metadata=about(
            f"Qdrant server, instead of a folder. [default with --collection: {URL_VARIABLE}]",
            "URL",
        ),
    )
    collection: str | None = field(
        default=None, metadata=about("Name of the collection on the server.", "NAME")
    )
    api_key_file: Path | None = field(default=None, metadata=about(KEY_HELP, "FILE"))
    grpc: bool = field(default=False, metadata=about(GRPC_HELP))
    timeout: int | None = field(
        default=None, metadata=about("Seconds to wait for an answer of the server.", "SECONDS")
    )

    @property
    def given(self) -> bool:
        """Whether a server is meant."""
        return self.url is not None or self.collection is not None


class Existing(NamedTuple):
    """A collection that is there already."""

    identity: Identity
    schema: Schema
    metadata: Json


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to make a collection."""

    encoder: Encoder
    k: int
    datatype: Datatype
    keep_dense: bool
    shards: int | None = None
    replicas: int | None = None


class Place(Protocol):
    """A folder, or a name on a server; there may be a collection or not."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    def existing(self) -> Existing | None:
        """Return what is there, None for nothing; CsrError for what is no collection of ours."""

    def own_encoder(self) -> Encoder | None:
        """Return the encoder that is kept with the collection, None if there is none."""

    def open(self, encoder: Encoder | None, embedder: "Embedder | None" = None) -> Collection:
        """Open the collection."""

    def keep_encoder(self, encoder: Encoder) -> None:
        """Keep a copy with the collection, where there is room for one and none is there yet."""

    def create(self, plan: Plan, embedder: "Embedder | None" = None) -> Collection:
        """Make an empty collection."""

    def delete(self) -> None:
        """Delete the collection and all its points."""

    def open_store(self) -> Any:
        """Open the collection's store alone, which needs no encoder."""

    def sizes(self, store: Any) -> "DiskSizes | None":
        """Return the bytes of an open store on disk, None where they cannot be measured."""

    def close(self) -> None:
        """Release connections."""


def place_of(folder: Path | None, server: ServerSettings) -> Place:
    """Return the place that the arguments of a command name; ConfigError unless it is one."""
    if folder is not None and server.given:
        raise ConfigError(
            f"got both a folder ({folder}) and a server: give one of them, a folder or --url with "
            f"--collection"
        )
    if folder is not None:
        return FolderPlace(folder)
    if not server.given:
        raise ConfigError("no collection is named: give a folder, or --url with --collection")
    url = server.url or os.environ.get(URL_VARIABLE)
    if url is None:
        raise ConfigError(f"--collection needs a server: pass --url or set {URL_VARIABLE}")
    if not server.collection:
        raise ConfigError("--url needs the name of a collection: pass --collection")
    return ServerPlace(url, server.collection, server)


@dataclass(frozen=True)
class FolderPlace:
    """A folder, for Qdrant's embedded engine."""

    folder: Path

    @property
    def name(self) -> str:
        """The path."""
        return str(self.folder)

    def existing(self) -> Existing | None:
        """Read what stands beside the engine's files; the engine is not opened."""
        from csr_qdrant.stores.edge_folder import read_description

        if not self.folder.exists():
            return None
        schema, metadata = read_description(self.folder)
        return Existing(Identity.from_metadata(metadata, self.name), schema, metadata)

    def own_encoder(self) -> Encoder | None:
        """Load the copy in the folder; a run killed while it made the folder leaves none."""
        copy = self.folder / ENCODER_FOLDER
        return Encoder.load(copy) if copy.exists() else None

    def open(self, encoder: Encoder | None, embedder: "Embedder | None" = None) -> Collection:
        """Open the collection; nothing is written."""
        return Collection.open(self.folder, encoder, embedder)

    def keep_encoder(self, encoder: Encoder) -> None:
        """Save a copy; a run killed while it made the folder left none."""
        if not (self.folder / ENCODER_FOLDER).exists():
            encoder.save(self.folder / ENCODER_FOLDER)

    def create(self, plan: Plan, embedder: "Embedder | None" = None) -> Collection:
        """Make the folder."""
        return Collection.create(
            self.folder,
            plan.encoder,
            k=plan.k,
            keep_dense=plan.keep_dense,
            datatype=plan.datatype,
            embedder=embedder,
        )

    def delete(self) -> None:
        """Remove the folder, unless another process has it open or it is somebody else's."""
        found = self.existing()
        if found is not None:
            refuse_deleting(found.schema, self.name)
        self.open_store().close()
        remove_whole(self.folder)

    def open_store(self) -> "EdgeStore":
        """Open the folder."""
        from csr_qdrant.stores.edge import EdgeStore

        return EdgeStore.open(self.folder)

    def sizes(self, store: "EdgeStore") -> "DiskSizes | None":
        """Measure the folder."""
        return store.sizes()

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True)
class ServerPlace:
    """A name on a server."""

    url: str
    collection: str
    settings: ServerSettings
    key_variable: str = KEY_VARIABLE
    key_of: "ServerPlace | None" = None  # a place on the same server, whose key is asked for once

    @property
    def name(self) -> str:
        """Collection and address, without a password."""
        from csr_qdrant.stores.server_config import address

        return f"collection {self.collection!r} {address(self.client)}"

    @cached_property
    def key(self) -> str | None:
        """The API key, if there is one."""
        if self.key_of is not None:
            return self.key_of.key
        return api_key(self.settings.api_key_file, self.key_variable)

    @cached_property
    def client(self) -> Any:
        """The connection; nothing is sent before the first request."""
        from csr_qdrant.stores.server import connect

        key = self.key
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the client says of keys is said better below
            client = connect(
                self.url,
                api_key=key,
                prefer_grpc=self.settings.grpc,
                **grpc_port(),
                timeout_s=self.settings.timeout,
            )
        parts = urlsplit(self.url)
        if key and parts.scheme == "http" and parts.hostname not in _THIS_MACHINE:
            Output().warn(f"the API key travels unencrypted to {parts.hostname}: use https")
        return client

    def existing(self) -> Existing | None:
        """Ask the server."""
        from csr_qdrant.stores.server import READS
        from csr_qdrant.stores.server_errors import server_errors

        with server_errors(self.name, self.key):
            if not READS.call(lambda: self.client.collection_exists(self.collection)):
                return None
        store = self.open_store()
        metadata = store.metadata()
        return Existing(Identity.from_metadata(metadata, self.name), store.schema, metadata)

    def own_encoder(self) -> Encoder | None:
        """A server keeps no encoder."""
        return None

    def open(self, encoder: Encoder | None, embedder: "Embedder | None" = None) -> Collection:
        """Open the collection with `encoder`."""
        if encoder is None:
            raise ConfigError(f"{self.name} keeps no encoder: pass --encoder, its folder")
        return Collection.open_on(self.client, self.collection, encoder, embedder)

    def keep_encoder(self, encoder: Encoder) -> None:
        """Do nothing: a server keeps no encoder."""

    def create(self, plan: Plan, embedder: "Embedder | None" = None) -> Collection:
        """Make the collection."""
        return Collection.create_on(
            self.client,
            self.collection,
            plan.encoder,
            k=plan.k,
            keep_dense=plan.keep_dense,
            datatype=plan.datatype,
            embedder=embedder,
            shards=plan.shards,
            replicas=plan.replicas,
        )

    def delete(self) -> None:
        """Delete the collection on the server; refused for one that csr-qdrant did not make."""
        from csr_qdrant.stores.server_errors import server_errors

        found = self.existing()
        if found is None:
            raise CsrError(f"there is no {self.name}: nothing was deleted")
        refuse_deleting(found.schema, self.name)
        with server_errors(self.name, self.key):
            self.client.delete_collection(self.collection)

    def open_store(self) -> "ServerStore":
        """Open the collection."""
        from csr_qdrant.stores.server import ServerStore

        return ServerStore.open(self.client, self.collection)

    def sizes(self, store: Any) -> "DiskSizes | None":
        """A server does not tell."""
        return None

    def close(self) -> None:
        """Close the connection, if there was one."""
        if "client" in vars(self):
            self.client.close()
