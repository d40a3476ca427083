"""Attaching and detaching killed at any moment: run again, they end as uninterrupted runs do."""

import random
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from csr_qdrant.stores.edge_folder import read_description

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import EdgeTarget, check_codes, encoder_of, vectors_of, without_codes
from kill_workers import Worker, killed_often, seconds, worker_fixture
from test_edge_repair import Made, refused_by_the_engine

ENCODER = encoder_of()
worker = worker_fixture(Path(__file__).with_name("attach_worker.py"))


def check_kills(worker: Worker, folder: Path, n: int, kills: int) -> None:
    ENCODER.save(folder / "encoder")
    target = EdgeTarget(folder / "killed")
    target.upsert(range(n), vectors_of(n))
    before = target.contents()
    shutil.copytree(folder / "killed", folder / "whole")
    encoder = {"encoder": str(folder / "encoder")}
    duration_s = seconds(worker, {"folder": str(folder / "whole"), **encoder})
    # Each run gets a little further, since its journal is written often: kills hit all of it.
    within_s = 2 * duration_s / max(1, kills // 4)
    killed_often(worker, {"folder": str(folder / "killed"), **encoder}, kills, within_s)
    after = target.contents()
    check_codes(after, ENCODER)
    assert without_codes(after) == before
    whole = EdgeTarget.__new__(EdgeTarget)
    whole.folder = folder / "whole"
    assert after == whole.contents()
    assert read_description(folder / "killed") == read_description(folder / "whole")


def check_nothing_of_ours(folder: Path) -> None:
    left = [each.name for each in folder.iterdir()]
    assert not [name for name in left if "collection.json" in name or "encoder" in name], left


def test_attaching_survives_kills(worker: Worker, tmp_path: Path) -> None:
    check_kills(worker, tmp_path, 2000, kills=6)


def test_detaching_survives_kills(worker: Worker, tmp_path: Path) -> None:
    ENCODER.save(tmp_path / "encoder")
    target = EdgeTarget(tmp_path / "shard")
    target.upsert(range(500), vectors_of(500))
    before = target.contents()
    arguments = {"folder": str(tmp_path / "shard"), "encoder": str(tmp_path / "encoder")}
    detaching = {**arguments, "detach": True}
    assert worker.run(arguments) == "done"
    within_s = seconds(worker, detaching)
    moments, killed = random.Random(0), 0
    for _ in range(40):
        assert worker.run(arguments) == "done"
        ends = [worker.run(detaching, moments.uniform(0, within_s)) for _ in range(2)]
        killed += ends.count("killed")
        last = ends[-1] if ends[-1] != "killed" else worker.run(detaching)
        assert last == "done" or last.startswith("status")  # nothing was left to detach
        assert target.contents() == before
        check_nothing_of_ours(target.folder)
        if killed >= 2:
            break
    assert killed >= 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_shards_of_several_segments_survive_kills(worker: Worker, tmp_path: Path) -> None:
    """The engine adds and removes a name one segment after the other: see `edge_repair`."""
    ENCODER.save(tmp_path / "encoder")
    made = Made(tmp_path)
    arguments = {"folder": str(made.target.folder), "encoder": str(tmp_path / "encoder")}
    moments, mended, killed = random.Random(0), 0, 0
    for number in range(150):
        work: dict[str, Any] = {**arguments, "detach": bool(number % 2)}
        killed += worker.run(work, moments.uniform(0, 0.5)) == "killed"
        mended += refused_by_the_engine(made.target.folder)
        last = worker.run(work)
        if work["detach"]:
            assert last == "done" or last.startswith("status")  # nothing was left to detach
            assert made.target.contents() == made.before
            check_nothing_of_ours(made.target.folder)
        else:
            assert last == "done", (number, last)
            check_codes(made.target.contents(), ENCODER)
        if number >= 30 and killed >= 10 and mended:  # the moments that do harm are short
            break
    assert killed >= 10 and mended >= 1, (killed, mended)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_kills(worker: Worker, tmp_path: Path) -> None:
    check_kills(worker, tmp_path, 10_000, kills=50)
