"""Fixtures that several rooms' tests share."""

import json
import os
import runpy
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from csr_qdrant.stores.base import Schema, Store

sys.path.insert(0, str(Path(__file__).parent))
from engines import ENGINES, open_client

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

    from csr_qdrant.encoder import Encoder

MakeStore = Callable[..., Store]

# torchvision may be built for another torch than the one that is installed: see there. Programs
# that tests start find the same hook in `site`.
runpy.run_path(str(Path(__file__).with_name("torchvision_hook.py")))["install"]()
_PATHS = [str(Path(__file__).with_name("site")), os.environ.get("PYTHONPATH")]
os.environ["PYTHONPATH"] = os.pathsep.join(path for path in _PATHS if path)

# Triton reads this once, when it is first imported: without a GPU its kernels are interpreted.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Libraries that adapters are written for would report their use over the network.
os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
os.environ.setdefault("LANGSMITH_TRACING", "false")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture(params=ENGINES)
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStore]:
    """Give a function (schema, metadata) -> empty store, over every engine in turn."""
    if request.param == "edge":
        yield from _edge(tmp_path)
    else:
        yield from _client(open_client(request.param, request))


@pytest.fixture(scope="session")
def server_process() -> Iterator[tuple[str, int]]:
    """Give the URL and the gRPC port of a server of `grpc_server.py`, in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("grpc_server.py")), "--until-eof"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        url, port = process.stdout.readline().split()
        yield url, int(port)
        process.stdin.close()


@pytest.fixture
def grpc_at(server_process: tuple[str, int]) -> tuple[str, int]:
    """Give the URL and the gRPC port of a server that holds nothing."""
    import httpx

    httpx.put(f"{server_process[0]}/stub/reset", content=b"").raise_for_status()
    return server_process


@pytest.fixture
def rest_url(grpc_at: tuple[str, int]) -> str:
    """Give the URL of a server that speaks Qdrant's REST interface and holds nothing."""
    return grpc_at[0]


def _edge(folder: Path) -> Iterator[MakeStore]:
    from csr_qdrant.stores.edge import EdgeStore

    made: list[EdgeStore] = []

    def make(schema: Schema, metadata: dict[str, Any] | None = None) -> Store:
        made.append(EdgeStore.create(folder / f"collection-{len(made)}", schema, metadata))
        return made[-1]

    yield make
    for store in made:
        store.close()


def _client(client: "QdrantClient") -> Iterator[MakeStore]:
    from csr_qdrant.stores.server import ServerStore

    names: list[str] = []

    def make(schema: Schema, metadata: dict[str, Any] | None = None) -> Store:
        names.append(f"csr-qdrant-test-{uuid.uuid4().hex}")
        return ServerStore.create(client, names[-1], schema, metadata)

    yield make
    for name in names:  # only what this test made
        client.delete_collection(name)
    client.close()


class Ran(NamedTuple):
    """What a command did."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The JSON document on stdout."""
        assert self.exit_code == 0, self.stderr
        return json.loads(self.stdout)

    @property
    def rows(self) -> list[Any]:
        """The JSON lines on stdout."""
        assert self.exit_code == 0, self.stderr
        return [json.loads(line) for line in self.stdout.splitlines()]


@pytest.fixture
def csr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Give a function that runs `csr` with these arguments, in this process and an empty folder."""
    from typer.testing import CliRunner

    from csr_qdrant.cli.main import app

    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("CSR_", "QDRANT_"))]:
        monkeypatch.delenv(name)

    def run(*arguments: object, stdin: str | bytes | None = None) -> Ran:
        ran = CliRunner().invoke(app, [str(each) for each in arguments], input=stdin)
        return Ran(ran.exit_code, ran.stdout, ran.stderr)

    return run


@pytest.fixture
def tiny_encoder() -> "Encoder":
    """Give an untrained encoder of 8 dimensions, 32 latents and k = 4."""
    import numpy as np

    from csr_qdrant.encoder import Encoder

    rng = np.random.default_rng(7)
    return Encoder(
        weight=rng.normal(size=(32, 8)).astype(np.float32),
        latent_bias=np.zeros(32, np.float32),
        pre_bias=np.zeros(8, np.float32),
        k=4,
    )
