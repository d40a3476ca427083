"""What a copy of a collection with codes holds, between all engines."""

import json
import sys
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as engine
from qdrant_client import QdrantClient, models

from csr_qdrant.collection import Collection
from csr_qdrant.deployment.migrate import MigrateConfig, migrate
from csr_qdrant.stores.whole_points_edge import EdgePlace, EdgePoints

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import check_codes, vectors_of, without_codes
from engines import ENGINES
from migrate_world import ENCODER, SMALL, N, World, contents, plain, points_of, run, world_fixture

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
world = world_fixture()


@pytest.mark.parametrize("to", ENGINES)
@pytest.mark.parametrize("of", ENGINES)
def test_a_copy_holds_everything_and_codes(of: str, to: str, world: Callable[[str], World]) -> None:
    source, there = world(of).source(), world(to)
    place = there.place()
    before = source.contents()
    heard: list[tuple[str, int, int]] = []
    with points_of(source) as opened:
        report = migrate(opened, place, ENCODER, SMALL, lambda *all: heard.append(all))
    after = contents(place)
    check_codes(after, ENCODER)
    assert without_codes(after).keys() == before.keys()
    for point, (payload, vectors) in before.items():
        assert after[point][0] == payload
        for name, values in vectors.items():
            np.testing.assert_allclose(after[point][1][name], values, rtol=1e-6)
    assert plain(source.contents()) == plain(before)
    assert (report.copied, report.mended, report.removed, report.bad) == (N, 0, 0, 0)
    assert (report.points, report.target_points, report.coded, report.sampled) == (N, N, N, N)
    assert report.complete and not report.swapped
    assert ("copy", N, N) in heard and heard[-1] == ("verify", N, N)
    json.dumps(report.to_json())


@pytest.mark.parametrize("to", ENGINES)
@pytest.mark.parametrize("keep", ["all", "rescore", "none"])
def test_the_copy_is_a_collection_to_search(
    keep: str, to: str, world: Callable[[str], World]
) -> None:
    source, there = world("edge").source(), world(to)
    name = there.name()
    place = there.place(name)
    run(source, place, replace(SMALL, drop_dense=keep == "none", rescore=keep == "rescore"))
    if to == "edge":
        collection = Collection.open(there.folder / name)
    else:
        collection = Collection.open_on(there.client, name, ENCODER)
    dense = vectors_of(N)
    with collection:
        assert collection.store.schema.attached and len(collection) == N
        assert collection.keeps_dense == (keep != "none")
        hits = collection.search(dense[17], limit=3, rescore=N if keep != "none" else 0)
        if keep != "none":
            best = sorted((float(dense[17] @ dense[int(hit.id)]) for hit in hits), reverse=True)
            assert [hit.score for hit in hits] == pytest.approx(best, rel=1e-5)
        assert hits[0].payload["row"] == hits[0].id
    setup = setup_of(place)
    assert set(setup.vectors) == ({"image"} if keep == "none" else {"text", "image"})
    if keep == "rescore":
        text = setup.vectors["text"]
        assert text["on_disk"] is True and text["hnsw_config"]["m"] == 0
    if keep == "none":
        assert all(set(vectors) == {"image", "csr"} for _, vectors in contents(place).values())


def setup_of(place: Any) -> Any:
    with place.open() as opened:
        return opened.setup()


def rich_shard(folder: Path) -> None:
    """Make a shard with all kinds of vectors, settings and ids."""
    params, cosine = engine.EdgeVectorParams, engine.Distance.Cosine
    config = engine.EdgeConfig(
        vectors={
            "text": params(
                size=8,
                distance=cosine,
                datatype=engine.VectorStorageDatatype.Float16,
                hnsw_config=engine.HnswIndexConfig(4, 10, 100),
            ),
            "pages": params(
                size=2,
                distance=cosine,
                multivector_config=engine.MultiVectorConfig(engine.MultiVectorComparator.MaxSim),
            ),
        },
        sparse_vectors={"words": engine.EdgeSparseVectorParams(modifier=engine.Modifier.Idf)},
        hnsw_config=engine.HnswIndexConfig(8, 50, 1000),
        quantization_config=engine.ScalarQuantizationConfig(engine.ScalarType.Int8, quantile=0.9),
        optimizers=engine.EdgeOptimizersConfig(indexing_threshold=77),
    )
    folder.mkdir()
    shard = engine.EdgeShard.create(str(folder), config)
    operation = engine.UpdateOperation
    shard.update(operation.create_field_index("kind", engine.PayloadSchemaType.Keyword))
    year = engine.IntegerIndexParams(lookup=True, range=False)
    shard.update(operation.create_field_index("year", year))
    words = engine.SparseVector([9, 3], [2.5, 40.0])
    full: dict[str, Any] = {"text": vectors_of(1)[0].tolist(), "pages": [[3, 4], [1, 1], [0, 2]]}
    payload = {"kind": "a", "deep": {"list": [1, None, {"x": 1.5}]}, "year": 2**40, "ü": "☃"}
    points = [
        engine.Point(7, {**full, "words": words}, payload),
        engine.Point(8, {}, {}),  # without any vector
        engine.Point(9, {"text": [0.0] * 8}, {"kind": None}),
        engine.Point(str(uuid.UUID(int=5)), full, {"year": 1}),
    ]
    shard.update(operation.upsert_points(points))
    shard.flush()
    shard.close()


@pytest.mark.parametrize("to", ENGINES)
def test_all_kinds_of_vectors_settings_and_ids(
    to: str, tmp_path: Path, world: Callable[[str], World]
) -> None:
    rich_shard(tmp_path / "rich")
    there = world(to)
    place, back = there.place(), EdgePlace(tmp_path / "back")
    bad = tmp_path / "bad.jsonl"
    report = migrate(tmp_path / "rich", place, ENCODER, MigrateConfig(device="numpy", bad_rows=bad))
    assert report.complete and (report.points, report.coded, report.bad) == (4, 2, 1)
    assert json.loads(bad.read_text()) == {"id": 9, "reason": "all zeros"}
    with place.open() as copy:  # and home again, as a copy of a collection that has codes
        assert migrate(copy, back, ENCODER, MigrateConfig(device="numpy")).complete
    with EdgePoints.open(tmp_path / "rich") as opened:
        before, given = opened.points(10, None)[0], opened.setup()
    after = contents(back)
    for point in before:
        payload, vectors = after[point.id]
        assert payload == point.payload
        assert set(vectors) - {"csr"} == set(point.vectors)
        for name, each in point.vectors.items():
            if name == "words":
                assert dict(zip(*vectors[name], strict=True)) == {9: 2.5, 3: 40.0}
            else:
                np.testing.assert_allclose(vectors[name], each, rtol=2e-3)
    setup = setup_of(back)
    for name, wanted in given.vectors.items():
        kept = setup.vectors[name]
        # A server tells more of a graph than it was told, and a vector's own graph inherits that.
        graph = kept.get("hnsw_config", {}).items()
        assert wanted.get("hnsw_config", {}).items() <= graph
        assert {**wanted, "hnsw_config": None}.items() <= {**kept, "hnsw_config": None}.items()
    assert setup.sparse["words"]["modifier"] == "idf"
    if to == "edge":  # local mode keeps none of the rest
        assert setup.sparse["csr"]["index"]["datatype"] == "float32"
        assert setup == replace(given, sparse=setup.sparse)
        assert set(setup.indexes) == {"kind", "year"}
        assert setup.indexes["year"]["lookup"] is True and setup.indexes["year"]["range"] is False


def test_what_a_server_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rich_shard(tmp_path / "rich")
    client = QdrantClient(":memory:")
    given: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    create = client.create_collection

    def creating(name: str, **arguments: Any) -> Any:
        given.update(arguments)
        return create(name, **arguments)

    def indexing(name: str, field: str, field_schema: Any, **_: Any) -> None:
        fields[field] = field_schema

    monkeypatch.setattr(client, "create_collection", creating)
    monkeypatch.setattr(client, "create_payload_index", indexing)
    migrate(tmp_path / "rich", (client, "copy"), ENCODER, MigrateConfig(rescore=True))
    text, pages = given["vectors_config"]["text"], given["vectors_config"]["pages"]
    assert (text.on_disk, text.quantization_config) == (True, None)
    assert (text.hnsw_config.m, text.hnsw_config.payload_m) == (0, 0)
    assert text.datatype == models.Datatype.FLOAT16
    assert given["quantization_config"] is None  # or it would hold the rescored vector, too
    assert pages.quantization_config.scalar.quantile == pytest.approx(0.9)
    assert pages.multivector_config.comparator == "max_sim"
    assert given["hnsw_config"].ef_construct == 50
    assert given["optimizers_config"].indexing_threshold == 77
    assert isinstance(fields["kind"], models.KeywordIndexParams)
    assert isinstance(fields["year"], models.IntegerIndexParams)
    assert (fields["year"].lookup, fields["year"].range) == (True, False)


def test_other_peoples_metadata_go_along_and_back(world: Callable[[str], World]) -> None:
    source, edge, memory = world("memory").source(), world("edge"), world("memory")
    first, name = edge.place(), memory.name()
    run(source, first)
    with first.open() as opened:
        migrate(
            opened,
            memory.place(name),
            None,
            replace(SMALL, vector=None),
        )
    metadata = memory.client.get_collection(name).config.metadata
    assert metadata is not None and metadata["owner"] == "somebody else"


def test_a_corpus_of_codes_goes_from_a_folder_to_a_server(
    tmp_path: Path, world: Callable[[str], World]
) -> None:
    ids = [f"doc {row}" for row in range(40)]
    with Collection.create(tmp_path / "own", ENCODER) as own:
        own.add(ids, vectors=vectors_of(40))
        wanted = own.search(vectors_of(40)[3], limit=5)
    there = world("memory")
    name = there.name()
    report = migrate(tmp_path / "own", (there.client, name))
    assert report.complete and report.coded == 40 and report.plan.vector is None
    with Collection.open_on(there.client, name, ENCODER) as copy:
        assert not copy.store.schema.attached
        found = copy.search(vectors_of(40)[3], limit=5)
        assert [hit.id for hit in found] == [hit.id for hit in wanted]
        copy.add(["new"], vectors=vectors_of(1, seed=9))  # it is ours, as the source is
