"""The embedded store: its folder, what a kill leaves behind, and its refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.stores import disk
from csr_qdrant.stores.base import PointBatch, Schema, Search
from csr_qdrant.stores.edge import EdgeStore

H = 256
SCHEMA = Schema(h=H)


def codes_of(first: int, n: int) -> SparseCodes:
    """Return codes that tell which point they belong to: point i uses latents i and i + 7."""
    rows = np.arange(first, first + n)[:, None]
    latents = np.concatenate([rows % H, (rows + 7) % H], axis=1)
    values = np.stack([np.full(n, 0.8), np.full(n, 0.6)], axis=1).astype(np.float32)
    return SparseCodes.from_topk(latents, values, H)


def points(first: int, n: int, **payload: Any) -> PointBatch:
    return PointBatch(range(first, first + n), codes_of(first, n), None, [payload] * n)


def check_points(store: EdgeStore, first: int, n: int) -> None:
    found = {point.id: point for point in store.retrieve(range(first, first + n))}
    for row, (indices, values) in enumerate(codes_of(first, n).to_lists(), first):
        code = found[row].code
        assert code is not None and code[0] == indices
        np.testing.assert_allclose(code[1], values, atol=1e-7)


@pytest.mark.parametrize("datatype", ["f32", "f16", "u8"])
def test_a_collection_outlives_its_process(tmp_path: Path, datatype: Any) -> None:
    schema = Schema(h=H, datatype=datatype, dense_dim=3, code_name="c", dense_name="d")
    with EdgeStore.create(tmp_path / "x", schema, {"a": [1]}) as store:
        store.upsert(PointBatch([1], codes_of(1, 1), np.ones((1, 3), np.float32), [{"b": 2}]))
        store.write_metadata("k", 8)
    with EdgeStore.open(tmp_path / "x") as store:
        assert store.schema == schema and store.metadata() == {"a": [1], "k": 8}
        assert store.location == str(tmp_path / "x")
        (point,) = store.retrieve([1])
        assert point.payload == {"b": 2} and point.dense == pytest.approx([3**-0.5] * 3)
        (hits,) = store.search(Search(codes=codes_of(1, 1), limit=1))
        assert hits[0].score == pytest.approx(1, abs=2e-2)
    description = json.loads((tmp_path / "x" / "collection.json").read_text())
    assert description["format"] == 1 and description["schema"]["datatype"] == datatype


def test_optimising_builds_the_index_and_changes_no_answer(tmp_path: Path) -> None:
    with EdgeStore.create(tmp_path / "x", SCHEMA) as store:
        store.upsert(points(0, 3000))
        query = Search(codes=codes_of(5, 1), limit=3000)
        before = {(hit.id, hit.score) for hit in store.search(query)[0]}
        assert store.sizes().code_index == 0
        store.optimise()
        assert {(hit.id, hit.score) for hit in store.search(query)[0]} == before
        sizes = store.sizes()
        assert 2 * 3000 * 4 < sizes.code_index < 200_000  # two postings a point, and 256 offsets
        assert sizes.allocated < sizes.apparent
        assert store.info().points == 3000


def test_sizes_measure_the_engines_files_only(tmp_path: Path) -> None:
    with EdgeStore.create(tmp_path / "x", SCHEMA) as store:
        before = store.sizes().apparent
        (tmp_path / "x" / "encoder").mkdir()
        (tmp_path / "x" / "encoder" / "model.safetensors").write_bytes(b"0" * 10_000_000)
        assert abs(store.sizes().apparent - before) < 1_000_000


# --- kills --------------------------------------------------------------------------------------

# Gives the scripts below this module's helpers, wherever it lies.
LOADER = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("tests_edge", {str(Path(__file__))!r})
module = importlib.util.module_from_spec(spec)
sys.modules["tests_edge"] = module
spec.loader.exec_module(module)
"""

WRITER = """
import sys
import numpy as np
from tests_edge import points, SCHEMA
from csr_qdrant.stores.edge import EdgeStore
store = EdgeStore.create(sys.argv[1], SCHEMA)
for first in range(0, 10_000_000, 500):
    store.upsert(points(first, 500, text="some payload"))
    if first % 1000 == 500:
        store.flush()
        print(first + 500, flush=True)
"""

CREATOR = """
import sys
from tests_edge import SCHEMA
from csr_qdrant.stores.edge import EdgeStore
for i in range(1_000):
    print(i, flush=True)
    EdgeStore.create(f"{sys.argv[1]}/{i}", SCHEMA, {"i": i}).close()
"""


def start(script: str, argument: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", LOADER + script, str(argument)], stdout=subprocess.PIPE, text=True
    )


def read_until(process: "subprocess.Popen[str]", least: int) -> int:
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= least:
            return int(line)
    raise AssertionError("the process ended by itself")


@pytest.mark.parametrize("delay_ms", [0, 3, 17])
def test_a_kill_between_flushes_keeps_what_was_flushed(tmp_path: Path, delay_ms: int) -> None:
    process = start(WRITER, tmp_path / "x")
    flushed = read_until(process, 2000)
    time.sleep(delay_ms / 1000)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    with EdgeStore.open(tmp_path / "x") as store:
        count = store.count()
        assert count >= flushed
        check_points(store, 0, flushed)
        store.upsert(points(0, count + 500))  # the same again, and more
        store.optimise()
        assert store.count() == count + 500
        check_points(store, 0, count + 500)
        (hits,) = store.search(Search(codes=codes_of(3, 1), limit=count + 500))
        exact = codes_of(0, count + 500).to_dense() @ codes_of(3, 1).to_dense()[0]
        assert len(hits) == np.count_nonzero(exact)


@pytest.mark.parametrize("delay_ms", [0, 30, 90, 150])
def test_a_kill_during_creation_leaves_no_half_made_collection(
    tmp_path: Path, delay_ms: int
) -> None:
    process = start(CREATOR, tmp_path)
    current = read_until(process, 1)
    time.sleep(delay_ms / 1000)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    whole = [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert len(whole) >= current
    for path in whole:
        with EdgeStore.open(path) as store:
            assert store.metadata() == {"i": int(path.name)} and store.count() == 0


def test_a_failed_creation_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CsrError, match="metadata of a collection must be JSON"):
        EdgeStore.create(tmp_path / "x", SCHEMA, {"bad": object()})
    assert list(tmp_path.iterdir()) == []


def test_what_is_put_beside_a_new_collection_appears_with_it_or_not_at_all(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        assert not (tmp_path / "x").exists()
        (folder / "encoder").mkdir()

    EdgeStore.create(tmp_path / "x", SCHEMA, fill=fill).close()
    assert (tmp_path / "x" / "encoder").is_dir()

    def fail(folder: Path) -> None:
        raise CsrError("no encoder")

    with pytest.raises(CsrError, match="no encoder"):
        EdgeStore.create(tmp_path / "y", SCHEMA, fill=fail)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


# --- refusals -----------------------------------------------------------------------------------


def test_an_existing_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "precious.txt").write_text("keep")
    with pytest.raises(ConfigError, match="already exists: choose another name"):
        EdgeStore.create(tmp_path / "x", SCHEMA)
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["precious.txt"]


def test_an_open_collection_is_refused_to_others(tmp_path: Path) -> None:
    store = EdgeStore.create(tmp_path / "x", SCHEMA)
    message = "x is open in another process or handle: close it there and try again"
    with pytest.raises(CsrError, match=message):
        EdgeStore.open(tmp_path / "x")
    code = "import sys; from csr_qdrant.stores.edge import EdgeStore as E; E.open(sys.argv[1])"
    other = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x")], capture_output=True, text=True
    )
    assert other.returncode != 0 and message in other.stderr
    store.upsert(points(0, 3))
    store.close()
    with EdgeStore.open(tmp_path / "x") as again:
        assert again.count() == 3


def test_folders_that_are_no_collection_are_named(tmp_path: Path) -> None:
    with pytest.raises(CsrError, match=r"there is no collection at .*nowhere"):
        EdgeStore.open(tmp_path / "nowhere")
    with pytest.raises(CsrError, match=r"is not a collection: it has no collection\.json"):
        EdgeStore.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ("{}", "is damaged .*'format'"),
        ('{"format": 9}', "has collection format 9, this version reads up to 1: upgrade"),
        ('{"format": 1, "schema": {"x": 2}, "metadata": {}}', "is damaged .*'x'"),
    ],
)
def test_a_damaged_description_is_named(tmp_path: Path, text: str, message: str) -> None:
    EdgeStore.create(tmp_path / "x", SCHEMA).close()
    (tmp_path / "x" / "collection.json").write_text(text)
    with pytest.raises(CsrError, match=message):
        EdgeStore.open(tmp_path / "x")


def test_a_lost_engine_folder_is_a_sentence(tmp_path: Path) -> None:
    EdgeStore.create(tmp_path / "x", SCHEMA).close()
    (tmp_path / "x" / "shard").rename(tmp_path / "elsewhere")
    with pytest.raises(CsrError, match=r"the embedded engine failed on .*x: .*does not exist"):
        EdgeStore.open(tmp_path / "x")


@pytest.mark.parametrize("bad", ["doc-1", -1, 2**64, 1.5, None, True])
def test_ids_that_the_engine_does_not_know_are_named(tmp_path: Path, bad: Any) -> None:
    with EdgeStore.create(tmp_path / "x", SCHEMA) as store:
        if bad is not True:  # the engine would take it for 1
            with pytest.raises(CsrError, match=f"or UUIDs, got {bad!r}"):
                store.upsert(PointBatch([0, bad], codes_of(0, 2), None, [{}, {}]))
        for call in (store.retrieve, store.delete):
            with pytest.raises(CsrError, match=f"or UUIDs, got {bad!r}"):
                call([bad])
        assert store.count() == 0


def test_a_disk_with_too_little_room_is_refused_before_the_engine_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EdgeStore.create(tmp_path / "x", SCHEMA) as store:
        store.upsert(points(0, 10))
        with monkeypatch.context() as patch:
            patch.setattr(disk, "RESERVE_BYTES", 2**62)  # more than any disk has
            for write in (
                lambda: store.upsert(points(10, 10)),
                lambda: store.delete([1]),
                store.optimise,
                lambda: EdgeStore.create(tmp_path / "y", SCHEMA),
            ):
                with pytest.raises(CsrError, match=r"is nearly full: .* free some space"):
                    write()
            assert store.count() == 10
        store.upsert(points(10, 10))
        assert store.count() == 20
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small file system, as root"
)
def test_a_disk_that_runs_full_loses_nothing(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=220m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        written = 0
        with EdgeStore.create(small / "x", SCHEMA) as store:
            with pytest.raises(CsrError, match="is nearly full"):
                for written in range(0, 10_000_000, 500):
                    store.upsert(points(written, 500, text="x" * 5_000))
            assert written > 0 and store.count() == written
        with EdgeStore.open(small / "x") as store:
            assert store.count() == written
            check_points(store, 0, min(written, 5000))
    finally:
        subprocess.run(["umount", str(small)], check=True)
