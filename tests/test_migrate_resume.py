"""A migration goes on where it stopped, and makes a copy equal to its source again."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from csr_qdrant.deployment.migrate import migrate
from csr_qdrant.deployment.migrate_journal import KEY
from csr_qdrant.errors import CsrError
from csr_qdrant.stores.whole_points import NewPlace

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import Meddled, check_codes, vectors_of
from engines import ENGINES
from migrate_world import ENCODER, SMALL, N, World, contents, points_of, run, world_fixture

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
world = world_fixture()


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
