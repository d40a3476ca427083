"""Shards that were killed while codes were added or removed, which the engine refuses to load."""

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import qdrant_edge as engine

from csr_qdrant.collection import Collection
from csr_qdrant.deployment.attach import AttachConfig, attach
from csr_qdrant.deployment.detach import detach
from csr_qdrant.errors import CsrError
from csr_qdrant.stores.edge_writer import EdgeCodeWriter

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import EdgeTarget, check_codes, encoder_of, vectors_of

ENCODER = encoder_of()
CONFIG = AttachConfig(vector="text", optimise=False)
N = 4000


def segments(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("segments/*/segment.json"))


def names(folder: Path) -> list[bool]:
    """Return whether the configuration and each of the segments have the name of the codes."""
    configured = json.loads((folder / "edge_config.json").read_text("utf-8"))["sparse_vectors"]
    paths = [folder / "segments" / name / "segment.json" for name in segments(folder)]
    found = [json.loads(path.read_text("utf-8"))["config"] for path in paths]
    return ["csr" in configured, *("csr" in each.get("sparse_vector_data", {}) for each in found)]


class Made:
    """One shard of several segments: bare, with the name, with codes, and without them again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        bare = folder / "bare"
        bare.mkdir()
        sizes = {"text": engine.EdgeVectorParams(size=8, distance=engine.Distance.Dot)}
        small = engine.EdgeOptimizersConfig(indexing_threshold=50, default_segment_number=4)
        made = engine.EdgeConfig(vectors=sizes, optimizers=small)
        engine.EdgeShard.create(str(bare), made).close()
        self.target = EdgeTarget.__new__(EdgeTarget)
        self.target.folder = bare
        with self.target.shard() as shard:
            rows = enumerate(vectors_of(N).tolist())
            points = [engine.Point(i, {"text": row}, {"row": i}) for i, row in rows]
            shard.update(engine.UpdateOperation.upsert_points(points[10:]))
            shard.optimize()
            shard.update(engine.UpdateOperation.upsert_points(points[:10]))
        self.before = self.target.contents()
        assert len(segments(bare)) == 2
        shutil.copytree(bare, folder / "named")
        with EdgeCodeWriter.open(folder / "named") as writer:
            writer.add_name("csr", "f32")
        shutil.copytree(bare, folder / "coded")
        attach(folder / "coded", ENCODER, CONFIG)
        shutil.copytree(folder / "coded", folder / "removed")
        with EdgeCodeWriter.open(folder / "removed") as writer:
            writer.remove_name("csr")

    def mixed(self, to: Path, first: str, others: str, configuration: str) -> EdgeTarget:
        """Copy the first segment from one of the shards, the rest from others."""
        shutil.copytree(self.folder / others, to)
        name = segments(to)[0]
        shutil.rmtree(to / "segments" / name)
        shutil.copytree(self.folder / first / "segments" / name, to / "segments" / name)
        shutil.copy(self.folder / configuration / "edge_config.json", to)
        for file in ("collection.json", "encoder"):
            if not (to / file).exists():
                copy: Any = shutil.copytree if file == "encoder" else shutil.copy
                copy(self.folder / "coded" / file, to / file)
        made = EdgeTarget.__new__(EdgeTarget)
        made.folder = to
        return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    yield Made(tmp_path_factory.mktemp("shards"))


def refused_by_the_engine(folder: Path) -> bool:
    try:
        engine.EdgeShard.load(str(folder)).close()
    except Exception as error:
        assert "ncompatible config" in str(error)
        return True
    return False


@pytest.mark.parametrize(
    ("first", "others", "configuration"),
    [
        ("removed", "coded", "coded"),
        ("coded", "removed", "coded"),
        ("removed", "removed", "coded"),
    ],
)
def test_a_half_removed_name_is_removed(
    made: Made, tmp_path: Path, first: str, others: str, configuration: str
) -> None:
    target = made.mixed(tmp_path / "s", first, others, configuration)
    assert refused_by_the_engine(target.folder)
    with pytest.raises(CsrError, match="give that command again; it mends them"):
        Collection.open(target.folder)  # which only reads, and so mends nothing
    detach(target.folder, optimise=False)
    assert not any(names(target.folder))
    assert not list(target.folder.glob("segments/*/*-csr"))
    assert target.contents() == made.before


@pytest.mark.parametrize(("first", "others"), [("named", "bare"), ("bare", "named")])
def test_a_half_added_name_is_added(made: Made, tmp_path: Path, first: str, others: str) -> None:
    target = made.mixed(tmp_path / "s", first, others, "bare")
    assert refused_by_the_engine(target.folder)
    report = attach(target.folder, ENCODER, CONFIG)
    assert (report.written, report.complete) == (N, True)
    assert all(names(target.folder))
    contents = target.contents()
    check_codes(contents, ENCODER)
    detach(target.folder, optimise=False)
    assert target.contents() == made.before


def test_nothing_else_is_mended(made: Made, tmp_path: Path) -> None:
    target = made.mixed(tmp_path / "s", "removed", "coded", "coded")
    before = names(target.folder)
    assert before[0] and len(set(before[1:])) == 2

    def refused() -> None:
        with pytest.raises(CsrError, match="hold different vectors"):
            EdgeCodeWriter.open(target.folder)
        assert names(target.folder) == before

    description = target.folder / "collection.json"
    recorded = json.loads(description.read_text("utf-8"))
    for schema in ({"attached": False}, {"code_name": "other"}, {"code_name": "../csr"}):
        changed = {**recorded, "schema": {**recorded["schema"], **schema}}
        description.write_text(json.dumps(changed), "utf-8")
        refused()
    description.unlink()  # somebody else's altogether
    refused()


def test_an_open_shard_is_left_alone(made: Made, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(made.folder / "coded", whole)
    with EdgeCodeWriter.open(whole):
        halfway = made.folder / "removed" / "segments" / segments(whole)[0] / "segment.json"
        shutil.copy(halfway, whole / "segments" / segments(whole)[0])
        before = names(whole)
        with pytest.raises(CsrError, match="hold different vectors"):
            EdgeCodeWriter.open(whole)
        assert names(whole) == before


def test_a_run_killed_while_mending_is_completed(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from csr_qdrant.stores import edge_repair

    target = made.mixed(tmp_path / "s", "coded", "removed", "coded")
    calls: list[Path] = []
    stops: list[int] = []
    plain = edge_repair._without

    def stopping(path: Path, keys: tuple[str, ...], name: str) -> None:
        calls.append(path)
        if len(calls) == stops[-1]:
            raise KeyboardInterrupt
        plain(path, keys, name)

    monkeypatch.setattr(edge_repair, "_without", stopping)
    for step in (1, 2, 3):  # before the first segment, the second one, and the configuration
        calls.clear()
        stops.append(step)
        with pytest.raises(KeyboardInterrupt):
            EdgeCodeWriter.open(target.folder)
    stops.append(0)
    assert detach(target.folder, optimise=False).codes == 0
    assert target.contents() == made.before


def test_attaching_over_a_half_removed_name(made: Made, tmp_path: Path) -> None:
    target = made.mixed(tmp_path / "s", "coded", "removed", "coded")
    report = attach(target.folder, ENCODER, replace(CONFIG, verify=False))
    assert report.written == N
    check_codes(target.contents(), ENCODER)
