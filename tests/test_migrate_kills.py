"""Migrating killed at any moment: run again, it ends as an uninterrupted run does."""

import sys
from pathlib import Path
from typing import Any

import pytest

from csr_qdrant.stores.edge_folder import read_description

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import EdgeTarget, check_codes, encoder_of, vectors_of, without_codes
from kill_workers import Worker, killed_often, seconds, worker_fixture

ENCODER = encoder_of()
worker = worker_fixture(Path(__file__).with_name("migrate_worker.py"))


def contents(folder: Path) -> dict[Any, Any]:
    target = EdgeTarget.__new__(EdgeTarget)
    target.folder = folder / "shard"
    return target.contents()


def check_kills(worker: Worker, folder: Path, n: int, kills: int) -> None:
    ENCODER.save(folder / "encoder")
    source = EdgeTarget(folder / "source")
    source.upsert(range(n), vectors_of(n))
    before = source.contents()
    same = {"source": str(folder / "source"), "encoder": str(folder / "encoder")}
    duration_s = seconds(worker, {"target": str(folder / "whole"), **same})
    # Each run gets a little further, since the journal is written often: kills hit all of it.
    within_s = 2 * duration_s / max(1, kills // 4)
    killed_often(worker, {"target": str(folder / "killed"), **same}, kills, within_s)
    after = contents(folder / "killed")
    check_codes(after, ENCODER)
    assert without_codes(after) == before == source.contents()
    assert after == contents(folder / "whole")
    assert read_description(folder / "killed") == read_description(folder / "whole")
    assert not list(folder.glob(".*partial*"))


def test_migrating_survives_kills(worker: Worker, tmp_path: Path) -> None:
    check_kills(worker, tmp_path, 1000, kills=6)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_kills(worker: Worker, tmp_path: Path) -> None:
    check_kills(worker, tmp_path, 10_000, kills=50)
