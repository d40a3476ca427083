"""`csr index`: into a folder and onto a server, resumable, never deleting unasked."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from csr_qdrant.cli import output
from csr_qdrant.codes import SparseCodes
from csr_qdrant.collection import Collection
from csr_qdrant.encoder import Encoder
from csr_qdrant.stores.edge import EdgeStore
from csr_qdrant.stores.server import connect

Csr = Callable[..., Any]

X = np.random.default_rng(1).normal(size=(300, 8)).astype(np.float32)
URL, KEY = os.environ.get("QDRANT_URL"), os.environ.get("QDRANT_API_KEY")
SERVER = ("--url", "http://somewhere:6333", "--collection", "books")


@pytest.fixture(autouse=True)
def files(csr: Csr, tiny_encoder: Encoder) -> None:
    """Put vectors, ids, payloads and an encoder into the folder that commands run in."""
    np.save("x.npy", X)
    Path("ids.txt").write_text("".join(f"row {i}\n" for i in range(300)))
    rows = ({"parity": i % 2, "text": f"text {i}"} for i in range(300))
    Path("p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny_encoder.save("enc")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[QdrantClient]:
    """Put the client's local mode in the place of a server; it outlives the commands."""
    client = QdrantClient(":memory:")
    close = client.close
    monkeypatch.setattr(client, "close", lambda: None)
    monkeypatch.setattr("csr_qdrant.stores.server.connect", lambda url, **rest: client)
    yield client
    close()


def found(collection: Collection, row: int) -> Any:
    """Return the best hit for a row's own vector."""
    return collection.search(X[row], limit=1)[0].id


# --- a folder ---------------------------------------------------------------------------------


def test_index_makes_the_collection_and_reports(csr: Csr) -> None:
    ran = csr("index", "x.npy", "col", "--encoder", "enc", "--ids", "ids.txt", "--json")
    told = ran.json
    assert (told["rows"], told["points"], told["finished_earlier"]) == (300, 300, 0)
    assert (told["created"], told["without_code"], told["collection"]) == (True, 0, "col")
    assert told["rows_per_second"] == pytest.approx(300 / told["seconds"], rel=0.1)
    with Collection.open("col") as collection:
        assert found(collection, 17) == "row 17"
        assert collection.identity.k == 4
        assert not collection.keeps_dense


def test_the_same_command_finds_everything_done(csr: Csr) -> None:
    csr("index", "x.npy", "col", "--encoder", "enc")
    told = csr("index", "x.npy", "col", "--json").json  # the folder holds the encoder
    assert (told["finished_earlier"], told["points"], told["created"]) == (300, 300, False)
    shown = csr("index", "x.npy", "col", "--encoder", "enc")
    assert "indexed 300 rows into col, 300 of them finished earlier" in shown.stdout


def test_payload_k_datatype_and_dense_vectors_arrive(csr: Csr) -> None:
    options = ("--k", 2, "--datatype", "u8", "--keep-dense", "--payload", "p.jsonl")
    ran = csr("index", "x.npy", "col", "--encoder", "enc", *options, "--payload-fields", "parity")
    assert ran.exit_code == 0, ran.stderr
    with Collection.open("col") as collection:
        point = collection.get([5])[5]
        assert point.payload == {"parity": 1}
        assert point.code is not None
        assert len(point.code[0]) == 2
        assert point.dense == pytest.approx(X[5] / np.linalg.norm(X[5]), abs=1e-6)
        assert collection.store.schema.datatype == "u8"


def test_codes_and_texts_can_be_indexed(csr: Csr, tiny_encoder: Encoder) -> None:
    tiny_encoder.encode(X).save("c.safetensors")
    assert csr("index", "c.safetensors", "codes", "--encoder", "enc").exit_code == 0
    with Collection.open("codes") as collection:
        assert found(collection, 8) == 8
    wide = Encoder(
        weight=np.random.default_rng(2).normal(size=(128, 64)).astype(np.float32),
        latent_bias=np.zeros(128, np.float32),
        pre_bias=np.zeros(64, np.float32),
        k=8,
    )
    wide.save("wide")
    Path("t.jsonl").write_text('{"id": "a", "text": "red wine"}\n{"id": "b", "text": "a ship"}\n')
    refused = csr("index", "t.jsonl", "texts", "--encoder", "wide")
    assert (refused.exit_code, "pass --embedder" in refused.stderr) == (2, True)
    assert not Path("texts").exists()
    texts = ("index", "t.jsonl", "texts", "--encoder", "wide", "--embedder", "wordllama:64")
    assert csr(*texts).exit_code == 0
    with Collection.open("texts") as collection:  # remembers its embedder
        assert [hit.id for hit in collection.search("the ship", limit=1)] == ["b"]


def test_a_dry_run_tells_the_plan_and_writes_nothing(csr: Csr) -> None:
    command = ("index", "x.npy", "col", "--encoder", "enc", "--dry-run", "--json")
    before = sorted(path.name for path in Path().iterdir())
    plan = csr(*command, "--keep-dense", "--k", 3).json
    assert (plan["creates"], plan["k"], plan["keep_dense"]) == (True, 3, True)
    assert sorted(path.name for path in Path().iterdir()) == before
    csr("index", "x.npy", "col", "--encoder", "enc")
    with EdgeStore.open("col"):  # a plan needs no lock
        plan = csr(*command).json
    assert (plan["creates"], plan["deletes"], plan["finished_earlier"]) == (False, False, 300)
    assert csr(*command, "--no-resume").json["finished_earlier"] == 0
    assert csr(*command, "--recreate").json["deletes"] is True


def test_settings_that_contradict_the_collection_are_refused(csr: Csr) -> None:
    csr("index", "x.npy", "col", "--encoder", "enc")
    for option, sentence in (
        (("--k", 3), "was made with k 4, got 3"),
        (("--datatype", "f16"), "was made with datatype f32, got f16"),
        (("--keep-dense",), "was made with keep-dense off, got on"),
    ):
        ran = csr("index", "x.npy", "col", *option)
        assert (ran.exit_code, sentence in ran.stderr) == (2, True), ran.stderr
    assert csr("index", "x.npy", "col", "--k", 4, "--no-keep-dense").exit_code == 0


def test_a_run_killed_before_the_encoder_was_copied_can_go_on(csr: Csr) -> None:
    import shutil

    csr("index", "x.npy", "col", "--encoder", "enc")
    shutil.rmtree("col/encoder")
    assert "--encoder is missing" in csr("index", "x.npy", "col").stderr
    assert csr("index", "x.npy", "col", "--encoder", "enc").exit_code == 0
    assert Encoder.load("col/encoder").fingerprint == Encoder.load("enc").fingerprint


# --- deleting ---------------------------------------------------------------------------------


def test_nothing_is_deleted_without_a_confirmation(
    csr: Csr, monkeypatch: pytest.MonkeyPatch
) -> None:
    csr("index", "x.npy", "col", "--encoder", "enc", "--ids", "ids.txt")
    command = ("index", "x.npy", "col", "--encoder", "enc", "--recreate", "--json")
    refused = csr(*command)  # no terminal, so nobody to ask
    assert (refused.exit_code, "was left as it is" in refused.stderr) == (2, True)
    asked: list[str] = []
    answers = iter([False, True])

    def answer(self: output.Output, question: str) -> bool:
        asked.append(question)
        return next(answers)

    monkeypatch.setattr(output.Output, "confirm", answer)
    assert csr(*command).exit_code == 2
    with Collection.open("col") as collection:
        assert found(collection, 3) == "row 3"
    told = csr(*command).json
    assert (told["created"], told["points"], told["finished_earlier"]) == (True, 300, 0)
    assert asked == ["Delete col and all its points?"] * 2
    with Collection.open("col") as collection:
        assert found(collection, 3) == 3


def test_recreate_checks_the_new_rows_before_it_deletes_the_old(csr: Csr) -> None:
    csr("index", "x.npy", "col", "--encoder", "enc")
    bad = X.copy()
    bad[3, 1] = np.nan
    np.save("bad.npy", bad)
    ran = csr("index", "bad.npy", "col", "--encoder", "enc", "--recreate", "--yes")
    assert (ran.exit_code, "row 3 of bad.npy" in ran.stderr) == (1, True)
    with Collection.open("col") as collection:
        assert len(collection) == 300


def test_a_recreate_that_is_killed_leaves_nothing_half_deleted(
    csr: Csr, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert csr("index", "x.npy", "col", "--encoder", "enc").exit_code == 0

    def stopped(path: Path) -> None:
        next(path.glob("*.json")).unlink()
        raise KeyboardInterrupt

    again = ("index", "x.npy", "col", "--encoder", "enc", "--recreate", "--yes")
    with monkeypatch.context() as patched:
        patched.setattr("csr_qdrant.atomic.shutil.rmtree", stopped)
        assert csr(*again).exit_code == 130
    assert not Path("col").exists()
    assert csr(*again).exit_code == 0
    with Collection.open("col") as collection:
        assert len(collection) == 300
    assert not list(Path().glob(".col*"))


def test_recreate_never_deletes_a_folder_that_is_no_collection(csr: Csr) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work")
    command = ("index", "x.npy", "mine", "--encoder", "enc", "--recreate", "--yes")
    ran = csr(*command)
    assert (ran.exit_code, "is not a collection" in ran.stderr) == (1, True)
    assert Path("mine/thesis.txt").read_text() == "years of work"


# --- resuming ---------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on_and_ends_the_same(
    csr: Csr, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = np.random.default_rng(3).normal(size=(5000, 8)).astype(np.float32)
    np.save("many.npy", many)
    monkeypatch.setattr("csr_qdrant.indexing.FLUSH_ROWS", 1)
    write = EdgeStore.upsert
    calls: list[int] = []

    def upsert(self: EdgeStore, points: Any) -> None:
        calls.append(len(points))
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(self, points)

    monkeypatch.setattr(EdgeStore, "upsert", upsert)
    stopped = csr("index", "many.npy", "col", "--encoder", "enc")
    assert stopped.exit_code == 130
    assert "give the same command again to go on" in stopped.stderr
    told = csr("index", "many.npy", "col", "--encoder", "enc", "--json").json
    assert (told["finished_earlier"], told["points"]) == (calls[0], 5000)
    assert told["created"] is False
    assert csr("index", "many.npy", "whole", "--encoder", "enc").exit_code == 0
    with Collection.open("col") as resumed, Collection.open("whole") as whole:
        assert resumed.get(range(5000)) == whole.get(range(5000))


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_as_one_that_was_not(tmp_path: Path) -> None:
    rows = 60_000
    np.save("many.npy", np.random.default_rng(3).normal(size=(rows, 8)).astype(np.float32))
    command = [sys.executable, "-c", "from csr_qdrant.cli.main import main; main()", "index"]
    command += ["many.npy", "col", "--encoder", "enc", "--json"]
    for seconds in (0.0, 0.4, 0.8, 1.2):  # after the folder is there, then after the start
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while not Path("col/shard").exists() and process.poll() is None:
                time.sleep(0.01)
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    told = json.loads(ended.stdout)
    assert (told["rows"], told["points"]) == (rows, rows)
    command[command.index("col")] = "whole"
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with Collection.open("col") as resumed, Collection.open("whole") as whole:
        for start in range(0, rows, 5000):
            part = range(start, start + 5000)
            assert resumed.get(part) == whole.get(part)
        queries = np.load("many.npy")[:50]
        assert resumed.search_batch(queries) == whole.search_batch(queries)


# --- a server ---------------------------------------------------------------------------------


def test_a_server_collection_is_made_found_and_recreated(csr: Csr, server: QdrantClient) -> None:
    command = ("index", "x.npy", *SERVER, "--encoder", "enc", "--ids", "ids.txt", "--json")
    told = csr(*command, "--keep-dense").json
    assert (told["created"], told["points"]) == (True, 300)
    assert "collection 'books'" in told["collection"]
    assert csr(*command).json["finished_earlier"] == 300
    with Collection.open_on(server, "books", Encoder.load("enc")) as collection:
        assert found(collection, 9) == "row 9"
        assert collection.keeps_dense
    assert csr(*command, "--recreate").exit_code == 2
    told = csr(*command, "--recreate", "--yes").json
    assert (told["created"], told["points"], told["finished_earlier"]) == (True, 300, 0)


def test_a_collection_that_is_not_ours_is_left_alone(csr: Csr, server: QdrantClient) -> None:
    server.create_collection("books", vectors_config={})
    for options in ((), ("--recreate", "--yes")):
        ran = csr("index", "x.npy", *SERVER, "--encoder", "enc", *options)
        assert (ran.exit_code, "was not made by csr-qdrant" in ran.stderr) == (1, True)
    assert server.collection_exists("books")


def test_a_server_wants_an_encoder_and_a_name(
    csr: Csr, server: QdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    csr("index", "x.npy", *SERVER, "--encoder", "enc")
    for arguments, sentence in (
        (SERVER, "--encoder is missing"),
        (SERVER[:2], "pass --collection"),
        (SERVER[2:], "pass --url or set QDRANT_URL"),
        (("col", *SERVER), "got both a folder (col) and a server"),
        ((), "no collection is named"),
        ((*SERVER, "--shards", 0), "shards must be at least 1, got 0"),
    ):
        ran = csr("index", "x.npy", *arguments)
        assert (ran.exit_code, sentence in ran.stderr) == (2, True), ran.stderr
    monkeypatch.setenv("QDRANT_URL", "http://somewhere:6333")
    assert csr("index", "x.npy", *SERVER[2:], "--encoder", "enc").exit_code == 0


def test_the_key_comes_from_the_environment_or_a_file(
    csr: Csr, server: QdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def connected(url: str, **rest: Any) -> QdrantClient:
        seen.append((url, rest))
        return server

    monkeypatch.setattr("csr_qdrant.stores.server.connect", connected)
    monkeypatch.setenv("QDRANT_API_KEY", "s3cret")
    ran = csr("index", "x.npy", *SERVER, "--encoder", "enc", "--grpc", "--timeout", 7)
    assert ran.exit_code == 0, ran.stderr
    assert ran.stderr == "Warning: the API key travels unencrypted to somewhere: use https\n"
    assert "s3cret" not in ran.stdout
    settings = {"api_key": "s3cret", "prefer_grpc": True, "timeout_s": 7}
    assert seen == [("http://somewhere:6333", settings)]
    Path("key").write_text("s3cret-2\n")
    ran = csr("info", *SERVER, "--api-key-file", "key")
    assert ran.exit_code == 0, ran.stderr
    assert seen[-1][1]["api_key"] == "s3cret-2"


def test_shards_and_replicas_reach_the_server(
    csr: Csr, server: QdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    create = server.create_collection

    def spy(*arguments: Any, **settings: Any) -> Any:
        asked.update(settings)
        return create(*arguments, **settings)

    monkeypatch.setattr(server, "create_collection", spy)
    csr("index", "x.npy", *SERVER, "--encoder", "enc", "--shards", 3, "--replicas", 2)
    assert (asked["shard_number"], asked["replication_factor"]) == (3, 2)


@pytest.mark.server
@pytest.mark.skipif(URL is None, reason="QDRANT_URL is not set")
def test_a_real_server(csr: Csr, monkeypatch: pytest.MonkeyPatch) -> None:
    if KEY is not None:
        monkeypatch.setenv("QDRANT_API_KEY", KEY)
    name = f"csr-qdrant-test-{uuid.uuid4().hex}"
    place = ("--url", URL, "--collection", name)
    command = ("index", "x.npy", *place, "--encoder", "enc", "--keep-dense", "--json")
    try:
        assert csr(*command).json["points"] == 300
        assert csr(*command).json["finished_earlier"] == 300
        search = ("query", *place, "--encoder", "enc", "--vectors", "x.npy", "--json")
        for options in ((), ("--rescore", 50)):
            rows = csr(*search, "-n", 1, *options).rows
            assert [row["hits"][0]["id"] for row in rows] == list(range(300))
        assert csr("info", *place, "--json").json["points"] == 300
        assert csr(*command, "--recreate", "--yes").json["created"] is True
    finally:
        connect(str(URL), api_key=KEY).delete_collection(name)


def test_codes_over_other_latents_are_refused_before_anything_is_made(csr: Csr) -> None:
    SparseCodes.from_dense(np.eye(5, 7)).save("c.safetensors")
    ran = csr("index", "c.safetensors", "col", "--encoder", "enc")
    assert ran.stderr == (
        "Error: c.safetensors holds codes over 7 latents, but the encoder has 32: encode them "
        "with that encoder\n"
    )
    assert not Path("col").exists()
