"""`csr train` under torchrun: two processes make one encoder, as one process does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from csr_qdrant import Encoder
from csr_qdrant.cli.ranks import leads, refuse_several, several
from csr_qdrant.errors import ConfigError

SETTINGS = (
    "--h 64 --k 4,8 --steps 40 --batch-size 33 --held-out 20 --validate-every 20 --device cpu"
)


def _run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def test_two_processes_train_the_encoder_of_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.standard_normal((300, 16)).astype(np.float32))
    csr = str(Path(sys.executable).with_name("csr"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--no-python"]
    torchrun += ["--standalone", "--nproc-per-node", "2"]
    train = f"train x.npy {SETTINGS} --json".split()
    alone = _run(tmp_path, csr, *train, "-o", "alone")
    both = _run(tmp_path, *torchrun, csr, *train, "-o", "both")
    assert (alone.returncode, both.returncode) == (0, 0), alone.stderr + both.stderr
    result = json.loads(both.stdout)  # one process reports
    assert result["steps"] == 40 and len(result["validations"]) == 2
    one, two = Encoder.load(tmp_path / "alone"), Encoder.load(tmp_path / "both")
    np.testing.assert_allclose(one.weight, two.weight, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(one.latent_bias, two.latent_bias, rtol=1e-3, atol=1e-4)
    assert not (tmp_path / "both.partial").exists()


def test_ranks_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    assert not several() and leads()
    refuse_several("sweeps")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    assert several() and not leads()
    with pytest.raises(ConfigError, match="sweeps run in one process, got 4"):
        refuse_several("sweeps")
