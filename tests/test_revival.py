"""Latents that start, or start anew, at rows of the data."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from csr_qdrant.trainer import Listeners, TrainConfig, fit
from csr_qdrant.trainer import revival as revival_module
from csr_qdrant.trainer.model import Autoencoder
from csr_qdrant.trainer.revival import idle_steps, start_anew, start_at_rows


def rows_of(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def clustered(n: int = 2000, d: int = 64) -> npt.NDArray[np.float32]:
    """Return rows in forty clusters."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, d))[rng.integers(40, size=n)] + 0.7 * rng.standard_normal((n, d))
    return x.astype(np.float32)


def let_half_start_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Autoencoder.__init__

    def init(self: Autoencoder, d: int, h: int, generator: Any = None) -> None:
        original(self, d, h, generator)
        with torch.no_grad():
            self.latent_bias[::2] = -100.0

    monkeypatch.setattr(Autoencoder, "__init__", init)


def model_of(d: int, h: int) -> Autoencoder:
    """Return a model with biases."""
    model = Autoencoder(d, h, torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.pre_bias.copy_(rows_of(1, d, 7)[0])
        model.latent_bias.copy_(rows_of(1, h, 8)[0])
    return model


def error(model: Autoencoder, x: Tensor, k: int, length: float = 1.0) -> float:
    """Squared error of reconstructing, W being `length` times as long."""
    weight = model.weight.detach() * length
    strongest = ((x - model.pre_bias) @ weight.T).topk(k, dim=1)
    z = torch.zeros(len(x), len(weight)).scatter(1, strongest.indices, strongest.values.relu())
    return float((z @ weight + model.pre_bias - x).square().sum())


def test_each_latent_points_at_its_row_and_all_are_of_the_best_length() -> None:
    model, rows = model_of(6, 40), rows_of(40, 6)
    model.latent_bias.data.zero_()
    start_at_rows(model, rows, rows, 4)
    assert torch.allclose(
        F.normalize(model.weight, dim=1), F.normalize(rows - model.pre_bias, dim=1), atol=1e-6
    )
    lengths = model.weight.norm(dim=1)
    assert float(lengths.std()) < 1e-6 * float(lengths.mean())
    best = error(model, rows, 4)
    assert best < error(model, rows, 4, 0.95) and best < error(model, rows, 4, 1.05)
    a = (rows - model.pre_bias) @ model.weight.T
    assert torch.equal(a.argmax(1), torch.arange(40))  # none is dead


def test_few_rows_leave_the_rest_at_random() -> None:
    model, rows = model_of(6, 12), rows_of(5, 6)
    before = F.normalize(model.weight.detach(), dim=1)
    start_at_rows(model, rows, rows, 4)
    unit, lengths = F.normalize(model.weight, dim=1), model.weight.norm(dim=1)
    assert torch.allclose(unit[:5], F.normalize(rows - model.pre_bias, dim=1), atol=1e-6)
    assert torch.allclose(unit[5:], before[5:], atol=1e-6)
    assert float(lengths.std()) < 1e-6 * float(lengths.mean())


def test_rows_that_stand_twice_are_one_latent_each() -> None:
    x = np.repeat(clustered(50, 8), 20, axis=0)
    encoder = fit(x, TrainConfig(k=(4,), h=64, steps=1, lr=1e-9, held_out=0), device="cpu")
    unit = encoder.weight / np.linalg.norm(encoder.weight, axis=1, keepdims=True)
    cosines = unit @ unit.T - np.eye(64)
    assert cosines.max() < 1 - 1e-5


def test_equal_rows_start_finite() -> None:
    model = model_of(6, 12)
    start_at_rows(model, model.pre_bias.expand(12, 6), model.pre_bias.expand(3, 6), 4)
    assert model.weight.isfinite().all()


def test_latents_start_anew_without_a_past() -> None:
    model = model_of(6, 10)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    latents, rows = torch.tensor([7, 2]), rows_of(2, 6, 3)
    start_anew(model, optimiser, latents, rows, rows_of(20, 6, 4), 3)
    others = [at for at in range(10) if at not in (2, 7)]
    assert torch.equal(model.weight[others], before["weight"][others])
    assert torch.equal(model.latent_bias[others], before["latent_bias"][others])
    assert torch.equal(model.pre_bias, before["pre_bias"])
    length = before["weight"].norm(dim=1).mean()
    expected = F.normalize(rows - model.pre_bias, dim=1) * length
    assert torch.allclose(model.weight[latents], expected)
    for parameter in (model.weight, model.latent_bias):
        state = optimiser.state[parameter]
        for name in ("exp_avg", "exp_avg_sq"):
            assert not state[name][latents].any() and state[name][others].all()
        assert float(state["step"]) == 1


@pytest.mark.parametrize(("batch", "h", "share"), [(400, 40, 40), (400, 800, 8), (5, 100, 5)])
def test_each_starts_anew_with_an_even_share_of_the_rows(batch: int, h: int, share: int) -> None:
    model, x, k = model_of(6, h), rows_of(batch, 6, 1), 4
    optimiser = torch.optim.AdamW(model.parameters())
    needed = torch.addmm(model.offset, x, model.weight.T).topk(k, dim=1).values[:, -1]
    start_anew(model, optimiser, torch.tensor([3]), x[:1], x, k)
    reached = (model.offset[3] + x @ model.weight[3]) >= needed.clamp(min=0) - 1e-5
    assert int(reached.sum()) == share


@pytest.mark.parametrize(
    ("k", "batch_size", "dead_after", "expected"),
    [((32,), 512, 4, 16), ((8, 16, 32), 512, 4, 16), ((32,), 500, 32, 32), ((2,), 512, 32, 256)],
)
def test_a_latent_has_time_to_be_active(
    k: tuple[int, ...], batch_size: int, dead_after: int, expected: int
) -> None:
    config = TrainConfig(k=k, batch_size=batch_size, dead_after=dead_after)
    assert idle_steps(config, 4096) == expected


def test_dead_latents_start_anew_at_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    x = clustered()
    let_half_start_dead(monkeypatch)
    settings: dict[str, Any] = {"k": (16,), "h": 256, "steps": 100, "batch_size": 128, "aux": 0.0}
    settings |= {"held_out": 200, "start": "random", "dead_after": 4}
    dead = [
        fit(x, TrainConfig(**settings, revive=revive), device="cpu").info["validations"][-1]
        for revive in (False, True)
    ]
    assert dead[0]["dead"] > 0.45
    assert dead[1]["dead"] < 0.01


def test_none_is_dead_from_the_start() -> None:
    x = clustered()
    x = x + np.float32(3)  # far from the origin, where random latents see but the mean
    settings: dict[str, Any] = {"k": (16,), "h": 256, "steps": 1, "lr": 1e-9, "held_out": 200}
    rows, random = (
        fit(x, TrainConfig(**settings, start=start, centre=start == "rows"), device="cpu")
        for start in ("rows", "random")
    )
    assert rows.info["validations"][-1]["dead"] < 0.01 < random.info["validations"][-1]["dead"]


def test_a_run_that_revives_resumes_exactly(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = clustered(600)
    let_half_start_dead(monkeypatch)
    monkeypatch.setattr(revival_module, "EVEN_SHARE", 1)
    settings: dict[str, Any] = {"k": (4,), "h": 64, "steps": 30, "batch_size": 64, "held_out": 0}
    config = TrainConfig(**settings, start="random", dead_after=3)
    whole = fit(x, config, device="cpu")

    class Crash(Exception):
        pass

    def crash(report: Any) -> None:
        if report.step == 21:
            raise Crash

    path = tmp_path / "run"
    config = TrainConfig(**settings, start="random", dead_after=3, checkpoint_seconds=0)
    with pytest.raises(Crash):
        fit(x, config, device="cpu", checkpoint=path, listeners=Listeners(crash))
    assert fit(x, config, device="cpu", checkpoint=path).fingerprint == whole.fingerprint
