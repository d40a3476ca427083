"""Attaching codes to collections of somebody else's, over every engine."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from csr_qdrant.client import CsrQdrant
from csr_qdrant.codes import SparseCodes
from csr_qdrant.collection import Collection
from csr_qdrant.deployment.attach import AttachConfig, attach, attach_on, plan_attach
from csr_qdrant.deployment.attach_journal import KEY
from csr_qdrant.deployment.attach_pages import Pace
from csr_qdrant.deployment.attach_passes import Sample
from csr_qdrant.deployment.detach import detach, plan_detach
from csr_qdrant.errors import CsrError
from csr_qdrant.indexing import index_source
from csr_qdrant.sources import open_source
from csr_qdrant.stores.edge_folder import read_description

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import (
    ClientTarget,
    EdgeTarget,
    H,
    K,
    Meddled,
    Stop,
    Target,
    check_codes,
    encoder_of,
    target_fixture,
    vectors_of,
    without_codes,
)

SMALL = AttachConfig(batch=32, vector="text")
ENCODER = encoder_of()
target = target_fixture(200)


def run(target: Target, config: AttachConfig = SMALL, encoder: Any = ENCODER) -> Any:
    with target.writer() as writer:
        return attach(writer, encoder, config)


def opened(target: Any) -> Collection:
    if isinstance(target, EdgeTarget):
        return Collection.open(target.folder)
    return Collection.open_on(target.client, target.name, ENCODER)


# --- what it does -------------------------------------------------------------------------------


def test_every_point_gets_its_code_and_keeps_the_rest(target: Target) -> None:
    before = target.contents()
    heard: list[tuple[str, int, int]] = []
    with target.writer() as writer:
        report = attach(writer, ENCODER, SMALL, lambda *all: heard.append(all))
    after = target.contents()
    check_codes(after, ENCODER)
    assert without_codes(after) == before
    assert (report.written, report.rewritten, report.removed, report.bad) == (200, 0, 0, 0)
    assert (report.points, report.coded, report.lacking) == (200, 200, 0)
    assert (report.sampled, report.sampled_wrong) == (200, 0)
    assert report.complete
    assert ("backfill", 200, 200) in heard
    alone = isinstance(target, EdgeTarget)  # nobody else can have changed a vector meanwhile
    assert heard[-1] == ("backfill" if alone else "verify", 200, 200)
    assert report.plan.verifies is not alone
    assert run(target).plan.verifies and not run(target, replace(SMALL, verify=False)).plan.verifies


def test_it_is_a_collection_to_search_but_not_to_write_whole_points_to(target: Target) -> None:
    run(target)
    with opened(target) as collection:
        info = collection.info()
        assert info["attached"] and info["dense_name"] == "text" and info["k"] == K
        dense = vectors_of(200)
        hits = collection.search(dense[17], limit=3, rescore=200)
        found = sorted((float(dense[17] @ dense[int(hit.id)]) for hit in hits), reverse=True)
        assert [hit.score for hit in hits] == pytest.approx(found, rel=1e-5)
        codes = ENCODER.encode(dense, K).normalised()
        by_code = collection.search(dense[17], limit=1)[0]
        assert by_code.id == int(np.argmax(codes.to_dense() @ codes[[17]].to_dense()[0]))
        assert collection.get([17])[17].payload == {"row": 17}
        rows: tuple[dict[str, Any], ...] = ({"vectors": dense[:1]}, {"codes": codes[:1]})
        for given in rows:
            with pytest.raises(CsrError, match=r"CsrQdrant.*csr attach"):
                collection.add([1], **given)
    check_codes(target.contents(), ENCODER)


def test_files_are_not_indexed_into_it(target: Target, tmp_path: Path) -> None:
    run(target)
    np.save(tmp_path / "rows.npy", vectors_of(3, seed=4))
    before = target.contents()
    with opened(target) as collection:
        recorded = collection.store.metadata()
        with pytest.raises(CsrError, match=r"CsrQdrant.*csr attach"):
            index_source(open_source(tmp_path / "rows.npy"), collection)
        assert collection.store.metadata() == recorded  # no progress of a run that cannot be
    assert target.contents() == before


def test_metadata_of_others_stay(tmp_path: Path) -> None:
    target = ClientTarget(QdrantClient(":memory:"), "c")
    target.upsert(range(5), vectors_of(5))
    run(target)
    metadata = target.client.get_collection("c").config.metadata
    assert metadata is not None and metadata["owner"] == "somebody else" and len(metadata) == 4
    with target.writer() as writer:
        detach(writer)
    assert target.client.get_collection("c").config.metadata == {"owner": "somebody else"}


def test_points_without_a_direction_or_a_latent_are_counted(target: Target, tmp_path: Path) -> None:
    blind = replace(ENCODER, latent_bias=np.full(H, -4.0, np.float32))
    zero = np.zeros((2, 8), np.float32)
    target.change([11, 13], zero)
    dense = vectors_of(200)
    dense[[11, 13]] = 0
    lengths = blind.encode(dense, K).lengths
    silent = int((lengths == 0).sum()) - 2
    assert 0 < silent < 198
    path = tmp_path / "bad.jsonl"
    report = run(target, replace(SMALL, bad_rows=path), blind)
    assert (report.bad, report.without_code) == (2, silent)
    assert report.written == report.coded == 198 - silent
    assert report.complete and report.lacking == 0
    bad = [json.loads(line) for line in path.read_text().splitlines()]
    assert bad == [{"id": 11, "reason": "all zeros"}, {"id": 13, "reason": "all zeros"}]
    check_codes(target.contents(), blind)
    target.upsert([11, 13], vectors_of(2, seed=3))
    assert run(target, replace(SMALL, bad_rows=path), blind).bad == 0
    assert not path.exists()  # nothing is bad any more


def test_points_that_lose_their_code_are_named_in_the_same_run(
    target: Target, tmp_path: Path
) -> None:
    blind = replace(ENCODER, latent_bias=np.full(H, -4.0, np.float32))
    config = replace(SMALL, bad_rows=tmp_path / "bad.jsonl")
    target.change([5], np.zeros((1, 8), np.float32))
    run(target, config, blind)
    coded = [point for point, (_, vectors) in target.contents().items() if "csr" in vectors]
    target.change(coded[:1], np.zeros((1, 8), np.float32))
    target.change(coded[1:2], np.full((1, 8), 1e-3, np.float32))  # no latent is active
    report = run(target, config, blind)
    lines = (tmp_path / "bad.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == [5, coded[0]]
    assert (report.bad, report.removed, report.coded) == (2, 2, len(coded) - 2)
    assert [each.id for each in report.bad_examples] == [5, coded[0]]
    assert report.without_code == 200 - report.coded - 2
    assert report.complete and report.lacking == 0
    again = run(target, config, blind)
    assert (again.bad, again.removed, again.without_code) == (2, 0, report.without_code)
    check_codes(target.contents(), blind)


def test_codes_without_a_dense_vector_stay_unless_told(target: Target) -> None:
    run(target)
    target.drop_dense([3, 150])
    kept = target.contents()
    assert "text" not in kept[3][1] and kept[3][1]["csr"]
    with target.writer() as writer:
        assert plan_attach(writer, ENCODER, SMALL).orphans == 2
    report = run(target)
    assert (report.orphans, report.removed, report.points) == (2, 0, 198)
    assert report.complete  # on purpose or not, they are none of this run's business
    assert target.contents() == kept
    with target.writer() as writer:
        assert plan_detach(writer).codes == 200
    told = run(target, replace(SMALL, remove_orphans=True))
    assert (told.orphans, told.removed, told.coded, told.complete) == (0, 2, 198, True)
    for point in (3, 150):
        del kept[point][1]["csr"]
    assert target.contents() == kept
    check_codes({point: each for point, each in kept.items() if "text" in each[1]}, ENCODER)


def test_nan_and_overflow_are_named_and_stop_nothing(tmp_path: Path) -> None:
    target = EdgeTarget(tmp_path / "shard")
    vectors = vectors_of(100)
    vectors[5], vectors[40, 3], vectors[99] = np.nan, np.inf, 3e38
    target.upsert(range(100), vectors)
    report = run(target)
    assert [(bad.id, bad.reason) for bad in report.bad_examples] == [
        (5, "NaN or an infinity"),
        (40, "NaN or an infinity"),
        (99, "values too large"),
    ]
    assert (report.written, report.coded, report.complete) == (97, 97, True)


def test_running_again_brings_it_up_to_date(target: Target) -> None:
    run(target)
    assert run(target).written == 0
    target.upsert(range(200, 250), vectors_of(50, seed=1))
    target.upsert([3], vectors_of(1, seed=2))  # a plain writer drops the code
    target.change(range(20, 30), vectors_of(10, seed=3))  # and leaves an old one here
    target.change([40], np.zeros((1, 8), np.float32))
    target.delete([50, 51])
    report = run(target)
    assert (report.written, report.rewritten, report.removed) == (51, 10, 1)
    assert report.complete
    contents = target.contents()
    check_codes(contents, ENCODER)
    assert len(contents) == 248


def test_without_verifying_stale_codes_stay(target: Target) -> None:
    run(target)
    target.change([7], vectors_of(1, seed=9))
    old = target.contents()[7][1]["csr"]
    report = run(target, replace(SMALL, verify=False))
    assert (report.rewritten, target.contents()[7][1]["csr"]) == (0, old)
    assert run(target).rewritten == 1


@pytest.mark.parametrize("datatype", ["f16", "u8"])
def test_settings_are_kept(target: Target, datatype: Any) -> None:
    config = replace(SMALL, name="codes", k=2, datatype=datatype, vector="text")
    assert run(target, config).plan.datatype == datatype
    check_codes(target.contents(), ENCODER, k=2, name="codes") if datatype == "f32" else None
    with opened(target) as collection:
        assert (collection.identity.k, collection.store.schema.datatype) == (2, datatype)
        assert max(len(hit.code[0]) for hit in collection.get([1, 2]).values() if hit.code) <= 2
    assert run(target, replace(SMALL, name="codes", k=2)).rewritten == 0


def test_an_unnamed_vector(tmp_path: Path) -> None:
    client = QdrantClient(":memory:")
    client.create_collection("c", models.VectorParams(size=8, distance=models.Distance.COSINE))
    vectors = vectors_of(50)
    points = [models.PointStruct(id=i, vector=v.tolist()) for i, v in enumerate(vectors)]
    client.upsert("c", points)
    assert attach_on(client, "c", ENCODER).written == 50
    with Collection.open_on(client, "c", ENCODER) as collection:
        assert collection.store.schema.dense_name == ""
        assert collection.search(vectors[4], limit=1, rescore=50)[0].id == 4
        stored = collection.get([4])[4]
        assert stored.dense == pytest.approx((vectors[4] / np.linalg.norm(vectors[4])).tolist())
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert stored.code is not None
    assert stored.code[0] == list(ENCODER.encode(unit, K).to_lists())[4][0]


def test_an_alias_leads_to_its_collection() -> None:
    client = QdrantClient(":memory:")
    target = ClientTarget(client, "real")
    target.upsert(range(10), vectors_of(10))
    alias = models.CreateAlias(collection_name="real", alias_name="live")
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
    config = AttachConfig(vector="text")
    report = attach_on(client, "live", ENCODER, config)
    assert report.plan.location == "collection 'real' in local mode"
    with pytest.raises(CsrError, match="there is no collection 'gone'"):
        attach_on(client, "gone", ENCODER, config)


def test_a_plan_tells_what_it_costs(target: Target) -> None:
    with target.writer() as writer:
        plan = plan_attach(writer, ENCODER, replace(SMALL, vector="text"))
        assert (plan.points, plan.lacking, plan.adds_name, plan.phase) == (200, 200, True, None)
        assert plan.copied_bytes == 200 * 8 * 4 and plan.stored_bytes == 200 * K * 8
        assert writer.schema() is None
        attach(writer, ENCODER, replace(SMALL, vector="text"))
        plan = plan_attach(writer, ENCODER, SMALL)
        assert (plan.lacking, plan.adds_name, plan.phase) == (0, False, "done")


# --- others writing meanwhile ------------------------------------------------------------------


def test_points_deleted_meanwhile_are_passed_over() -> None:
    target = ClientTarget(QdrantClient(":memory:"), "c")
    target.upsert(range(100), vectors_of(100))

    def meddle(method: str, count: int) -> None:
        if method == "write" and count == 2:  # between the reading of the page and its writing
            target.delete([40, 41, 63])

    with target.writer() as writer:
        meddled: Any = Meddled(writer, meddle)
        report = attach(meddled, ENCODER, replace(SMALL, vector="text", threads=1))
    assert report.points == report.coded == 97 and report.bad == 0
    check_codes(target.contents(), ENCODER)


def test_codes_of_other_writers_are_not_overwritten() -> None:
    target = ClientTarget(QdrantClient(":memory:"), "c")
    target.upsert(range(100), vectors_of(100))
    newer = vectors_of(1, seed=5)
    code = ENCODER.encode(newer, K).normalised().to_qdrant()[0]

    def meddle(method: str, count: int) -> None:
        if method == "write" and count == 2:
            vector: Any = {"text": newer[0].tolist(), "csr": code}
            target.client.update_vectors("c", [models.PointVectors(id=45, vector=vector)])

    with target.writer() as writer:
        meddled: Any = Meddled(writer, meddle)
        config = replace(SMALL, vector="text", threads=1, verify=False)
        report = attach(meddled, ENCODER, config)
    assert report.rewritten == 0 and report.complete
    check_codes(target.contents(), ENCODER)  # also that of 45, whose old vector had been read


def test_vectors_changed_meanwhile_end_with_their_own_codes() -> None:
    target = ClientTarget(QdrantClient(":memory:"), "c")
    target.upsert(range(100), vectors_of(100))

    def meddle(method: str, count: int) -> None:
        if method == "write" and count == 2:  # of the backfill: the old vectors have been read
            target.change([40, 41], vectors_of(2, seed=6))
        if method == "write" and count == 5:  # of the verifying pass: they change once more
            target.change([40], vectors_of(1, seed=7))
        if method == "page" and count == 3:
            target.upsert([70, 500], vectors_of(2, seed=8))

    with target.writer() as writer:
        meddled: Any = Meddled(writer, meddle)
        report = attach(meddled, ENCODER, replace(SMALL, vector="text", threads=1))
    assert report.complete and report.rewritten >= 2
    contents = target.contents()
    assert len(contents) == 101
    check_codes(contents, ENCODER)


def test_a_point_that_never_settles_is_reported() -> None:
    target = ClientTarget(QdrantClient(":memory:"), "c")
    target.upsert(range(10), vectors_of(10))
    run(target, replace(SMALL, vector="text"))
    target.change([1], vectors_of(1, seed=50))

    def meddle(method: str, count: int) -> None:
        if method == "retrieve":
            target.change([1], vectors_of(1, seed=100 + count))

    with target.writer() as writer:
        meddled: Any = Meddled(writer, meddle)
        report = attach(meddled, ENCODER, SMALL)
    assert report.unsettled == 1 and not report.complete
    assert run(target).complete


# --- going on -----------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", [("write", 1), ("write", 4), ("page", 12), ("retrieve", 1)])
def test_a_stopped_run_goes_on(target: Target, moment: tuple[str, int]) -> None:
    pages: list[int] = []

    def meddle(method: str, count: int) -> None:
        if (method, count) == moment:
            raise Stop

    config = replace(SMALL, vector="text", threads=1)
    with target.writer() as writer:
        meddled: Any = Meddled(writer, meddle)
        with pytest.raises(Stop):
            attach(meddled, ENCODER, config)
    with target.writer() as writer:
        stopped = writer.metadata()[KEY]
        watched: Any = Meddled(writer, lambda method, count: pages.append(method == "page"))
        report = attach(watched, ENCODER, config)
        assert writer.metadata()[KEY] == {"phase": "done", "offset": None}
    assert report.complete and report.coded == 200
    check_codes(target.contents(), ENCODER)
    if moment == ("write", 4):  # three pages of 32 were in
        assert stopped == {"phase": "backfill", "offset": 96}
        assert report.written == 104
    if moment == ("page", 12):  # in the verifying pass
        assert stopped["phase"] == "verify" and report.written == 0
        assert sum(pages) < 1 + 7


def test_a_record_without_its_vector_name_is_completed(target: Target) -> None:
    def meddle(method: str, count: int) -> None:
        if method == "add_name":
            raise Stop

    config = replace(SMALL, vector="text")
    with target.writer() as writer:
        meddled: Any = Meddled(writer, meddle)
        with pytest.raises(Stop):
            attach(meddled, ENCODER, config)
    assert run(target).complete
    check_codes(target.contents(), ENCODER)


# --- parts --------------------------------------------------------------------------------------


def test_the_pace_is_kept() -> None:
    pace = Pace(1000.0)
    started = time.perf_counter()
    for _ in range(5):
        pace.wait(50)
    assert 0.19 <= time.perf_counter() - started < 1.0


def test_every_id_is_as_likely_in_a_sample() -> None:
    counts = np.zeros(40)
    for seed in range(2000):
        sample = Sample(size=10)
        sample.random.seed(seed)
        sample.add(list(range(25)))
        sample.add(list(range(25, 40)))
        assert len(set(sample.ids)) == 10
        counts[np.array(sample.ids, np.int64)] += 1
    assert np.abs(counts - 500).max() < 5 * np.sqrt(500)


def test_what_was_recorded_can_be_read_by_name(tmp_path: Path) -> None:
    target = EdgeTarget(tmp_path / "shard")
    target.upsert(range(3), vectors_of(3))
    attach(target.folder, ENCODER, replace(SMALL, vector="text"))
    schema, metadata = read_description(target.folder)
    assert schema.attached and schema.dense_name == "text" and schema.h == H
    assert set(metadata) == {"csr_qdrant", KEY}


def test_writers_take_codes_of_points_that_are_gone() -> None:
    target = ClientTarget(QdrantClient(":memory:"), "c")
    target.upsert(range(3), vectors_of(3))
    with target.writer() as writer:
        writer.add_name("csr", "f32")
        codes = SparseCodes.from_dense(np.eye(3, H, dtype=np.float32))
        assert writer.write("csr", [1, 77, 2], codes, only_new=True) == []
        found = {point.id: point.code for point in writer.retrieve("text", "csr", [0, 1, 2, 77])}
        assert found == {0: None, 1: ([0], [1.0]), 2: ([2], [1.0])}
        writer.remove("csr", [1, 78])
        assert writer.count("text", "csr") == 2


def test_an_application_writes_the_codes_that_attach_would(tmp_path: Path) -> None:
    client = QdrantClient(":memory:")
    size = models.VectorParams(size=8, distance=models.Distance.COSINE)
    client.create_collection("docs", {"text": size})
    random = np.random.default_rng(0)
    encoder = replace(ENCODER, latent_bias=random.normal(size=H).astype(np.float32))
    rows = 5 * vectors_of(40)
    points = [models.PointStruct(id=i, vector={"text": v}) for i, v in enumerate(rows.tolist())]
    client.upsert("docs", points[:20])
    config = AttachConfig(vector="text")
    attach_on(client, "docs", encoder, config)
    docs = CsrQdrant(client, encoder, dense_name="text", normalise=True)
    docs.upsert("docs", points[20:])
    report = attach_on(client, "docs", encoder, config)
    assert (report.written, report.rewritten, report.complete) == (0, 0, True)
    # The same vectors, encoded as they are, have other codes.
    CsrQdrant(client, encoder, dense_name="text").upsert("docs", points[20:])
    assert attach_on(client, "docs", encoder, config).rewritten > 0
