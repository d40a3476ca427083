"""A Qdrant server under test: one temporary collection an index.

Collections are called `csr-bench-RUN-INDEX`, where RUN is drawn at random for each folder of
results. The folder's `collections.json` names them before they are made, and each says in its
metadata whose it is: only what both agree on is ever opened or deleted. What a killed run left is
taken up by the next run in the same folder, and deleted when that is finished.
"""

import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from qdrant_client import QdrantClient

from csr_qdrant.atomic import write_json
from csr_qdrant.benchmarks.engine import DenseVectors, Layout
from csr_qdrant.benchmarks.server_index import ServerIndex, Waiting
from csr_qdrant.benchmarks.server_types import collection_settings
from csr_qdrant.errors import CsrError
from csr_qdrant.stores.server_config import address, refuse_old
from csr_qdrant.stores.server_errors import RetryPolicy, server_errors

PREFIX = "csr-bench-"
OWNER = "csr_bench"  # in a collection's metadata
RECORD = "collections.json"  # in the folder of results
TURBO_SINCE = (1, 18)
WRITES = RetryPolicy(attempts=5, first_s=0.5, longest_s=10)

Tell = Callable[[str], None]


class ServerEngine:
    """A server that takes a benchmark's indexes, and keeps none when the run is finished.

    If the run stops before `finished`, its collections stay, and are named.
    """

    name = "Qdrant server"
    embedded = False

    def __init__(
        self,
        client: QdrantClient,
        folder: Path,
        tell: Tell,
        *,
        waiting: Waiting | None = None,
        owns_client: bool = False,
    ) -> None:
        """Take up what an earlier run in `folder` left there.

        Raises CsrError for a server below 1.16, or one that cannot be reached.
        """
        self._client, self._record, self._tell = client, folder / RECORD, tell
        self._waiting, self._owns_client = waiting or Waiting(), owns_client
        self._where = address(client)
        self.version = str(self._call(lambda: _version(client)))
        self._run, self._names = self._remembered()
        self._tell_what_is_there()

    @property
    def identity(self) -> str:
        """Name, version and address."""
        return f"{self.name} {self.version} {self._where}"

    def place(self, folder: Path) -> "ServerPlace":
        """Return the collection that stands for `folder`."""
        part = re.sub(r"[^A-Za-z0-9.]+", "-", folder.name).strip("-")[:48]
        digest = sha256(folder.name.encode()).hexdigest()[:6]  # names are cut, and may collide
        return ServerPlace(self, f"{PREFIX}{self._run}-{part}-{digest}", folder)

    def lacks(self, quantisation: str) -> str | None:
        """Say in a sentence why the server cannot quantise so; None if it can."""
        numbers = tuple(int(part) for part in re.findall(r"\d+", self.version)[:2])
        if not quantisation.startswith("turbo") or numbers >= TURBO_SINCE:
            return None
        since = ".".join(map(str, TURBO_SINCE))
        return f"the server has version {self.version}, TurboQuant came with {since}"

    def memory_bytes(self) -> dict[str, int] | None:
        """Return what the whole server allocated and has resident, None if it does not tell."""
        try:
            told = self._client.http.service_api.telemetry().result
        except Exception:  # a figure to have or not: some servers refuse it, local mode has none
            return None
        memory = told.memory if told else None
        if memory is None:
            return None
        return {"allocated": memory.allocated_bytes, "resident": memory.resident_bytes}

    def finished(self) -> None:
        """Delete the collections of this run; its figures are kept."""
        for name in list(self._names):
            self.remove(name)

    def __enter__(self) -> Self:
        """Return the engine."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Name what stays behind, and close the client if it is owned."""
        if self._names:
            self._tell(
                f"the run stopped, and left {_listed(self._names)} {self._where}: the same command "
                "goes on with them and deletes them in the end; or delete them yourself"
            )
        if self._owns_client:
            self._client.close()

    # --- collections --------------------------------------------------------------------------

    def create(self, name: str, layout: Layout) -> ServerIndex:
        """Make the collection `name`; CsrError if there is one of that name."""
        if self._call(lambda: self._client.collection_exists(name)):
            raise CsrError(f"collection {name!r} {self._where} exists already: it is left alone")
        self._names.append(name)
        self._remember()  # first, so that a killed run knows of it
        settings = collection_settings(layout)
        owner = {OWNER: self._run}
        self._call(lambda: self._client.create_collection(name, metadata=owner, **settings))
        wide = sum(v.size for v in layout.values() if isinstance(v, DenseVectors))
        graph = any(isinstance(v, DenseVectors) and v.m for v in layout.values())
        return ServerIndex(self._client, name, self._waiting, wide=wide, graph=graph)

    def open(self, name: str, n: int) -> ServerIndex:
        """Open a collection of this run; CsrError if it is not there, or has not `n` rows."""
        if not self.holds(name):
            raise CsrError(f"collection {name!r} {self._where} is gone: run again to build it anew")
        index = ServerIndex(self._client, name, self._waiting)
        index.rows = n
        if (found := index.count()) != n:
            raise CsrError(f"{index.name} holds {found} rows, not {n}: delete it and run again")
        return index

    def holds(self, name: str) -> bool:
        """Tell whether the collection exists and is this run's own."""
        if name not in self._names or not self._call(lambda: self._client.collection_exists(name)):
            return False
        info = self._call(lambda: self._client.get_collection(name))
        if (info.config.metadata or {}).get(OWNER) == self._run:
            return True
        raise CsrError(
            f"collection {name!r} {self._where} was made by somebody else: it is left alone, "
            "choose another --output"
        )

    def remove(self, name: str) -> None:
        """Delete a collection of this run, if it is there."""
        if self.holds(name):
            self._call(lambda: self._client.delete_collection(name))
        if name in self._names:
            self._names.remove(name)
            self._remember()

    def _remembered(self) -> tuple[str, list[str]]:
        if not self._record.exists():
            return secrets.token_hex(4), []
        try:
            record = json.loads(self._record.read_text("utf-8"))
            run, names = str(record["run"]), [str(name) for name in record["collections"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CsrError(
                f"{self._record} is damaged ({error}): remove the folder, and on the server what "
                f"begins with {PREFIX} and is nobody's"
            ) from None
        if not re.fullmatch("[0-9a-f]{8}", run) or not all(
            name.startswith(f"{PREFIX}{run}-") for name in names
        ):
            raise CsrError(f"{self._record} names collections that no benchmark made: remove it")
        return run, names

    def _remember(self) -> None:
        write_json(self._record, {"run": self._run, "collections": self._names})

    def _tell_what_is_there(self) -> None:
        there = [each.name for each in self._call(self._client.get_collections).collections]
        if own := [name for name in self._names if name in there]:
            self._tell(f"going on with {_listed(own)} {self._where}, left by a run that stopped")
        others = [name for name in there if name.startswith(PREFIX) and name not in own]
        if others:
            self._tell(
                f"{_listed(others)} {self._where} belong to other runs and stay as they are: "
                "delete them yourself if none of those is to go on"
            )

    def _call(self, function: Callable[[], Any]) -> Any:
        with server_errors(self._where, self._client.init_options.get("api_key")):
            return WRITES.call(function)


@dataclass(frozen=True)
class ServerPlace:
    """A name on a server as the place of an index; `folder` takes what this machine keeps of it."""

    engine: ServerEngine
    collection: str
    folder: Path

    def create(self, layout: Layout) -> ServerIndex:
        """Make the collection."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        return self.engine.create(self.collection, layout)

    def open(self, n: int) -> ServerIndex:
        """Open the collection of `n` rows that is there."""
        return self.engine.open(self.collection, n)

    def exists(self) -> bool:
        """Tell whether this run's collection is there."""
        return self.engine.holds(self.collection)

    def clear(self) -> None:
        """Delete this run's collection, if there is one."""
        self.engine.remove(self.collection)

    def beside(self, ending: str) -> Path:
        """Return a path on this machine."""
        return self.folder.with_name(f"{self.folder.name}{ending}")


def _version(client: QdrantClient) -> str:
    refuse_old(client)
    return client.info().version


def _listed(names: list[str]) -> str:
    return f"collection{'s' if len(names) > 1 else ''} {', '.join(sorted(names))}"
