"""Migrating killed at any moment: run again, it ends as an uninterrupted run does."""

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from csr_qdrant.stores.edge_folder import read_description

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import EdgeTarget, check_codes, encoder_of, vectors_of, without_codes
from test_indexing_kills import Worker

WORKER = Path(__file__).with_name("migrate_worker.py")
ENCODER = encoder_of()


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    made = Worker(WORKER)
    yield made
    assert made.process.stdin is not None
    made.process.stdin.close()
    assert made.process.wait(60) == 0


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
    started = time.perf_counter()
    assert worker.run({"target": str(folder / "whole"), **same}) == "done"
    # Each run gets a little further, since the journal is written often: kills hit all of it.
    within_s = 2 * (time.perf_counter() - started) / max(1, kills // 4)
    moments = random.Random(kills)
    killed = {"target": str(folder / "killed"), **same}
    ends = [worker.run(killed, moments.uniform(0, within_s)) for _ in range(kills)]
    assert set(ends) <= {"killed", "done"} and "killed" in ends
    assert worker.run(killed) == "done"
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
