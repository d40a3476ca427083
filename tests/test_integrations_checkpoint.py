"""Checkpoints that are not quite those of the authors' training scripts."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from csr_qdrant.errors import CsrError
from csr_qdrant.integrations.checkpoint import read_checkpoint

D, H = 8, 32


def state() -> dict[str, Any]:
    weight = torch.from_numpy(np.random.default_rng(0).normal(size=(H, D)).astype(np.float32))
    return {
        "encoder.weight": weight,
        "latent_bias": torch.zeros(H),
        "pre_bias": torch.zeros(D),
    }


def test_a_decoder_of_its_own_is_refused_under_its_own_name(tmp_path: Path) -> None:
    own = {**state(), "decoder.weight": torch.ones(D, H)}
    torch.save(
        {"state_dict": {f"module.{name}": each for name, each in own.items()}}, tmp_path / "a"
    )
    with pytest.raises(CsrError, match="has a decoder of its own, codes here have tied weights"):
        read_checkpoint(tmp_path / "a", 4)
    tied = {**state(), "decoder.weight": state()["encoder.weight"].T}
    torch.save({"state_dict": tied}, tmp_path / "b")
    assert np.array_equal(read_checkpoint(tmp_path / "b", 4).weight, state()["encoder.weight"])


def test_what_runs_code_is_refused_without_torchs_advice_to_run_it(tmp_path: Path) -> None:
    content = {"state_dict": state(), "args": argparse.Namespace(lr=1)}
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CsrError, match=r"tensors alone \([^.]*\): save its state_dict") as got:
        read_checkpoint(tmp_path / "a.pth", 4)
    assert str(got.value).isprintable() and "still be loaded" not in str(got.value)
