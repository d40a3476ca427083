"""`csr migrate`: places, keys, what it says, and what it asks."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from csr_qdrant.stores import whole_points_edge as edge_points

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import ClientTarget, EdgeTarget, encoder_of, vectors_of

Csr = Callable[..., Any]
N = 40
ENCODER = ("--encoder", "enc", "--vector", "text")


@pytest.fixture(autouse=True)
def files(csr: Csr) -> None:
    """Put a bare shard `docs` of N points and an encoder into the folder that commands run in."""
    EdgeTarget(Path("docs")).upsert(range(N), vectors_of(N))
    encoder_of().save("enc")


class Servers(dict[str, QdrantClient]):
    """Local mode in the place of servers by URL, and how they were connected to."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, str | None]] = []

    def connect(self, url: str, api_key: str | None = None, **_: Any) -> QdrantClient:
        self.sent.append((url, api_key))
        if url not in self:
            self[url] = QdrantClient(":memory:")
            self[url].close = lambda **_: None  # type: ignore[method-assign]  # it outlives them
        return self[url]


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    made = Servers()
    monkeypatch.setattr("csr_qdrant.stores.server.connect", made.connect)
    return made


def test_a_folder_is_copied_after_a_plan(csr: Csr) -> None:
    plan = csr("migrate", "docs", "--to", "new", *ENCODER, "--dry-run", "--json").json
    assert plan["dry_run"] is True and plan["points"] == N and plan["phase"] is None
    assert sorted(plan["dense"]) == ["image", "text"] and plan["sparse"] == ["csr"]
    assert not Path("new").exists()
    told = csr("migrate", "docs", "--to", "new", *ENCODER, "--dry-run")
    assert f"would copy {N} points" in told.stdout and "payload indexes none" in told.stdout
    ran = csr("migrate", "docs", "--to", "new", *ENCODER)
    assert ran.exit_code == 0, ran.stderr
    assert f"it has {N} of {N}, {N} with a code" in ran.stdout and "copies" in ran.stderr
    assert "vectors image, text, csr" in told.stdout and "payload indexes" not in ran.stderr
    np.save("q.npy", vectors_of(1))
    (row,) = csr("query", "new", "--vectors", "q.npy", "--rescore", N, "--json").rows
    assert row["hits"]


def test_a_finished_copy_is_compared_again_only_if_told(csr: Csr) -> None:
    assert csr("migrate", "docs", "--to", "new", *ENCODER).exit_code == 0
    EdgeTarget.upsert(edge("docs"), [N], vectors_of(1, seed=1))
    ran = csr("migrate", "docs", "--to", "new", *ENCODER)
    assert ran.exit_code == 2 and "pass --yes to make it equal" in ran.stderr
    again = csr("migrate", "docs", "--to", "new", *ENCODER, "--yes", "--json").json
    assert (again["copied"], again["mended"], again["complete"]) == (0, 1, True)
    assert again["target_points"] == N + 1


def edge(folder: str) -> EdgeTarget:
    made = EdgeTarget.__new__(EdgeTarget)
    made.folder = Path(folder)
    return made


def test_the_alias_moves_on_a_server(csr: Csr, servers: Servers) -> None:
    client = servers.connect("http://localhost:6333")
    ClientTarget(client, "old").upsert(range(N), vectors_of(N))
    create = models.CreateAlias(collection_name="old", alias_name="live")
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])
    source = ("--url", "http://localhost:6333", "--collection", "live")
    target = ("--to-collection", "new", "--alias", "live", *ENCODER)
    told = csr("migrate", *source, *target, "--dry-run").stdout
    assert "then the alias 'live', which stands for collection 'old'" in told
    assert not client.collection_exists("new")
    ran = csr("migrate", *source, *target, "--json").json
    assert ran["swapped"] and ran["plan"]["source"].startswith("collection 'old'")
    (alias,) = client.get_aliases().aliases
    assert (alias.alias_name, alias.collection_name) == ("live", "new")
    assert client.count("old").count == N


URL, OTHER = "http://localhost:6333", "http://127.0.0.1:7333"
SOURCE = ("--url", URL, "--collection", "old")


@pytest.mark.parametrize(
    ("arguments", "other_key", "keys"),
    [
        ((*SOURCE, "--to-collection", "new"), "other", [(URL, "own"), (URL, "own")]),
        (
            (*SOURCE, "--to-url", OTHER, "--to-collection", "new"),
            "other",
            [(URL, "own"), (OTHER, "other")],
        ),
        (
            (*SOURCE, "--to-url", OTHER, "--to-collection", "new"),
            "",
            [(URL, "own"), (OTHER, None)],
        ),
        (("docs", "--to-url", URL, "--to-collection", "new"), "", [(URL, "own")]),
        (("docs", "--to-url", URL, "--to-collection", "new"), "other", [(URL, "other")]),
    ],
)
def test_no_server_gets_the_key_of_another(
    csr: Csr,
    servers: Servers,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    other_key: str,
    keys: list[tuple[str, str | None]],
) -> None:
    ClientTarget(servers.connect(URL), "old").upsert(range(N), vectors_of(N))
    servers.sent.clear()
    monkeypatch.setenv("QDRANT_API_KEY", "own")
    monkeypatch.setenv("QDRANT_TARGET_API_KEY", other_key)
    ran = csr("migrate", *arguments, *ENCODER, "--json")
    assert ran.exit_code == 0 and ran.json["complete"], ran.stderr
    assert sorted(servers.sent, key=str) == sorted(keys, key=str)
    assert '"own"' not in ran.stdout and '"other"' not in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("docs",), "the copy has no place: give --to FOLDER"),
        (("docs", "--to", "new", "--to-collection", "new"), "got both a folder (new) and a server"),
        (("docs", "--to-collection", "new"), "pass --to-url or set QDRANT_URL"),
        (("docs", "--to-url", URL), "--to-url needs a name for the copy"),
        (("docs", "--to", "docs"), "cannot be copied into itself"),
        (("docs", "--to", "enc"), "exists and is not a collection of csr-qdrant"),
        (("docs", "--to", "new", "--alias", "live"), "is a folder, which has no aliases"),
        (("docs", "--to", "new", "--drop-dense", "--rescore"), "got both drop-dense and rescore"),
        (("docs", "--to", "new", "--k", "3000"), "k must be"),
    ],
)
def test_what_cannot_work_is_refused(csr: Csr, arguments: tuple[str, ...], said: str) -> None:
    ran = csr("migrate", *arguments, *ENCODER)
    assert ran.exit_code == 2 and said in ran.stderr
    assert not Path("new").exists()
    assert sorted(path.name for path in Path("enc").iterdir() if "csr" in path.name) == ["csr.json"]


def test_bad_points_are_named(csr: Csr) -> None:
    zero = np.zeros((1, 8), np.float32)
    edge("docs").upsert([7], zero)
    ran = csr("migrate", "docs", "--to", "new", *ENCODER, "--bad-rows", "bad.jsonl")
    assert ran.exit_code == 0 and "1 points have no code or were refused: see bad.jsonl" in (
        ran.stderr
    )
    assert "1 points cannot have a code" in ran.stdout
    assert '"id": 7' in Path("bad.jsonl").read_text("utf-8")


def test_the_json_keys_are_those_that_are_documented(csr: Csr) -> None:
    from test_cli_docs import documented

    plan = csr("migrate", "docs", "--to", "new", *ENCODER, "--dry-run", "--json").json
    assert sorted(plan) == sorted(documented("migrate", "With `--dry-run`:"))
    told = csr("migrate", "docs", "--to", "new", *ENCODER, "--json").json
    assert sorted(told) == sorted(documented("migrate", "JSON keys:"))


def test_a_copy_that_lacks_points_is_a_failure(csr: Csr, monkeypatch: pytest.MonkeyPatch) -> None:
    made = edge_points._engine_point

    def picky(point: Any) -> Any:
        if point.id == 3:
            raise ValueError("it is bad")
        return made(point)

    monkeypatch.setattr(edge_points, "_engine_point", picky)
    ran = csr("migrate", "docs", "--to", "new", *ENCODER)
    assert ran.exit_code == 1 and f"it has {N - 1} of {N}" in ran.stdout
    assert (
        "1 points were refused (as 3: it is bad)" in ran.stdout and "does not equal" in ran.stderr
    )
    monkeypatch.setattr(edge_points, "_engine_point", made)
    assert csr("migrate", "docs", "--to", "new", *ENCODER, "--yes").exit_code == 0
