"""Bulk indexing killed at any moment: run again, it ends as an uninterrupted run does."""

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.collection import Collection
from csr_qdrant.encoder import Encoder
from csr_qdrant.stores.base import StoredPoint
from csr_qdrant.stores.edge_folder import read_description

sys.path.insert(0, str(Path(__file__).parent))
from kill_workers import Worker, seconds, worker_fixture

D, H = 16, 96
IN_FLIGHT = 96 + 3 * 16  # rows that a killed run may have embedded in vain: a window, and blocks
worker = worker_fixture(Path(__file__).with_name("indexing_worker.py"))


def save_encoder(folder: Path) -> None:
    rng = np.random.default_rng(5)
    Encoder(
        weight=rng.standard_normal((H, D)).astype(np.float32),
        latent_bias=np.zeros(H, np.float32),
        pre_bias=np.zeros(D, np.float32),
        k=5,
    ).save(folder)


def points_in(folder: Path) -> dict[Any, StoredPoint]:
    found: list[StoredPoint] = []
    with Collection.open(folder) as collection:
        offset: Any = None
        while not found or offset is not None:
            some, offset = collection.store.scroll(1000, offset)
            found += some
    return {point.id: point for point in found}


def recorded_rows(folder: Path) -> int:
    """Return how many rows the journal in `folder` counts as finished."""
    if not folder.exists():
        return 0
    _, metadata = read_description(folder)
    rows = [value["rows"] for key, value in metadata.items() if key.startswith("csr_qdrant_index")]
    return max(rows, default=0)


def npy_file(folder: Path, n: int) -> Path:
    np.save(folder / "rows.npy", np.random.default_rng(0).standard_normal((n, D)))
    return folder / "rows.npy"


def text_file(folder: Path, n: int) -> Path:
    lines = (json.dumps({"id": f"id-{row}", "text": f"row {row}"}) for row in range(n))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return folder / "rows.jsonl"


def check_resumes(
    worker: Worker, folder: Path, source: Path, n: int, kills: int, keep_dense: bool
) -> None:
    save_encoder(folder / "encoder")

    def arguments(name: str) -> dict[str, Any]:
        (folder / name).touch()
        paths = {"folder": f"{folder}/{name}.collection", "log": f"{folder}/{name}"}
        inputs = {"source": str(source), "encoder": f"{folder}/encoder", "keep_dense": keep_dense}
        return paths | inputs

    duration_s = seconds(worker, arguments("whole"))
    random_moment = random.Random(n)
    log, collection = folder / "killed", folder / "killed.collection"
    log.touch()
    for _ in range(kills):
        finished, logged = recorded_rows(collection), len(log.read_text())
        # A share of the time, so that kills hit all of the run, its beginning more than once.
        wait_s = duration_s * random_moment.uniform(0, 2 / kills)
        assert worker.run(arguments("killed"), wait_s) in ("killed", "done")
        embedded = [int(row) for row in log.read_text()[logged:].split()]
        assert min(embedded, default=n) >= finished  # none of the finished rows again
        assert max(embedded, default=-1) < recorded_rows(collection) + IN_FLIGHT
    assert worker.run(arguments("killed")) == "done"
    assert recorded_rows(collection) == n
    whole, resumed = points_in(folder / "whole.collection"), points_in(collection)
    assert len(whole) == n
    assert resumed == whole
    if source.suffix == ".jsonl":
        assert {int(row) for row in log.read_text().split()} == set(range(n))


def test_vectors_survive_kills(worker: Worker, tmp_path: Path) -> None:
    check_resumes(worker, tmp_path, npy_file(tmp_path, 4000), 4000, kills=6, keep_dense=True)


def test_texts_survive_kills(worker: Worker, tmp_path: Path) -> None:
    check_resumes(worker, tmp_path, text_file(tmp_path, 1200), 1200, kills=6, keep_dense=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_kills(worker: Worker, tmp_path: Path) -> None:
    for name in ("vectors", "texts"):
        (tmp_path / name).mkdir()
    source = npy_file(tmp_path / "vectors", 20_000)
    check_resumes(worker, tmp_path / "vectors", source, 20_000, kills=50, keep_dense=True)
    source = text_file(tmp_path / "texts", 8000)
    check_resumes(worker, tmp_path / "texts", source, 8000, kills=50, keep_dense=False)
