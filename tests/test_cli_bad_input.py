"""Bad input of every command: one sentence, exit code 1 or 2, nothing half-written or lost."""

import os
import socket
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.collection import Collection
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import CsrError
from csr_qdrant.stores.edge import EdgeStore

Csr = Callable[..., Any]

X = np.random.default_rng(1).normal(size=(100, 8)).astype(np.float32)
TRAIN = ("-o", "new", "--steps", 5, "--h", 64, "--k", 4, "--held-out", 10, "--batch-size", 100)
INDEX = ("new", "--encoder", "enc")
CODES = ("-o", "new.safetensors", "--encoder", "enc")
SERVER = ("--collection", "books", "--encoder", "enc", "--timeout", 5)


def changed(row: int, value: float) -> Any:
    array = X.copy()
    array[row] = value
    return array


@pytest.fixture(autouse=True)
def files(csr: Csr, tiny_encoder: Encoder) -> None:
    """Put good and bad files into the folder that commands run in."""
    np.save("x.npy", X)
    np.save("nan.npy", changed(3, np.nan))
    np.save("infinite.npy", changed(4, np.inf))
    np.save("zero.npy", changed(5, 0))
    np.save("wide.npy", np.ones((100, 9), np.float32))
    np.save("none.npy", X[:0])
    np.save("flat.npy", X[0])
    Path("empty.npy").touch()
    Path("empty.jsonl").touch()
    Path("cut.npy").write_bytes(Path("x.npy").read_bytes()[:-100])
    Path("few.txt").write_text("".join(f"{i}\n" for i in range(99)))
    Path("twice.txt").write_text("".join(f"{i % 99}\n" for i in range(100)))
    tiny_encoder.save("enc")
    Path("folder").mkdir()
    tiny_encoder.save("damaged")
    weights = Path("damaged/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:500])
    Encoder(
        weight=tiny_encoder.weight[::-1].copy(),
        latent_bias=tiny_encoder.latent_bias,
        pre_bias=tiny_encoder.pre_bias,
        k=4,
    ).save("other")
    with Collection.create("col", tiny_encoder) as collection:
        collection.add(range(100), vectors=X)


def tree() -> dict[str, bytes | None]:
    """Return all files below the current folder, with the content of those that never change."""
    return {
        str(path): path.read_bytes() if path.is_file() and path.parts[0] != "col" else None
        for path in sorted(Path().rglob("*"))
        if "shard" not in path.parts
    }


def assert_refused(csr: Csr, sentence: str, *arguments: object, exit_code: int = 1) -> None:
    before = tree()
    ran = csr(*arguments)
    assert sentence in ran.stderr
    assert (ran.exit_code, ran.stdout, ran.stderr.count("\n")) == (exit_code, "", 1), ran.stderr
    assert ran.stderr.startswith("Error: ")
    assert tree() == before
    with Collection.open("col") as collection:
        assert len(collection) == 100


# --- vectors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nan.npy", "row 3 of {} "),
        ("infinite.npy", "row 4 of {} "),
        ("zero.npy", "row 5 of {} is all zeros"),
        ("none.npy", "none.npy"),
        ("flat.npy", "flat.npy"),
        ("empty.npy", "empty.npy is empty: write it anew"),
        ("empty.jsonl", "empty.jsonl is empty: write it anew"),
        ("cut.npy", "cut.npy is truncated: (100, 8) of float32 need 3328 bytes, got 3228"),
        ("absent.npy", "absent.npy does not exist"),
        ("folder", "folder is no BEIR folder"),
    ],
)
def test_bad_vectors(csr: Csr, name: str, sentence: str) -> None:
    said = sentence.format("the training vectors")
    assert_refused(csr, said, "train", name, *TRAIN)
    assert_refused(csr, sentence.format(name), "index", name, *INDEX)
    assert_refused(csr, sentence.format(name), "embed", name, *CODES)


def test_a_wrong_dimension(csr: Csr) -> None:
    sentence = "takes vectors of shape (n, 8), got (64, 9): use the embedding model that it was"
    assert_refused(csr, sentence, "index", "wide.npy", *INDEX)
    assert_refused(csr, sentence, "index", "wide.npy", "col")
    assert_refused(csr, "shape (n, 8), got (64, 9)", "query", "col", "--vectors", "wide.npy")
    assert_refused(csr, "shape (n, 8), got (100, 9)", "embed", "wide.npy", *CODES)


def test_a_bad_row_far_into_the_file_keeps_the_rows_before_it_for_the_next_run(csr: Csr) -> None:
    many = np.random.default_rng(2).normal(size=(5000, 8)).astype(np.float32)
    mended = many[4500].copy()
    many[4500] = np.nan
    np.save("late.npy", many)
    Path("late.txt").write_text("".join(f"late {i}\n" for i in range(5000)))
    for target in (INDEX, ("col",)):
        command = ("index", "late.npy", *target, "--ids", "late.txt")
        ran = csr(*command)
        assert (ran.exit_code, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
        assert "row 4500 of late.npy" in ran.stderr
    with Collection.open("col") as collection:
        assert len(collection.get(range(100))) == 100
    many[4500] = mended
    np.save("late.npy", many)
    assert csr(*command, "--json").json["points"] == 5100
    with Collection.open("col") as collection:
        assert collection.search(mended, limit=1)[0].id == "late 4500"


def test_a_run_that_fails_before_its_first_row_leaves_no_collection(
    csr: Csr, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise CsrError("the engine failed: try again")

    monkeypatch.setattr(EdgeStore, "upsert", fail)
    assert_refused(csr, "the engine failed", "index", "x.npy", *INDEX)
    ran = csr("index", "x.npy", "col")
    assert (ran.exit_code, len(list(Path("col").iterdir())) > 0) == (1, True)


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        ("few.txt", "few.txt has 99 rows but x.npy has 100: they must match row by row"),
        ("twice.txt", "'0'"),
    ],
)
def test_ids_that_do_not_fit(csr: Csr, ids: str, sentence: str) -> None:
    assert_refused(csr, sentence, "index", "x.npy", *INDEX, "--ids", ids)
    assert_refused(csr, sentence, "embed", "x.npy", *CODES, "--ids", ids)
    assert_refused(csr, sentence, "train", "x.npy", *TRAIN, "--ids", ids)


def test_more_latents_than_there_are(csr: Csr) -> None:
    sentence = "k must be in 1..{} (the number of latents), got {}"
    train = ("train", "x.npy", *TRAIN, "--k", 65)
    assert_refused(csr, sentence.format(64, 65), *train, exit_code=2)
    said = sentence.format(32, 33)
    assert_refused(csr, said, "index", "x.npy", *INDEX, "--k", 33, exit_code=2)
    query = ("query", "col", "--vectors", "x.npy", "--k", 33)
    assert_refused(csr, said, *query, exit_code=2)
    assert_refused(csr, said, "embed", "x.npy", *CODES, "--k", 33, exit_code=2)


# --- encoders and collections -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoder", "sentence"),
    [
        ("folder", "folder is not an encoder"),
        ("absent", "absent: give the folder that `csr train` wrote"),
        ("damaged", "damaged/model.safetensors is damaged"),
    ],
)
def test_what_is_no_encoder(csr: Csr, encoder: str, sentence: str) -> None:
    assert_refused(csr, sentence, "index", "x.npy", "new", "--encoder", encoder)
    assert_refused(csr, sentence, "index", "x.npy", "col", "--encoder", encoder)
    assert_refused(csr, sentence, "query", "col", "--vectors", "x.npy", "--encoder", encoder)
    assert_refused(csr, sentence, "embed", "x.npy", *CODES[:2], "--encoder", encoder)
    if encoder != "absent":
        assert_refused(csr, sentence, "info", encoder)


def test_a_damaged_file_of_codes(csr: Csr) -> None:
    csr("embed", "x.npy", "-o", "c.safetensors", "--encoder", "enc")
    codes = Path("c.safetensors")
    codes.write_bytes(codes.read_bytes()[:-50])
    assert_refused(csr, "c.safetensors cannot be read as codes", "index", codes, *INDEX)
    assert_refused(csr, "c.safetensors cannot be read as codes", "query", "col", "--vectors", codes)


def test_a_collection_of_another_encoder(csr: Csr) -> None:
    names = [Encoder.load(name).fingerprint for name in ("enc", "other")]
    sentence = f"col was made with encoder {names[0]} (d=8, h=32), got {names[1]}"
    assert_refused(csr, sentence, "index", "x.npy", "col", "--encoder", "other")
    assert_refused(csr, sentence, "query", "col", "--vectors", "x.npy", "--encoder", "other")


def test_a_folder_that_is_open_elsewhere(csr: Csr) -> None:
    with Collection.open("col"):
        for arguments in (
            ("index", "x.npy", "col"),
            ("index", "x.npy", "col", "--encoder", "enc", "--recreate", "--yes"),
            ("query", "col", "--vectors", "x.npy"),
            ("info", "col"),
        ):
            ran = csr(*arguments)
            assert (ran.exit_code, ran.stdout) == (1, "")
            assert "col is open in another process or handle: close it there" in ran.stderr
            assert ran.stderr.count("\n") == 1
    with Collection.open("col") as collection:
        assert len(collection) == 100


# --- servers ----------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


@pytest.mark.parametrize("protocol", [(), ("--grpc",)])
def test_an_unreachable_server(csr: Csr, protocol: tuple[str, ...]) -> None:
    server = ("--url", f"http://127.0.0.1:{free_port()}", *SERVER, *protocol)
    assert_refused(csr, "cannot reach the server", "index", "x.npy", *server)
    assert_refused(csr, "cannot reach the server", "query", *server, "--vectors", "x.npy")


def test_what_is_no_address(csr: Csr) -> None:
    server = ("--url", "http://[", *SERVER)
    assert_refused(csr, "is not the URL of a Qdrant server", "index", "x.npy", *server, exit_code=2)


@pytest.fixture
def closed_door() -> Iterator[str]:
    """Give the URL of a server that refuses every key."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"Must provide an API key or an Authorization bearer token"
            self.send_response(401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_wrong_key(csr: Csr, closed_door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", "not-the-one")
    warnings.simplefilter("error")  # the client's own, of a key without https
    server = ("--url", closed_door, *SERVER)
    sentence = "the server refused the API key (401): set QDRANT_API_KEY to a key"
    assert_refused(csr, sentence, "index", "x.npy", *server)
    assert_refused(csr, sentence, "query", *server, "--vectors", "x.npy")
    assert_refused(csr, sentence, "info", *server[:4])


# --- a full disk ------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 64 KiB; skip where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs a POSIX system")
def test_a_full_disk(csr: Csr, small_disk: Path) -> None:
    np.save("many.npy", np.ones((5000, 8), np.float32))
    np.savez("many.npz", vectors=np.ones((5000, 8), np.float32))
    train = ("train", "x.npy", *TRAIN, "--h", 4096, "--overwrite")
    for arguments in (
        ("index", "many.npy", "disk/col", "--encoder", "enc"),
        ("embed", "many.npy", "-o", "disk/c.safetensors", "--encoder", "enc"),
        ("embed", "many.npz", "-o", "disk/c.npy"),
        (*train[:2], "-o", "disk/new", *train[4:], "-q"),
    ):
        ran = csr(*arguments)
        assert (ran.exit_code, ran.stdout, ran.stderr.count("\n")) == (1, "", 1), ran.stderr
        assert "full" in ran.stderr or "No space left" in ran.stderr
    kept = {"c.npy.partial", "c.npy.partial.json", "new.partial"}  # for the run that goes on
    assert {path.name for path in small_disk.iterdir()} <= kept
