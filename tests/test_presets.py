"""Presets: what they set, what wins over them, and that each trains."""

from typing import Any

import numpy as np
import pytest

from csr_qdrant.errors import ConfigError
from csr_qdrant.trainer import Pairs, TrainConfig, fit
from csr_qdrant.trainer.presets import PRESETS


def test_the_default_is_retrieval() -> None:
    assert TrainConfig.from_settings() == TrainConfig() == TrainConfig.from_settings("retrieval")


def test_what_is_given_wins_over_the_preset() -> None:
    config = TrainConfig.from_settings("paper-text", lr=1e-3, k=(8,))
    assert (config.preset, config.lr, config.k) == ("paper-text", 1e-3, (8,))
    assert (config.batch_size, config.k_aux, config.schedule) == (128, 1024, "constant")


def test_a_length_that_is_given_replaces_the_presets_of_another_kind() -> None:
    assert TrainConfig.from_settings("csrv2").epochs == 10
    for given in ({"steps": 7}, {"minutes": 1.0}):
        assert TrainConfig.from_settings("csrv2", **given).epochs is None
    with pytest.raises(ConfigError, match="minutes or epochs"):
        TrainConfig(minutes=1, epochs=1)


@pytest.mark.parametrize(
    ("d", "n", "h"),
    [
        (256, 31_095, 8192),
        (256, 20_000, 4096),  # three rows a latent
        (256, 100, 1024),
        (16, 10**6, 512),  # 32 d
        (768, 10**6, 4096),  # a W of four million entries
        (4096, 10**9, 16_384),
        (3, 1, 12),
    ],
)
def test_latents_by_dimensions_and_rows(d: int, n: int, h: int) -> None:
    assert TrainConfig(k=(8,)).hidden_size(d, n) == h


@pytest.mark.parametrize(
    ("d", "classes", "h"),
    [(1280, 10, 1024), (2048, 1000, 8192), (2048, 10**5, 8192), (16, 10, 512), (256, 300, 4096)],
)
def test_latents_by_classes(d: int, classes: int, h: int) -> None:
    assert TrainConfig(k=(8,)).hidden_size(d, 10**6, classes) == h


def test_a_large_k_is_kept_beside_labels() -> None:
    assert TrainConfig(k=(1500,)).hidden_size(1280, 10**6, 10) == 2048


@pytest.mark.parametrize("preset", sorted(PRESETS.keys() - {"retrieval"}))
def test_the_papers_take_four_latents_a_dimension(preset: str) -> None:
    config = TrainConfig.from_settings(preset)
    assert config.hidden_size(256, 10**6) == config.hidden_size(256, 10**6, 10) == 1024
    assert TrainConfig.from_settings(preset, h=99).hidden_size(256, 10**6) == 99


def test_an_unknown_preset_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"must be one of retrieval, .*, got 'fast'"):
        TrainConfig.from_settings("fast")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_trains_by_epochs_or_steps(preset: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 16)).astype(np.float32)
    config = TrainConfig.from_settings(preset, batch_size=50, epochs=2, held_out=0, h=256)
    pairs = None
    if preset == "paper-multimodal":
        pairs = Pairs.of(x + 0.1, np.arange(300), np.arange(300))
    encoder = fit(x, config, pairs=pairs, device="cpu")
    rows = 600 if pairs else 300  # with pairs half of each batch is rows and queries
    assert encoder.info["steps"] == 2 * rows // (25 if pairs else 50)
    assert encoder.info["training"]["preset"] == preset
    assert encoder.encode(x).lengths.min() > 0


@pytest.mark.parametrize("preset", PRESETS)
def test_no_preset_leaves_latents_dead(preset: str) -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((50, 32))
    # Far from the origin: a latent that starts at random sees the mean, and half of them stay dead.
    x = (2 + centres[rng.integers(50, size=3000)] + rng.standard_normal((3000, 32))).astype("f4")
    given = {"batch_size": 128, "epochs": 12, "held_out": 200, "h": 256, "dead_after": 10}
    settings: dict[str, Any] = {**given, "k": (16,), "k_anneal": None}
    config = TrainConfig.from_settings(preset, **settings)
    pairs = None
    if preset == "paper-multimodal":
        pairs = Pairs.of(x + 0.1, np.arange(3000), np.arange(3000))
    found = fit(x, config, pairs=pairs, device="cpu").info["validations"][-1]
    assert found["dead"] < 0.01


def test_a_constant_schedule_stays_at_its_rate() -> None:
    from csr_qdrant.trainer.loop import learning_rate

    config = TrainConfig.from_settings("paper-vision")
    assert [learning_rate(config, 4e-5, progress) for progress in (0, 0.5, 0.99)] == [4e-5] * 3
    falling = [learning_rate(TrainConfig(), 1.0, progress) for progress in (0.05, 0.5, 1.0)]
    assert falling[0] == 1.0 and 0.5 < falling[1] < 0.6 and falling[2] == pytest.approx(0)
