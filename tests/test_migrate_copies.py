"""Copies of collections that have codes, between engines."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from csr_qdrant.collection import Collection
from csr_qdrant.deployment import migrate_passes
from csr_qdrant.deployment.detach import detach
from csr_qdrant.deployment.migrate import migrate
from csr_qdrant.deployment.migrate_checks import plan_migrate
from csr_qdrant.deployment.migrate_config import MigrateConfig
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.stores.whole_points_server import ServerPlace, ServerPoints

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import ClientTarget, EdgeTarget, check_codes, encoder_of, vectors_of
from attach_targets import without_codes as without

ENCODER, N = encoder_of(), 150
CONFIG = MigrateConfig(vector="text", batch=32)


def source() -> ClientTarget:
    made = ClientTarget(QdrantClient(":memory:"), "docs")
    made.upsert(range(N), vectors_of(N))
    return made


def contents(client: QdrantClient, name: str) -> dict[Any, Any]:
    other = ClientTarget.__new__(ClientTarget)
    other.client, other.name = client, name
    return other.contents()


def check_same(found: dict[Any, Any], expected: dict[Any, Any]) -> None:
    """Raise unless payloads and vectors agree; by cosine, vectors are brought to norm 1 again."""
    assert found.keys() == expected.keys()
    for point, (payload, vectors) in expected.items():
        assert found[point][0] == payload and found[point][1].keys() == vectors.keys()
        for name, values in vectors.items():
            np.testing.assert_allclose(found[point][1][name], values, rtol=1e-5, atol=1e-6)


def test_a_copy_on_the_server_has_codes_and_takes_the_alias() -> None:
    made = source()
    client, before = made.client, made.contents()
    migrate((client, "docs"), (client, "new"), ENCODER, MigrateConfig(vector="text", alias="live"))
    after = contents(client, "new")
    check_codes(after, ENCODER)
    assert made.contents() == before
    check_same(without(after), before)
    assert client.count("live").count == N
    with Collection.open_on(client, "new", ENCODER) as docs:
        assert len(docs.search(vectors_of(1)[0], limit=3, rescore=20)) == 3


def test_from_the_server_to_a_folder_and_back(tmp_path: Path) -> None:
    made = source()
    migrate((made.client, "docs"), tmp_path / "docs", ENCODER, CONFIG)
    migrate(tmp_path / "docs", (made.client, "back"), None, CONFIG)
    after = contents(made.client, "back")
    check_codes(after, ENCODER)
    check_same(without(after), made.contents())


def test_a_second_run_brings_the_copy_up_to_date(tmp_path: Path) -> None:
    old = EdgeTarget(tmp_path / "old")
    old.upsert(range(N), vectors_of(N))
    migrate(tmp_path / "old", tmp_path / "new", ENCODER, CONFIG)
    old.change([3], np.ones((1, 8), np.float32))
    old.upsert([N], vectors_of(1, seed=9))
    old.delete([5])
    migrate(tmp_path / "old", tmp_path / "new", ENCODER, CONFIG)
    copy = EdgeTarget.__new__(EdgeTarget)
    copy.folder = tmp_path / "new" / "shard"
    after = copy.contents()
    check_codes(after, ENCODER)
    check_same(without(after), old.contents())


def test_a_source_that_got_other_vectors_needs_another_copy(tmp_path: Path) -> None:
    old = EdgeTarget(tmp_path / "old")
    old.upsert(range(N), vectors_of(N))
    migrate(tmp_path / "old", tmp_path / "new", ENCODER, CONFIG)
    with old.writer() as writer:
        writer.add_name("words", "f32")
    with pytest.raises(ConfigError, match=r"different vectors by now \(words\)"):
        migrate(tmp_path / "old", tmp_path / "new", ENCODER, CONFIG)
    assert migrate(tmp_path / "old", tmp_path / "newer", ENCODER, CONFIG).complete


def test_a_plan_refuses_what_a_run_would() -> None:
    client, other = source().client, MigrateConfig(vector="text", alias="other")
    alias = MigrateConfig(vector="text", alias="live")
    place = ServerPlace(client, "new")
    migrate((client, "docs"), (client, "new"), ENCODER, alias)
    with ServerPoints.open(client, "docs") as opened:
        assert plan_migrate(opened, place, ENCODER, alias).phase == "swapped"
        with pytest.raises(ConfigError, match=r"is in use as 'live'.* move 'other' yourself"):
            plan_migrate(opened, place, ENCODER, other)
        delete = models.DeleteAlias(alias_name="live")
        client.update_collection_aliases([models.DeleteAliasOperation(delete_alias=delete)])
        with pytest.raises(CsrError, match="was in use under an alias"):
            plan_migrate(opened, place, ENCODER, alias)


def test_a_copy_that_comes_into_use_meanwhile_keeps_what_others_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = source()
    client, scroll = made.client, made.client.scroll
    migrate((client, "docs"), (client, "new"), ENCODER, CONFIG)
    create = models.CreateAlias(collection_name="new", alias_name="live")
    theirs = models.PointStruct(id=N, vector={"image": [1.0, 0.0, 0.0]}, payload={"by": "others"})

    def meanwhile(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "new" and not client.get_aliases().aliases:
            client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])
            client.upsert("live", [theirs])
        return scroll(name, *arguments, **keywords)

    monkeypatch.setattr(client, "scroll", meanwhile)
    with pytest.raises(CsrError, match="came into use as 'live' while it was written"):
        migrate((client, "docs"), (client, "new"), ENCODER, CONFIG)
    assert contents(client, "new")[N][0] == {"by": "others"}
    report = migrate((client, "docs"), (client, "new"), ENCODER, CONFIG)  # only looks at it
    assert report.removed == 0 and report.plan.phase == "swapped"


def test_a_second_run_that_moves_the_alias_ends_a_first_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = source()
    client, upsert = made.client, made.client.upsert
    alias = MigrateConfig(vector="text", batch=32, alias="live")
    monkeypatch.setattr(migrate_passes, "LOOK_SECONDS", 0.0)

    def meanwhile(*arguments: Any, **keywords: Any) -> Any:
        monkeypatch.setattr(client, "upsert", upsert)
        migrate((client, "docs"), (client, "new"), ENCODER, alias)
        return upsert(*arguments, **keywords)

    monkeypatch.setattr(client, "upsert", meanwhile)
    with pytest.raises(CsrError, match="came into use as 'live'"):
        migrate((client, "docs"), (client, "new"), ENCODER, alias)
    assert migrate((client, "docs"), (client, "new"), ENCODER, CONFIG).plan.phase == "swapped"
    check_same(without(contents(client, "new")), made.contents())


def test_metadata_of_others_are_those_of_now_after_a_way_there_and_back(tmp_path: Path) -> None:
    client = source().client
    migrate((client, "docs"), tmp_path / "docs", ENCODER, CONFIG)
    migrate(tmp_path / "docs", (client, "back"), None, CONFIG)
    client.update_collection("back", metadata={"owner": "another one"})
    migrate((client, "back"), tmp_path / "again", ENCODER, CONFIG)
    migrate(tmp_path / "again", (client, "last"), None, CONFIG)
    metadata = client.get_collection("last").config.metadata
    assert metadata is not None and metadata["owner"] == "another one"


def test_metadata_of_others_outlive_detaching_the_copy(tmp_path: Path) -> None:
    client = source().client
    migrate((client, "docs"), tmp_path / "docs", ENCODER, CONFIG)
    detach(tmp_path / "docs")
    migrate(tmp_path / "docs", (client, "back"), ENCODER, CONFIG)
    metadata = client.get_collection("back").config.metadata
    assert metadata is not None and metadata["owner"] == "somebody else"


def test_damaged_metadata_of_others_are_told(tmp_path: Path) -> None:
    client = source().client
    migrate((client, "docs"), tmp_path / "docs", ENCODER, CONFIG)
    for content in ("[1]", "{", "\xff"):
        (tmp_path / "docs" / "user_metadata.json").write_text(content, "latin-1")
        with pytest.raises(CsrError, match=r"user_metadata.json is damaged .*restore it"):
            migrate(tmp_path / "docs", (client, "back"), None, CONFIG)
    assert not client.collection_exists("back")


def test_a_target_in_the_sources_folder_is_refused(tmp_path: Path) -> None:
    old = EdgeTarget(tmp_path / "old")
    old.upsert(range(N), vectors_of(N))
    with pytest.raises(ConfigError, match="lies in the folder of the source"):
        migrate(tmp_path / "old", tmp_path / "old" / "new", ENCODER, CONFIG)
    assert not (tmp_path / "old" / "new").exists()


def test_a_source_named_by_an_alias_that_has_moved_is_told(tmp_path: Path) -> None:
    client = source().client
    alias = MigrateConfig(vector="text", alias="live")
    migrate((client, "docs"), (client, "new"), ENCODER, alias)
    with pytest.raises(ConfigError, match=r"which 'live' stands for.*by its own name"):
        migrate((client, "live"), (client, "new"), ENCODER, alias)


def test_points_written_while_a_server_indexes_keep_the_alias_where_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = source()
    place = ServerPlace(made.client, "new")

    def wait(_: float) -> bool:
        made.upsert([N], vectors_of(1))
        return True

    monkeypatch.setattr(place, "wait_ready", wait)
    alias = MigrateConfig(vector="text", alias="live")
    with pytest.raises(CsrError, match="was not moved: points were written"):
        migrate((made.client, "docs"), place, ENCODER, alias)
    assert made.client.get_aliases().aliases == []
    monkeypatch.undo()
    assert migrate((made.client, "docs"), place, ENCODER, alias).swapped


def codes_of(folder: Path) -> dict[Any, Any]:
    with Collection.open(folder) as opened:
        return {each.id: each.code for each in opened.store.retrieve(range(N))}


def test_codes_of_another_encoder_take_the_place_of_the_old_ones(tmp_path: Path) -> None:
    EdgeTarget(tmp_path / "old").upsert(range(N), vectors_of(N))
    migrate(tmp_path / "old", tmp_path / "first", ENCODER, CONFIG)
    other = encoder_of(8)
    again = MigrateConfig(reencode=True, k=3, device="numpy")
    with pytest.raises(CsrError, match="ask for new codes in their place with reencode"):
        migrate(tmp_path / "first", tmp_path / "second", other)
    report = migrate(tmp_path / "first", tmp_path / "second", other, again)
    assert report.complete and report.coded == N and report.plan.fingerprint == other.fingerprint
    with Collection.open(tmp_path / "second") as copy:
        assert copy.encoder.fingerprint == other.fingerprint and copy.keeps_dense
    codes = codes_of(tmp_path / "second")
    expected = other.encode(vectors_of(N), 3).normalised().to_lists()
    for point, (indices, values) in enumerate(expected):
        assert codes[point][0] == indices
        np.testing.assert_allclose(codes[point][1], values, atol=1e-5)
    migrate(tmp_path / "second", tmp_path / "bare", None, MigrateConfig(drop_dense=True))
    with pytest.raises(CsrError, match="no dense vectors to make new codes of"):
        migrate(tmp_path / "bare", tmp_path / "third", ENCODER, again)


@pytest.mark.parametrize("keep", ["all", "rescore", "none"])
def test_codes_of_vectors_whose_norm_the_engine_does_not_keep_stay_as_they_are(
    keep: str, tmp_path: Path
) -> None:
    pre_bias = vectors_of(1, seed=5)[0]
    sensitive = Encoder(
        weight=ENCODER.weight, latent_bias=ENCODER.latent_bias, pre_bias=pre_bias, k=4
    )
    with Collection.create(tmp_path / "own", sensitive, keep_dense=True) as own:
        own.add(range(N), vectors=9 * vectors_of(N))
    config = MigrateConfig(rescore=keep == "rescore", drop_dense=keep == "none")
    report = migrate(tmp_path / "own", tmp_path / "copy", None, config)
    assert report.complete and not report.plan.encoded
    assert codes_of(tmp_path / "copy") == codes_of(tmp_path / "own")
    with Collection.open(tmp_path / "copy") as copy:
        assert copy.keeps_dense == (keep != "none")
    with pytest.raises(CsrError, match="index its vectors again for other codes"):
        migrate(tmp_path / "own", tmp_path / "other", ENCODER, MigrateConfig(reencode=True))
