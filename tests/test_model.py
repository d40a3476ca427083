"""The model's parameters as they start, and as an encoder of unscaled vectors."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csr_qdrant.trainer.model import Autoencoder


def test_an_untrained_model_starts_as_the_papers_do() -> None:
    model = Autoencoder(100, 400, torch.Generator().manual_seed(0))
    assert not model.latent_bias.any() and not model.pre_bias.any()
    # nn.Linear's default: uniform in ±1/√d.
    assert model.weight.abs().max().item() == pytest.approx(0.1, rel=1e-3)
    assert model.weight.std().item() == pytest.approx(0.1 / math.sqrt(3), rel=0.02)
    again = Autoencoder(100, 400, torch.Generator().manual_seed(0))
    assert torch.equal(model.weight, again.weight)


def test_one_matrix_encodes_and_decodes() -> None:
    names = [name for name, _ in Autoencoder(6, 12).named_parameters()]
    assert names == ["weight", "latent_bias", "pre_bias"]


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 8), st.integers(4, 24), st.integers(1, 4), st.floats(0.01, 100))
def test_an_encoder_of_unscaled_vectors_gives_the_models_codes_times_the_scale(
    d: int, h: int, k: int, scale: float
) -> None:
    random = torch.Generator().manual_seed(d * h)
    model, x = Autoencoder(d, h, random), torch.randn(7, d, generator=random)
    with torch.no_grad():
        for bias in (model.latent_bias, model.pre_bias):
            bias.copy_(0.3 * torch.randn(len(bias), generator=random))
        a = (x - model.pre_bias) @ model.weight.T + model.latent_bias
        torch.testing.assert_close(x @ model.weight.T + model.offset, a, rtol=1e-4, atol=1e-5)
        strongest = a.topk(k, dim=1)
        z = torch.zeros_like(a).scatter(1, strongest.indices, strongest.values.relu()) * scale
        made = z @ model.weight + model.pre_bias * scale
    encoder = model.to_encoder(scale, k=k)
    codes = encoder.encode((x * scale).numpy(), device="cpu")
    np.testing.assert_allclose(codes.to_dense(), z, rtol=1e-3, atol=2e-5 * scale)
    np.testing.assert_allclose(encoder.decode(codes), made, rtol=1e-3, atol=1e-4 * scale)
