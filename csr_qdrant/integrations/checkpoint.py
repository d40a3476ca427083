"""Checkpoints of the authors' training scripts (neilwen987/CSR_Adaptive_Rep) as encoders.

A `.pth` holds `{epoch, state_dict, optimizer}`; of `state_dict` are read `pre_bias` (d,),
`latent_bias` (h,), `encoder.weight` (h, d), or `decoder.linear.weight`, which is the same array,
and `stats_last_nonzero` (h,), each with or without `module.` before it. Weights of a backbone that
were saved along are passed over. k is not in the file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import CsrError, MissingExtraError
from csr_qdrant.sources.files import existing_file, reason

WEIGHTS = ("encoder.weight", "decoder.linear.weight")
UNTIED = "decoder.weight"  # (d, h), of a decoder that is a layer of its own
BIASES = ("latent_bias", "pre_bias")
STEPS = "stats_last_nonzero"


def read_checkpoint(path: Path, k: int) -> Encoder:
    """Return the encoder in `path` with `k` active latents, as many as it was trained with.

    Nothing but tensors and plain containers is read (torch's `weights_only`), so that a file
    cannot run code. Raises CsrError for files that hold anything else, or no such encoder.
    """
    state = _state(existing_file(path))
    weights = [_array(state[name], path) for name in WEIGHTS if name in state]
    if weights and UNTIED in state:
        weights.append(_array(state[UNTIED], path).T)
    missing = [name for name in BIASES if name not in state]
    if missing or not weights:
        lacks = ", ".join([*([] if weights else [WEIGHTS[0]]), *missing])
        raise CsrError(f"{path} is no checkpoint of CSR, it lacks {lacks}: name another file")
    if any(not np.array_equal(weights[0], other) for other in weights[1:]):
        raise CsrError(
            f"{path} has a decoder of its own, codes here have tied weights: train with them"
        )
    steps = state.get(STEPS)
    latent_bias, pre_bias = (_array(state[name], path) for name in BIASES)
    try:
        return Encoder(
            weight=weights[0],
            latent_bias=latent_bias,
            pre_bias=pre_bias,
            k=k,
            steps_since_active=None if steps is None else np.asarray(steps.numpy(), np.int64),
            info={"checkpoint": path.name},
        )
    except CsrError as error:
        raise type(error)(f"{path}: {error}") from error


def _state(path: Path) -> dict[str, Any]:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "train") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make its reader of pickles raise nearly anything
        raise CsrError(
            f"{path} cannot be read as tensors alone ({_first(error)}): save its state_dict anew"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise CsrError(f"{path} is no checkpoint of CSR, it holds no state_dict: name another file")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def _first(error: Exception) -> str:
    """Return the reason without the advice that torch adds: to run what the file says."""
    return reason(error).partition(". ")[0]


def _array(value: Any, path: Path) -> npt.NDArray[np.float32]:
    if not hasattr(value, "numpy"):  # only tensors have got so far
        raise CsrError(f"{path} is damaged, its weights are no tensors: copy it anew")
    return np.ascontiguousarray(value.detach().float().numpy(), np.float32)
