"""Checkpoints: everything that a run needs to go on exactly, in one safetensors file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from csr_qdrant.atomic import replaced_file
from csr_qdrant.errors import CsrError
from csr_qdrant.trainer.config import TrainConfig
from csr_qdrant.trainer.data import Array

FORMAT = "csr_qdrant.checkpoint/1"


class Checkpoint(NamedTuple):
    """A saved moment of a run."""

    tensors: dict[str, Tensor]
    step: int  # steps done
    elapsed_s: float  # training time so far
    validations: list[dict[str, Any]]


def run_identity(config: TrainConfig, arrays: Mapping[str, Array | None]) -> str:
    """Return a hash of the settings and of the data (shape, type and 64 rows of each array)."""
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    for name, array in arrays.items():
        if array is not None:
            digest.update(f"{name} {array.shape} {array.dtype}".encode())
            rows = np.linspace(0, len(array) - 1, min(len(array), 64)).astype(np.int64)
            digest.update(np.ascontiguousarray(array[rows]).tobytes())
    return digest.hexdigest()


def write_checkpoint(path: Path, identity: str, checkpoint: Checkpoint) -> None:
    """Write `checkpoint`, whole or not at all."""
    progress = {"step": checkpoint.step, "elapsed_s": checkpoint.elapsed_s}
    metadata = {
        "format": FORMAT,
        "identity": identity,
        "progress": json.dumps(progress | {"validations": checkpoint.validations}),
    }
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()
    }
    with replaced_file(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def read_checkpoint(path: Path, identity: str, device: torch.device) -> Checkpoint | None:
    """Read the checkpoint at `path`; None if there is none.

    Raises CsrError if it is damaged, or belongs to another run.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.get("format") != FORMAT:
            raise ValueError("it was not written by this release")
        progress = json.loads(metadata["progress"])
    except (OSError, SafetensorError, ValueError) as error:
        raise CsrError(f"checkpoint {path} cannot be read ({error}): delete it") from None
    if metadata.get("identity") != identity:
        raise CsrError(
            f"checkpoint {path} belongs to a run with other settings or data: finish that run "
            f"with its own settings, or delete the file to start anew"
        )
    return Checkpoint(tensors, progress["step"], progress["elapsed_s"], progress["validations"])
