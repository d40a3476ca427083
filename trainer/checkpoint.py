"""Checkpoints: everything that a run needs to go on exactly, in one safetensors file."""

import hashlib
import json
import zlib
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
from csr_qdrant.trainer.data import Array, spread

FORMAT = "csr_qdrant.checkpoint/1"
SAMPLED_ROWS = 256  # of the vectors, that tell whether they are the same
FREE = {"checkpoint_seconds"}  # settings that may change between a run and its continuation


class Checkpoint(NamedTuple):
    """A saved moment of a run."""

    tensors: dict[str, Tensor]
    step: int  # steps done
    elapsed_s: float  # time since the run began, without breaks
    scale: float  # what vectors are divided by
    validations: list[dict[str, Any]]


def run_identity(config: TrainConfig, arrays: Mapping[str, Array | None]) -> str:
    """Return a hash of the settings and of the data.

    Of each array: shape, type, and all of it if it is one-dimensional, otherwise 256 rows.
    """
    settings = {name: value for name, value in asdict(config).items() if name not in FREE}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, array in arrays.items():
        if array is not None:
            digest.update(f"{name} {array.shape} {array.dtype}".encode())
            part = array if array.ndim == 1 else array[spread(len(array), SAMPLED_ROWS)]
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def write_checkpoint(path: Path, identity: str, checkpoint: Checkpoint) -> None:
    """Write `checkpoint`, whole or not at all; CsrError if that is impossible."""
    progress = json.dumps(
        {
            "step": checkpoint.step,
            "elapsed_s": checkpoint.elapsed_s,
            "scale": checkpoint.scale,
            "validations": checkpoint.validations,
        }
    )
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()
    }
    metadata = {
        "format": FORMAT,
        "identity": identity,
        "progress": progress,
        "checksum": _checksum(progress, tensors),
    }
    try:
        with replaced_file(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise CsrError(f"checkpoint {path} cannot be written: {error}") from error


def read_checkpoint(path: Path, identity: str, device: torch.device) -> Checkpoint | None:
    """Read the checkpoint at `path`; None if there is none.

    Raises CsrError if it is damaged, or belongs to another run.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.get("format") != FORMAT:
            raise ValueError("it was not written by this release")
        if metadata.get("checksum") != _checksum(metadata.get("progress", ""), tensors):
            raise ValueError("its content does not fit its checksum")
    except (OSError, SafetensorError, ValueError) as error:
        raise CsrError(f"checkpoint {path} cannot be read ({error}): delete it") from None
    if metadata.get("identity") != identity:
        raise CsrError(
            f"checkpoint {path} belongs to a run with other settings or data: finish that run "
            f"with its own settings, or delete the file to start anew"
        )
    progress = json.loads(metadata["progress"])
    moved = {name: tensor.to(device) for name, tensor in tensors.items()}
    return Checkpoint(moved, **progress)


def _checksum(progress: str, tensors: Mapping[str, Tensor]) -> str:
    """Return a CRC of everything that a run takes up, as text."""
    crc = zlib.crc32(progress.encode())
    for name in sorted(tensors):
        crc = zlib.crc32(f"{name} {tensors[name].shape}".encode(), crc)
        crc = zlib.crc32(tensors[name].numpy().data, crc)
    return f"{crc:08x}"
