"""When an alias moves to a copy, and when not."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import models

from csr_qdrant.deployment.migrate import migrate
from csr_qdrant.deployment.migrate_journal import KEY
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.stores.whole_points import NewPlace
from csr_qdrant.stores.whole_points_server import ServerPlace

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import Meddled, vectors_of
from migrate_world import (
    ENCODER,
    SMALL,
    World,
    aliases,
    busy,
    contents,
    points_of,
    refused,
    run,
    world_fixture,
)

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
world = world_fixture()


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
