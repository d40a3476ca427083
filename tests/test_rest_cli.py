"""Commands in processes of their own against a server, over REST and gRPC: the whole way."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from csr_qdrant.encoder import Encoder
from csr_qdrant.stores.server import connect

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import ClientTarget, check_codes, encoder_of, vectors_of, without_codes
from engines import LANGUAGES

N = 120
X = vectors_of(N)
PROGRAM = "from csr_qdrant.cli.main import main; main()"
Csr = Callable[..., Any]


@pytest.fixture(params=LANGUAGES)
def command(request: pytest.FixtureRequest, grpc_at: tuple[str, int], tmp_path: Path) -> Csr:
    """Give a function that runs `csr` on the server and returns its rows of JSON."""
    settings = {"QDRANT_URL": grpc_at[0], "OMP_NUM_THREADS": "1"}
    if request.param == "grpc":
        settings |= {"QDRANT_GRPC_PORT": str(grpc_at[1])}

    def run(*arguments: object, stdin: str = "") -> list[Any]:
        if request.param == "grpc":
            arguments += ("--grpc", *(["--to-grpc"] if arguments[0] == "migrate" else []))
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, *map(str, arguments), "--json"],
            input=stdin,
            cwd=tmp_path,
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, (arguments, ran.stderr)
        text = ran.stdout.strip()
        try:
            return [json.loads(text)]
        except json.JSONDecodeError:  # a row a line
            return [json.loads(line) for line in text.splitlines()]

    encoder_of().save(tmp_path / "enc")
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "q.npy", X[:3])
    return run


def best(encoder: Encoder, vectors: Any) -> list[int]:
    """Return which row has the code nearest to each vector's."""
    codes = encoder.encode(X).normalised().to_dense()
    return [int(i) for i in np.argmax(encoder.encode(vectors).normalised().to_dense() @ codes.T, 1)]


def test_a_file_is_indexed_and_found(command: Csr, rest_url: str) -> None:
    (indexed,) = command("index", "x.npy", "--encoder", "enc", "--collection", "books")
    assert indexed["rows"] == N
    where = ("--collection", "books", "--encoder", "enc")
    rows = command("query", *where, "--vectors", "q.npy", "-n", 1)
    assert [row["hits"][0]["id"] for row in rows] == best(encoder_of(), X[:3])
    (told,) = command("explain", *where, "--vectors", "q.npy", "-n", 1)
    assert [hit["id"] for hit in told["hits"]] == best(encoder_of(), X[:1])
    assert command("latents", "--collection", "books")[0]["points"] == N


def test_a_collection_is_attached_tuned_looked_at_copied_and_detached(
    command: Csr, rest_url: str
) -> None:
    client = connect(rest_url)
    docs = ClientTarget(client, "docs")
    docs.upsert(range(N), X)
    make_alias(client, "live", "docs")
    before = docs.contents()
    where = ("--collection", "docs", "--encoder", "enc")
    (plan,) = command("attach", *where, "--vector", "text", "--dry-run")
    assert plan["points"] == N and docs.contents() == before
    (attached,) = command("attach", *where, "--vector", "text")
    assert (attached["coded"], attached["complete"]) == (N, True)
    check_codes(docs.contents(), encoder_of())
    rows = command("query", *where, "--vectors", "q.npy", "-n", 1, "--rescore", N)
    nearest = np.argmax(X[:3] @ X.T, axis=1)
    assert [row["hits"][0]["id"] for row in rows] == nearest.tolist()
    (tuned,) = command("tune", *where, "--queries", 20, "--recall", 0.5)
    assert tuned["chosen"] is not None
    (looked,) = command("doctor", *where)
    assert looked["healthy"], looked["findings"]
    copy = ("--to-collection", "copy", "--alias", "live")
    (copied,) = command("migrate", *where, "--vector", "text", *copy)
    assert copied["swapped"] and copied["target_points"] == N
    (alias,) = client.get_aliases().aliases
    assert (alias.alias_name, alias.collection_name) == ("live", "copy")
    command("detach", "--collection", "docs", "--yes")
    assert docs.contents() == before
    assert client.get_collection("docs").config.metadata == {"owner": "somebody else"}
    copy_of = ClientTarget.__new__(ClientTarget)
    copy_of.client, copy_of.name = client, "copy"
    check_codes(copy_of.contents(), encoder_of())
    assert without_codes(copy_of.contents()).keys() == before.keys()


def make_alias(client: QdrantClient, alias: str, name: str) -> None:
    create = models.CreateAlias(collection_name=name, alias_name=alias)
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])
