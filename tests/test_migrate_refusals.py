"""What a migration refuses before it writes anything."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import models

from csr_qdrant.deployment.migrate import MigrateConfig, migrate, plan_migrate
from csr_qdrant.errors import ConfigError, CsrError

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import encoder_of
from migrate_world import (
    ENCODER,
    SMALL,
    N,
    World,
    aliases,
    contents,
    points_of,
    refused,
    run,
    world_fixture,
)

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
world = world_fixture()


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
