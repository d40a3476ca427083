"""Detaching takes away what attaching added, and nothing else, over every engine."""

import sys
from pathlib import Path
from typing import Any

import pytest

from csr_qdrant.deployment.attach import AttachConfig, attach
from csr_qdrant.deployment.detach import detach, plan_detach
from csr_qdrant.errors import ConfigError

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import (
    EdgeTarget,
    Meddled,
    Stop,
    Target,
    encoder_of,
    target_fixture,
    vectors_of,
    without_codes,
)

SMALL = AttachConfig(batch=32, vector="text")
ENCODER = encoder_of()
target = target_fixture(200)


def run(target: Target, encoder: Any = ENCODER) -> Any:
    with target.writer() as writer:
        return attach(writer, encoder, SMALL)


def test_detach_leaves_what_was_there(target: Any) -> None:
    before = target.contents()
    files = sorted(p.name for p in target.folder.iterdir()) if hasattr(target, "folder") else []
    run(target)
    with target.writer() as writer:
        assert plan_detach(writer).codes == 200
        done = detach(writer)
        assert (done.name, done.vector, done.codes) == ("csr", "text", 200)
        assert "csr" not in writer.layout().sparse
        assert writer.schema() is None and not writer.metadata()
        with pytest.raises(ConfigError, match="nothing to do"):
            detach(writer)
    assert target.contents() == before
    if files:
        assert sorted(p.name for p in target.folder.iterdir()) == files
    assert run(target, encoder_of(8)).complete


def test_a_stopped_detach_is_completed(target: Target) -> None:
    run(target)
    before = target.contents()

    def meddle(method: str, count: int) -> None:
        if method == "forget":
            raise Stop

    with target.writer() as writer:
        meddled: Any = Meddled(writer, meddle)
        with pytest.raises(Stop):
            detach(meddled)
    with target.writer() as writer:
        assert detach(writer).codes == 0
    assert target.contents() == without_codes(before)


def test_an_encoder_that_was_half_removed_is_not_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = EdgeTarget(tmp_path / "shard")
    target.upsert(range(20), vectors_of(20))
    before, files = target.contents(), sorted(target.folder.iterdir())
    run(target)

    def stopped(path: Path) -> None:
        next(path.glob("*.safetensors")).unlink()
        raise Stop

    with target.writer() as writer, monkeypatch.context() as patched, pytest.raises(Stop):
        patched.setattr("csr_qdrant.atomic.shutil.rmtree", stopped)
        detach(writer)
    with target.writer() as writer:
        detach(writer)
    assert target.contents() == before
    assert {path.name for path in target.folder.iterdir()} >= {path.name for path in files}
    assert run(target).complete
