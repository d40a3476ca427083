"""Copies of collections with codes, between all engines."""

import json
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as engine
from qdrant_client import QdrantClient, models

from csr_qdrant.collection import Collection
from csr_qdrant.deployment.migrate import MigrateConfig, migrate, plan_migrate
from csr_qdrant.deployment.migrate_journal import KEY
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.stores.whole_points import NewPlace
from csr_qdrant.stores.whole_points_edge import EdgePlace, EdgePoints
from csr_qdrant.stores.whole_points_server import ServerPlace, ServerPoints

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import (
    QUICK,
    ClientTarget,
    EdgeTarget,
    Meddled,
    Target,
    check_codes,
    encoder_of,
    vectors_of,
    without_codes,
)
from engines import ENGINES, open_client

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
SMALL = MigrateConfig(batch=32, vector="text", device="numpy")
ENCODER = encoder_of()
N = 150


class World:
    """Makes sources and places of one engine, and cleans up after itself."""

    def __init__(self, kind: str, folder: Path, request: pytest.FixtureRequest) -> None:
        self.kind, self.folder = kind, folder
        self.names: list[str] = []
        if kind != "edge":
            self.client = open_client(kind, request)

    def name(self) -> str:
        self.names.append(f"csr-qdrant-test-{uuid.uuid4().hex}")
        return self.names[-1]

    def source(self) -> Any:
        made: Target
        if self.kind == "edge":
            made = EdgeTarget(self.folder / self.name())
        else:
            made = ClientTarget(self.client, self.name())
        made.upsert(range(N), vectors_of(N))
        return made

    def place(self, name: str | None = None) -> Any:
        name = name or self.name()
        if self.kind == "edge":
            return EdgePlace(self.folder / name)
        return ServerPlace(self.client, name, QUICK)

    def close(self) -> None:
        if self.kind != "edge":
            for name in self.names:  # only what this test made
                self.client.delete_collection(name)
            self.client.close()


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str], World]]:
    made: list[World] = []

    def make(kind: str) -> World:
        folder = tmp_path / f"world-{len(made)}"
        folder.mkdir()
        made.append(World(kind, folder, request))
        return made[-1]

    yield make
    for each in made:
        each.close()


def points_of(source: Any) -> Any:
    if isinstance(source, EdgeTarget):
        return EdgePoints.open(source.folder)
    return ServerPoints.open(source.client, source.name, retries=QUICK)


def run(source: Any, place: NewPlace, config: MigrateConfig = SMALL, encoder: Any = ENCODER) -> Any:
    with points_of(source) as opened:
        return migrate(opened, place, encoder, config)


def contents(place: NewPlace) -> dict[Any, Any]:
    opened: Any
    with place.open() as opened:  # type: ignore[attr-defined]
        found, following = opened.points(10**5, None)
    assert following is None
    return {point.id: (point.payload, dict(point.vectors)) for point in found}


def plain(contents: dict[Any, Any]) -> dict[Any, Any]:
    """Return what `attach_targets` returns, in the types of `contents`."""
    return {
        i: (p, {n: tuple(v) if isinstance(v, tuple) else v for n, v in vectors.items()})
        for i, (p, vectors) in contents.items()
    }


# --- what it does -------------------------------------------------------------------------------


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


# --- resuming and verifying ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ENGINES)
def test_a_run_goes_on_where_it_stopped(kind: str, world: Callable[[str], World]) -> None:
    here = world(kind)
    source, place = here.source(), here.place()

    def fail(name: str, count: int) -> None:
        if name == "upsert" and count == 3:
            raise CsrError("the engine failed")

    with points_of(source) as opened, pytest.raises(CsrError, match="the engine failed"):
        migrate(opened, MeddledPlace(place, fail), ENCODER, replace(SMALL, threads=1))
    with place.open() as copy:
        assert copy.metadata()[KEY]["phase"] == "copy" and copy.metadata()[KEY]["offset"] == 64
    report = run(source, place)
    assert report.copied == N - 64 and report.complete
    check_codes(contents(place), ENCODER)


class MeddledPlace:
    """A place whose collection calls `meddle` before each method."""

    def __init__(self, place: NewPlace, meddle: Any) -> None:
        self._place, self._meddle = place, meddle

    def __getattr__(self, name: str) -> Any:
        return getattr(self._place, name)

    def open(self) -> Any:
        return Meddled(self._place.open(), self._meddle)  # type: ignore[arg-type]

    def create(self, *arguments: Any) -> Any:
        return Meddled(self._place.create(*arguments), self._meddle)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ENGINES)
def test_another_run_makes_the_copy_equal_again(kind: str, world: Callable[[str], World]) -> None:
    here = world(kind)
    source, place = here.source(), here.place()
    run(source, place)
    source.change([3, 4], vectors_of(2, seed=5))
    source.delete([10, 11, 12])
    source.upsert([1000], vectors_of(1, seed=6))
    with place.open() as copy:
        copy.delete([20])
    report = run(source, place)
    assert (report.copied, report.mended, report.removed) == (0, 4, 3) and report.complete
    after = contents(place)
    check_codes(after, ENCODER)
    assert after.keys() == source.contents().keys()
    assert run(source, place).mended == 0


def test_points_written_meanwhile_arrive(world: Callable[[str], World]) -> None:
    here = world("memory")
    source, place = here.source(), here.place()

    def write(name: str, count: int) -> None:
        if name == "upsert" and count == 2:
            source.upsert([-1 + 2000], vectors_of(1, seed=3))
            source.change([0], vectors_of(1, seed=4))  # a page that has been copied
            source.delete([1])

    with points_of(source) as opened:
        report = migrate(opened, MeddledPlace(place, write), ENCODER, SMALL)
    assert report.complete and report.mended == 1 and report.removed == 1
    after = contents(place)
    check_codes(after, ENCODER)
    assert after.keys() == source.contents().keys()


# --- the alias -----------------------------------------------------------------------------------


def test_an_alias_moves_in_one_call_and_then_the_copy_is_left_alone(
    world: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world("memory")
    source, name = here.source(), here.name()
    place, client = here.place(name), here.client
    create = models.CreateAlias(collection_name=source.name, alias_name="live")
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])
    calls: list[Any] = []
    update = client.update_collection_aliases

    def updating(operations: Any) -> Any:
        calls.append(operations)
        return update(operations)

    monkeypatch.setattr(client, "update_collection_aliases", updating)
    assert not run(source, place).swapped and not calls  # not told
    report = run(source, place, replace(SMALL, alias="live"))
    assert report.swapped and [len(each) for each in calls] == [2]
    assert aliases(client) == {"live": name}
    assert client.collection_exists(source.name)
    source.change([3], vectors_of(1, seed=8))  # nobody looks at the old one any more
    client.delete(name, models.PointIdsList(points=[4]))
    before = contents(place)
    again = run(source, place, replace(SMALL, alias="live"))
    assert again.swapped and again.mended == 0 and contents(place) == before
    with pytest.raises(ConfigError, match="in use as 'live'"):
        run(source, place, replace(SMALL, alias="other"))
    delete = models.DeleteAlias(alias_name="live")
    update([models.DeleteAliasOperation(delete_alias=delete)])
    with pytest.raises(CsrError, match="was in use"):
        run(source, place)
    assert contents(place) == before


def aliases(client: QdrantClient) -> dict[str, str]:
    return {each.alias_name: each.collection_name for each in client.get_aliases().aliases}


def test_an_incomplete_copy_gets_no_alias(world: Callable[[str], World]) -> None:
    here = world("memory")
    source, place = here.source(), here.place()

    def write(name: str, count: int) -> None:
        if name == "size":  # after all passes
            source.upsert([5000 + count], vectors_of(1))

    with points_of(source) as opened, pytest.raises(CsrError, match="was not moved"):
        migrate(Meddled(opened, write), place, ENCODER, replace(SMALL, alias="live"))
    assert aliases(here.client) == {}
    assert run(source, place, replace(SMALL, alias="live")).swapped


def test_a_run_killed_right_after_the_swap_knows_that_the_copy_was_in_use(
    world: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world("memory")
    source, name = here.source(), here.name()
    place = here.place(name)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ServerPlace, "swap", _swap_and_stop)
        run(source, place, replace(SMALL, alias="live"))
    assert phase(place) == "done" and aliases(here.client) == {"live": name}
    assert run(source, place, replace(SMALL, alias="live")).swapped
    assert phase(place) == "swapped"


_swap = ServerPlace.swap


def _swap_and_stop(place: ServerPlace, name: str) -> None:
    _swap(place, name)
    raise KeyboardInterrupt


def phase(place: NewPlace) -> str:
    return str(place.open().metadata()[KEY]["phase"])


def test_aliases_that_cannot_be_listed_end_a_run_before_it_writes(
    world: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world("memory")
    source, place = here.source(), here.place()
    run(source, place)
    with place.open() as copy:  # as an application does that uses the copy
        copy.delete([3])
    before = contents(place)

    def forbidden() -> Any:
        raise busy(403)

    monkeypatch.setattr(here.client, "get_aliases", forbidden)
    refused(source, place, "refused the API key")
    assert contents(place) == before


def test_a_server_that_still_indexes_gets_no_alias(
    world: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world("memory")
    source, place = here.source(), here.place()
    get = here.client.get_collection

    def yellow(name: str) -> Any:
        info = get(name)
        info.status = models.CollectionStatus.YELLOW
        return info

    monkeypatch.setattr(here.client, "get_collection", yellow)
    with pytest.raises(CsrError, match="still building"):
        run(source, place, replace(SMALL, alias="live", wait=0))
    assert aliases(here.client) == {}


# --- what is refused before any write ------------------------------------------------------------


def refused(
    source: Any, place: Any, match: str, config: MigrateConfig = SMALL, encoder: Any = ENCODER
) -> None:
    there = place.location
    with pytest.raises(CsrError, match=match):
        run(source, place, config, encoder)
    assert place.location == there


@pytest.mark.parametrize("to", ["edge", "memory"])
def test_refusals(to: str, world: Callable[[str], World]) -> None:
    source, there = world("memory").source(), world(to)
    place = there.place()
    refused(source, place, "no vector 'absent'", replace(SMALL, vector="absent"))
    refused(source, place, "several dense vectors", replace(SMALL, vector=None))
    refused(source, place, "3 dimensions", replace(SMALL, vector="image"))
    refused(source, place, "other vectors under the name 'image'", replace(SMALL, name="image"))
    refused(source, place, "need a vector name", replace(SMALL, name=""))
    refused(source, place, "an encoder is needed", encoder=None)
    assert not place.exists()
    with pytest.raises(ConfigError, match="drop-dense and rescore"):
        MigrateConfig(drop_dense=True, rescore=True)
    run(source, place)
    before = contents(place)
    refused(source, place, "with k = 4, got 2", replace(SMALL, k=2))
    refused(source, place, "fingerprint", encoder=encoder_of(8))
    refused(
        source,
        place,
        "neither rescore nor drop-dense, got drop-dense",
        replace(SMALL, drop_dense=True),
    )
    other = world("edge").source()
    refused(other, place, "is a copy with source")
    with place.open() as copy:
        with pytest.raises(ConfigError, match="into itself"):
            migrate(copy, place, ENCODER, SMALL)
        with pytest.raises(CsrError, match=r"has codes of encoder .*ask for new codes"):
            plan_migrate(copy, there.place(), encoder_of(8), replace(SMALL, vector=None))
    assert contents(place) == before


def test_targets_of_others_are_refused(world: Callable[[str], World]) -> None:
    here, edge = world("memory"), world("edge")
    source, taken = here.source(), here.source()
    before = taken.contents()
    refused(source, here.place(taken.name), "exists and is no copy")
    assert taken.contents() == before
    (edge.folder / "there").mkdir()
    refused(source, edge.place("there"), "exists and is not a collection")
    assert list((edge.folder / "there").iterdir()) == []


def test_aliases_of_others_are_refused(world: Callable[[str], World]) -> None:
    here = world("memory")
    source, other = here.source(), here.source()
    create = models.CreateAlias(collection_name=other.name, alias_name="theirs")
    here.client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])
    place = here.place()
    refused(source, place, "stands for collection", replace(SMALL, alias="theirs"))
    refused(source, place, "is the name of a collection", replace(SMALL, alias=other.name))
    refused(source, here.place("theirs"), "is an alias")
    refused(source, world("edge").place(), "has no aliases", replace(SMALL, alias="live"))
    assert not place.exists() and aliases(here.client) == {"theirs": other.name}


def test_shards_by_keys_are_refused(
    world: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world("memory")
    source, place = here.source(), here.place()
    get = here.client.get_collection

    def custom(name: str) -> Any:
        info = get(name)
        info.config.params.sharding_method = models.ShardingMethod.CUSTOM
        return info

    monkeypatch.setattr(here.client, "get_collection", custom)
    refused(source, place, "shards by keys of its own")
    assert not place.exists()


def test_a_plan_says_what_it_costs_and_writes_nothing(world: Callable[[str], World]) -> None:
    source, edge = world("memory").source(), world("edge")
    place = edge.place()
    with points_of(source) as opened:
        plan = plan_migrate(opened, place, ENCODER, replace(SMALL, drop_dense=True)).to_json()
    assert plan["points"] == N and plan["dense_bytes"] == N * 3 * 4
    assert plan["stored_bytes"] == N * 4 * 8 and plan["index_bytes"] > 0
    assert plan["dense"] == ("image",) and plan["sparse"] == ("csr",)
    assert "wal" in plan["left_out"] and plan["phase"] is None
    assert not set(plan["left_out"]) & set(plan["configured"])
    assert not place.exists()


# --- a server's faults ---------------------------------------------------------------------------


def busy(status: int) -> Exception:
    from httpx import Headers
    from qdrant_client.http.exceptions import UnexpectedResponse

    return UnexpectedResponse(status, "busy", b"{}", Headers())


def lost() -> Exception:
    import httpx
    from qdrant_client.http.exceptions import ResponseHandlingException

    return ResponseHandlingException(httpx.ReadError("connection reset"))


METHODS = [
    "create_collection",
    "upsert",
    "scroll",
    "retrieve",
    "count",
    "update_collection",
    "update_collection_aliases",
    "delete",
]


def test_a_busy_server_that_drops_answers_is_asked_again(
    world: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world("memory")
    source, place = here.source(), here.place()
    counts: dict[str, int] = {}

    def flaky(name: str) -> Any:
        real = getattr(here.client, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            counts[name] = counts.get(name, 0) + 1
            fault = counts[name] % 4
            if fault == 1:
                raise busy(429) if counts[name] % 8 == 1 else busy(503)
            result = real(*arguments, **keywords)
            if fault == 2:  # done, but the answer is lost
                raise lost()
            return result

        return call

    for method in METHODS:
        monkeypatch.setattr(here.client, method, flaky(method))
    report = run(source, place, replace(SMALL, alias="live"))
    assert report.complete and report.swapped
    check_codes(contents(place), ENCODER)
    assert counts["upsert"] > N // 32 and counts["create_collection"] > 1


def test_points_that_a_server_refuses_are_named(
    world: Callable[[str], World], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = world("memory")
    source, place, upsert = here.source(), here.place(), here.client.upsert

    def picky(name: str, points: list[Any], **keywords: Any) -> Any:
        if any(point.id in (77, 78) for point in points):
            raise busy(422)
        if len(points) > 20:
            raise busy(413)
        return upsert(name, points, **keywords)

    bad = tmp_path / "bad.jsonl"
    monkeypatch.setattr(here.client, "upsert", picky)
    report = run(source, place, replace(SMALL, bad_rows=bad))
    assert report.refused == report.bad == 2 and not report.complete
    named = [json.loads(line)["id"] for line in bad.read_text("utf-8").splitlines()]
    assert report.target_points == N - 2 and named == [77, 78]
    with pytest.raises(CsrError, match="was not moved"):
        run(source, place, replace(SMALL, alias="live"))


def test_a_server_that_refuses_everything_is_at_fault_itself(
    world: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world("memory")
    source, place = here.source(), here.place()

    def refusing(name: str, points: list[Any], **keywords: Any) -> Any:
        raise busy(422)

    monkeypatch.setattr(here.client, "upsert", refusing)
    with pytest.raises(CsrError, match="refused all of 32 points, and has no other"):
        run(source, place)


def test_an_old_server_gets_this_path_and_a_too_old_one_a_sentence(
    world: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world("memory")
    source, place = here.source(), here.place()
    info = here.client.info

    def of(version: str) -> Any:
        return lambda: info().model_copy(update={"version": version})

    monkeypatch.setattr(here.client, "info", of("1.15.3"))
    with pytest.raises(CsrError, match=r"1\.15\.3.*at least 1\.16"):
        run(source, place)
    monkeypatch.setattr(here.client, "info", of("1.16.0"))
    assert run(source, place).complete
