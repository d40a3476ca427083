"""What attaching refuses, before anything is written."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from csr_qdrant.collection import Collection
from csr_qdrant.deployment.attach import AttachConfig, attach, attach_as_planned, plan_attach
from csr_qdrant.deployment.detach import detach
from csr_qdrant.errors import ConfigError, CsrError

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import EdgeTarget, Target, encoder_of, target_fixture, vectors_of, without_codes

SMALL = AttachConfig(batch=32, vector="text")
ENCODER = encoder_of()
target = target_fixture(200)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"vector": "nope"}, r"has no vector 'nope': choose one of its dense vectors"),
        ({"vector": "image"}, r"have 3 dimensions, but the encoder takes 8"),
        ({"name": "image"}, r"has other vectors under the name 'image'"),
        ({"name": "text"}, r"has other vectors under the name 'text'"),
        ({"name": ""}, "codes need a vector name"),
        ({"k": 33}, "k must be in 1..32"),
        ({"vector": None}, r"has several dense vectors \(image, text\): name one"),
    ],
)
def test_refused_before_anything_is_written(
    target: Target, config: dict[str, Any], message: str
) -> None:
    before = target.contents()
    with target.writer() as writer:
        layout = writer.layout()
        with pytest.raises(ConfigError, match=message):
            attach(writer, ENCODER, replace(SMALL, **config))
        assert writer.layout() == layout and writer.schema() is None and not writer.metadata()
    assert target.contents() == before


def test_a_sparse_vector_of_others_is_left_alone(target: Target) -> None:
    with target.writer() as writer:
        writer.add_name("csr", "f32")
        with pytest.raises(ConfigError, match="sparse vectors of another origin"):
            attach(writer, ENCODER, SMALL)
        with pytest.raises(ConfigError, match="has no codes that `csr attach` added"):
            detach(writer)
        assert "csr" in writer.layout().sparse


@pytest.mark.parametrize(
    ("encoder", "config", "message"),
    [
        (encoder_of(8), {}, r"codes of encoder \w+ attached, got \w+: .*csr detach"),
        (ENCODER, {"k": 2}, r"with k = 4, got 2"),
        (ENCODER, {"datatype": "u8"}, r"datatype 'f32', got 'u8'"),
        (ENCODER, {"name": "other"}, r"the name 'csr', got 'other'"),
        (ENCODER, {"vector": "image"}, r"the dense vector 'text', got 'image'"),
    ],
)
def test_other_settings_than_recorded_are_refused(
    target: Target, encoder: Any, config: dict[str, Any], message: str
) -> None:
    with target.writer() as writer:
        attach(writer, ENCODER, SMALL)
    before = target.contents()
    with target.writer() as writer, pytest.raises(CsrError, match=message):
        attach(writer, encoder, AttachConfig(**config))
    assert target.contents() == before


def test_a_plan_for_another_encoder_is_refused(target: Target) -> None:
    before = target.contents()
    with target.writer() as writer:
        plan = plan_attach(writer, encoder_of(8), SMALL)
        with pytest.raises(ConfigError, match="plan again"):
            attach_as_planned(writer, ENCODER, SMALL, plan)
        with pytest.raises(ConfigError, match="plan again"):
            attach_as_planned(writer, encoder_of(8), replace(SMALL, k=2), plan)
        assert writer.schema() is None
        assert attach_as_planned(writer, encoder_of(8), SMALL, plan).complete
    assert without_codes(target.contents()) == before


def test_a_collection_of_our_own_is_refused(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "c", ENCODER, keep_dense=True) as made:
        made.add(range(3), vectors=vectors_of(3))
    for call in (lambda: attach(tmp_path / "c", ENCODER), lambda: detach(tmp_path / "c")):
        with pytest.raises(ConfigError, match="made by csr-qdrant"):
            call()
    with Collection.open(tmp_path / "c") as collection:
        assert len(collection) == 3


def test_a_folder_in_the_encoders_place_is_left_alone(tmp_path: Path) -> None:
    target = EdgeTarget(tmp_path / "shard")
    target.upsert(range(3), vectors_of(3))
    (target.folder / "encoder").mkdir()
    with pytest.raises(ConfigError, match="move away what is there"):
        attach(target.folder, ENCODER, SMALL)


@pytest.mark.parametrize("settings", [{"batch": 0}, {"threads": 0}, {"rate": 0.0}])
def test_settings_that_cannot_work(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(settings))} must be"):
        AttachConfig(**settings)
