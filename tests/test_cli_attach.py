"""`csr attach` and `csr detach`: the plan, what is said, what is refused, and going on."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import qdrant_edge as engine
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from csr_qdrant.cli import output
from csr_qdrant.stores.edge_folder import read_description

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import (
    ClientTarget,
    EdgeTarget,
    check_codes,
    encoder_of,
    vectors_of,
    without_codes,
)
from test_cli_docs import documented

Csr = Callable[..., Any]
N = 40
ENCODER = ("--encoder", "enc", "--vector", "text")
SERVER = ("--url", "http://localhost:6333", "--collection")


@pytest.fixture(autouse=True)
def files(csr: Csr) -> None:
    """Put a bare shard `docs` of N points and an encoder into the folder that commands run in."""
    EdgeTarget(Path("docs")).upsert(range(N), vectors_of(N))
    encoder_of().save("enc")


def edge(folder: str = "docs") -> EdgeTarget:
    made = EdgeTarget.__new__(EdgeTarget)
    made.folder = Path(folder)
    return made


def files_in(folder: str = "docs") -> dict[str, Any]:
    """Return the content of all files of a collection, once the engine has closed it."""
    with edge(folder).shard():
        pass  # opening a shard tidies up its files, and puts its JSON into another order
    found = ((path, path.read_bytes()) for path in Path(folder).rglob("*") if path.is_file())
    return {str(p): json.loads(read) if p.suffix == ".json" else read for p, read in found}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> QdrantClient:
    """Put local mode in the place of the server, with the collection `docs` and its alias."""
    client = QdrantClient(":memory:")
    monkeypatch.setattr(client, "close", lambda: None)  # it outlives the commands
    monkeypatch.setattr("csr_qdrant.stores.server.connect", lambda url, **_: client)
    ClientTarget(client, "docs").upsert(range(N), vectors_of(N))
    alias(client, "live", "docs")
    return client


def alias(client: QdrantClient, name: str, collection: str) -> None:
    create = models.CreateAlias(alias_name=name, collection_name=collection)
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])


# --- what it says and does ----------------------------------------------------------------------


def test_a_plan_says_what_it_costs_and_writes_nothing(csr: Csr) -> None:
    before = files_in()
    told = csr("attach", "docs", *ENCODER, "--dry-run")
    assert told.exit_code == 0, told.stderr
    assert (
        "would attach: 40 of 40 points of docs get codes of vector 'text' as 'csr' (k=4, f32)"
        in told.stdout
    )
    assert "graphs (HNSW) the engine then builds anew" in told.stdout and told.stderr == ""
    plan = csr("attach", "docs", *ENCODER, "--dry-run", "--json").json
    assert sorted(plan) == sorted(documented("attach", "With `--dry-run`:"))
    assert (plan["points_to_rewrite"], plan["rebuilds_graph"], plan["phase"]) == (N, True, None)
    assert plan["copied_bytes"] == N * 8 * 4
    assert files_in() == before


def test_points_get_codes_and_a_plan_of_nothing_follows(csr: Csr) -> None:
    before = edge().contents()
    ran = csr("attach", "docs", *ENCODER)
    assert ran.exit_code == 0, ran.stderr
    assert f"attached {N} codes to docs" in ran.stdout and f"{N} of {N} points" in ran.stdout
    assert "get codes of vector 'text'" in ran.stderr  # the plan comes first
    check_codes(edge().contents(), encoder_of())
    assert without_codes(edge().contents()) == before
    told = csr("attach", "docs", "--dry-run").stdout  # the encoder and the vector are known now
    assert "0 of 40 points" in told and "HNSW" not in told
    np.save("q.npy", vectors_of(1))
    assert csr("query", "docs", "--vectors", "q.npy", "--rescore", N, "--json").rows[0]["hits"]


def test_the_json_keys_are_those_that_are_documented(csr: Csr) -> None:
    told = csr("attach", "docs", *ENCODER, "--json").json
    assert sorted(told) == sorted(documented("attach", "JSON keys:"))
    plan = csr("detach", "docs", "--dry-run", "--json").json
    keys = documented("detach", "JSON keys, the same with `--dry-run`:")
    assert sorted(plan) == sorted([*keys, "dry_run"])
    assert sorted(csr("detach", "docs", "--yes", "--json").json) == sorted(keys)


def test_bad_points_are_named(csr: Csr) -> None:
    edge().change([7], np.zeros((1, 8), np.float32))
    ran = csr("attach", "docs", *ENCODER, "--bad-rows", "bad.jsonl")
    assert ran.exit_code == 0
    assert "1 points cannot have a code: see bad.jsonl" in ran.stderr
    assert f"{N - 1} of {N} points have one; 1 points cannot have a code" in ran.stdout
    assert json.loads(Path("bad.jsonl").read_text("utf-8")) == {"id": 7, "reason": "all zeros"}


@pytest.mark.parametrize("path", [".", "docs", "file/bad.jsonl"])
def test_a_file_of_bad_points_that_cannot_be_written_is_refused_at_first(
    csr: Csr, path: str
) -> None:
    Path("file").touch()
    before = edge().contents()
    for command in (["attach", "docs"], ["migrate", "docs", "--to", "new"]):
        ran = csr(*command, *ENCODER, "--bad-rows", path)
        assert ran.exit_code == 2 and "cannot write the ids of bad points to" in ran.stderr
    assert edge().contents() == before
    assert not Path("new").exists() and not Path("docs/collection.json").exists()


@pytest.mark.parametrize(("option", "value"), [("--threads", 3), ("--batch", 7)])
def test_threads_and_batches_change_nothing(csr: Csr, option: str, value: int) -> None:
    assert csr("attach", "docs", *ENCODER, option, value, "--json").json["complete"]
    check_codes(edge().contents(), encoder_of())
    ran = csr("attach", "docs", *ENCODER, option, 0)
    assert ran.exit_code == 2 and f"{option[2:]} must be at least 1, got 0" in ran.stderr


def test_the_rate_is_kept(csr: Csr) -> None:
    told = csr("attach", "docs", *ENCODER, "--rate", N, "--batch", 10, "--no-verify", "--json").json
    assert 0.7 < told["seconds"] < 5  # the last page waits for what went before it: 3/4 of a second
    ran = csr("attach", "docs", *ENCODER, "--rate", 0)
    assert ran.exit_code == 2 and "rate must be above 0 points a second" in ran.stderr


def test_codes_without_a_dense_vector_are_removed_after_asking(
    csr: Csr, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert csr("attach", "docs", *ENCODER).exit_code == 0
    edge().drop_dense([2, 3])
    stay = csr("attach", "docs")
    assert "2 codes stay at points that have lost their dense vector" in stay.stdout
    assert "2 codes of points that have lost vector 'text' stay" in stay.stderr
    refused = csr("attach", "docs", "--remove-orphans")  # no terminal, so nobody to ask
    assert refused.exit_code == 2 and "confirm, or pass --yes" in refused.stderr
    asked: list[str] = []
    monkeypatch.setattr(output.Output, "confirm", lambda _, question: asked.append(question))
    assert csr("attach", "docs", "--remove-orphans").exit_code == 2
    assert asked == ["Remove 2 codes of points that have lost vector 'text' from docs?"]
    assert "csr" in edge().contents()[2][1]
    told = csr("attach", "docs", "--remove-orphans", "--yes", "--json").json
    assert (told["removed"], told["orphans"], told["complete"]) == (2, 0, True)
    assert "csr" not in edge().contents()[2][1]


# --- on a server --------------------------------------------------------------------------------


def test_on_a_server(csr: Csr, server: QdrantClient) -> None:
    told = csr("attach", *SERVER, "live", *ENCODER, "--json").json
    assert told["complete"] and told["plan"]["location"].startswith("collection 'docs'")
    check_codes(ClientTarget.contents(target_of(server)), encoder_of())
    ran = csr("attach", *SERVER, "docs", "--vector", "text")
    assert ran.exit_code == 2 and "--encoder is missing" in ran.stderr
    ran = csr("detach", *SERVER, "live", "--yes")
    assert ran.exit_code == 0 and "collection 'docs'" in ran.stdout
    assert "csr" not in target_of(server).contents()[0][1]


def target_of(client: QdrantClient, name: str = "docs") -> ClientTarget:
    made = ClientTarget.__new__(ClientTarget)
    made.client, made.name = client, name
    return made


def test_a_stale_alias_is_refused(csr: Csr, server: QdrantClient) -> None:
    assert csr("attach", *SERVER, "live", *ENCODER).exit_code == 0
    encoder_of(8).save("other-enc")
    ClientTarget(server, "next").upsert(range(N), vectors_of(N, seed=1))
    attached = csr("attach", *SERVER, "next", "--encoder", "other-enc", "--vector", "text")
    assert attached.exit_code == 0
    alias(server, "live", "next")
    before = target_of(server, "next").contents()
    ran = csr("attach", *SERVER, "live", *ENCODER)  # it led to `docs` when this was written down
    assert ran.exit_code == 1 and "collection 'next'" in ran.stderr
    assert "has codes of encoder" in ran.stderr
    assert target_of(server, "next").contents() == before
    delete = models.DeleteAlias(alias_name="live")
    server.update_collection_aliases([models.DeleteAliasOperation(delete_alias=delete)])
    for command in (("attach", *SERVER, "live", *ENCODER), ("detach", *SERVER, "live", "--yes")):
        ran = csr(*command)
        assert ran.exit_code == 1 and "there is no collection 'live'" in ran.stderr


@pytest.mark.parametrize("refused", ["update_collection", "create_vector_name"])
def test_a_key_that_may_only_read_is_refused_before_points_are_written(
    csr: Csr, server: QdrantClient, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    def forbid(*_: Any, **__: Any) -> None:
        said = b'{"status": {"error": "Forbidden: Global access is required"}}'
        raise UnexpectedResponse(403, "Forbidden", said, httpx.Headers())

    before = target_of(server).contents()
    with monkeypatch.context() as patched:
        patched.setattr(server, refused, forbid)
        ran = csr("attach", *SERVER, "docs", *ENCODER)
    assert ran.exit_code == 1 and "the server refused the API key (403)" in ran.stderr
    assert target_of(server).contents() == before
    assert csr("attach", *SERVER, "docs", *ENCODER, "--json").json["complete"]
    with monkeypatch.context() as patched:
        patched.setattr(server, "delete_vector_name", forbid)
        ran = csr("detach", *SERVER, "docs", "--yes")
    assert ran.exit_code == 1 and "the server refused the API key (403)" in ran.stderr
    check_codes(target_of(server).contents(), encoder_of())


# --- stopping and going on ----------------------------------------------------------------------


def test_ctrl_c_ends_it_soon_and_the_same_command_goes_on(csr: Csr) -> None:
    edge().upsert(range(N, 2000), vectors_of(2000 - N, seed=1))
    before = edge().contents()
    command = [sys.executable, "-c", "from csr_qdrant.cli.main import main; main()", "attach"]
    command += ["docs", *ENCODER, "--rate", "200", "--batch", "20", "--device", "numpy"]
    # A test run in the background passes on that it ignores SIGINT; here it must be heard.
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert "2,000 of 2,000 points" in process.stderr.readline()
        time.sleep(0.6)
        process.send_signal(signal.SIGINT)
        started = time.perf_counter()
        assert process.wait(timeout=60) == 130
        seconds = time.perf_counter() - started
        said, shown = process.stderr.read(), process.stdout.read()
    assert seconds < 3 and shown == ""  # a second is the goal: this machine may be busy
    assert "stopped; give the same command again to go on" in said and "Traceback" not in said
    _, metadata = read_description(Path("docs"))
    stopped = metadata["csr_qdrant_attach"]
    assert stopped["phase"] == "backfill" and 0 < stopped["offset"] < 1000
    ran = csr("attach", "docs", *ENCODER)
    assert ran.exit_code == 0 and "goes on with an earlier run" in ran.stderr
    assert f"attached {2000 - stopped['offset']:,} codes" in ran.stdout
    check_codes(edge().contents(), encoder_of())
    assert without_codes(edge().contents()) == before


def test_a_run_that_stopped_while_verifying_says_so(
    csr: Csr, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    assert csr("attach", "docs", *ENCODER).exit_code == 0
    with monkeypatch.context() as patched:
        patched.setattr("csr_qdrant.deployment.attach_passes.compare", stop)
        ran = csr("attach", "docs", *ENCODER)
    assert ran.exit_code == 130 and "give the same command again to go on" in ran.stderr
    ran = csr("attach", "docs", *ENCODER)
    assert ran.exit_code == 0 and "goes on with verifying" in ran.stderr


# --- taking it away -----------------------------------------------------------------------------


def test_detaching_asks(csr: Csr, monkeypatch: pytest.MonkeyPatch) -> None:
    before = edge().contents()
    assert csr("attach", "docs", *ENCODER).exit_code == 0
    whole = files_in()
    told = csr("detach", "docs", "--dry-run")
    assert f"would remove the codes 'csr' of {N} points from docs" in told.stdout
    refused = csr("detach", "docs")  # no terminal, so nobody to ask
    assert refused.exit_code == 2 and "docs was left as it is: confirm, or pass --yes" in (
        refused.stderr
    )
    assert files_in() == whole
    answers, asked = iter([False, True]), []

    def answer(self: output.Output, question: str) -> bool:
        asked.append(question)
        return next(answers)

    monkeypatch.setattr(output.Output, "confirm", answer)
    assert csr("detach", "docs").exit_code == 2
    ran = csr("detach", "docs")
    assert ran.exit_code == 0 and ran.stdout.startswith("removed the codes 'csr' of 40 points")
    assert len(asked) == 2 and asked[0].startswith("Remove the codes 'csr' of 40 points from docs")
    assert edge().contents() == before
    assert csr("detach", "docs").exit_code == 2


def test_codes_can_be_taken_away_after_the_dense_vector_was(csr: Csr) -> None:
    assert csr("attach", "docs", *ENCODER).exit_code == 0
    with edge().shard() as shard:
        shard.update(engine.UpdateOperation.delete_vector_name("text"))
    ran = csr("attach", "docs")
    assert ran.exit_code == 2 and "has no vector 'text'" in ran.stderr
    assert csr("detach", "docs", "--yes", "--json").json["codes"] == N
    assert sorted(edge().contents()[0][1]) == ["image"]


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--encoder", "wide", "--vector", "text"), 2, "8 dimensions, but the encoder takes 9"),
        (("--encoder", "enc"), 2, "has several dense vectors (image, text): name one"),
        ((*ENCODER, "--vector", "nope"), 2, "has no vector 'nope'"),
        ((*ENCODER, "--name", "image"), 2, "has other vectors under the name 'image'"),
        ((*ENCODER, "--name", "theirs"), 2, "has sparse vectors of another origin"),
        (("--vector", "text"), 2, "--encoder is missing"),
        (("--encoder", "gone", "--vector", "text"), 1, "gone"),
        ((*ENCODER, "--k", 33), 2, "k must be in 1..32"),
    ],
)
def test_refused_before_anything_is_written(
    csr: Csr, arguments: tuple[Any, ...], code: int, said: str
) -> None:
    encoder_of(d=9).save("wide")
    with edge().shard() as shard:
        shard.update(engine.UpdateOperation.create_sparse_vector("theirs", None, None))
    before = files_in()
    for more in ((), ("--dry-run",)):
        ran = csr("attach", "docs", *arguments, *more)
        assert ran.exit_code == code and said in ran.stderr and ran.stdout == ""
        assert files_in() == before


def test_another_encoder_is_refused(csr: Csr) -> None:
    assert csr("attach", "docs", *ENCODER).exit_code == 0
    encoder_of(8).save("other")
    weight, bias = np.tile(encoder_of().weight, (2, 1)), np.zeros(64, np.float32)
    replace(encoder_of(), weight=weight, latent_bias=bias).save("wider")
    before = files_in()
    for name in ("other", "wider"):  # of the same shape, and of more latents
        ran = csr("attach", "docs", "--encoder", name)
        assert ran.exit_code == 1 and "use the first one, or remove its codes" in ran.stderr
        assert files_in() == before


def test_nothing_to_detach(csr: Csr) -> None:
    before = files_in()
    ran = csr("detach", "docs", "--yes")
    assert ran.exit_code == 2 and "has no codes that `csr attach` added" in ran.stderr
    assert files_in() == before
    ran = csr("detach", "gone", "--yes")
    assert ran.exit_code == 1 and "there is no collection at gone" in ran.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "through csr_qdrant.client.CsrQdrant, or as before and run `csr attach` again"),
        (("--dry-run",), "through csr_qdrant.client.CsrQdrant"),
        (("--recreate", "--yes"), "is not deleted: take the codes away with `csr detach`"),
        (("--recreate", "--dry-run"), "is not deleted"),
    ],
)
def test_files_are_not_indexed_into_it(csr: Csr, more: tuple[str, ...], said: str) -> None:
    assert csr("attach", "docs", *ENCODER).exit_code == 0
    np.save("rows.npy", vectors_of(3, seed=1))
    before = files_in()
    ran = csr("index", "rows.npy", "docs", "--encoder", "enc", *more)
    assert ran.exit_code == 1 and said in ran.stderr
    assert files_in() == before
