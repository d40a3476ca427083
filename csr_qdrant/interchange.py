"""Encoder folders, in the layout of sentence-transformers' `SparseAutoEncoder` module.

config.json         input_dim, hidden_dim, k, k_aux, normalize, dead_threshold
model.safetensors   decoder.linear.weight (h, d), latent_bias (h,), pre_bias (d,),
                    stats_last_nonzero (h,) int64; the tied encoder.weight stands in the
                    metadata as an alias, and nowhere else, or that library refuses the file
csr.json            ours alone: embedder, training settings, data, metrics
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from csr_qdrant.atomic import replaced_folder
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import CsrError

CONFIG, WEIGHTS, INFO = "config.json", "model.safetensors", "csr.json"
FORMAT_VERSION = 1
TIED_ALIAS = {"encoder.weight": "decoder.linear.weight"}


def save_encoder(encoder: Encoder, folder: Path, *, overwrite: bool = False) -> None:
    """Write `encoder` to `folder`, whole or not at all.

    Raises ConfigError if the folder exists and `overwrite` is not set.
    """
    with replaced_folder(folder, overwrite=overwrite) as temporary:
        (temporary / CONFIG).write_text(json.dumps(_config(encoder), indent=4), "utf-8")
        save_file(_tensors(encoder), temporary / WEIGHTS, metadata=TIED_ALIAS)
        info = {
            "format_version": FORMAT_VERSION,
            **encoder.info,
            "fingerprint": encoder.fingerprint,
        }
        (temporary / INFO).write_text(json.dumps(info, indent=2) + "\n", "utf-8")


def load_encoder(folder: Path) -> Encoder:
    """Read an encoder folder, or a saved sentence-transformers pipeline that holds one.

    Raises CsrError for a folder that is missing, holds no encoder, is damaged or too new.
    """
    module = _module_folder(folder)
    config = _read_config(module)
    tensors = _read_tensors(module / WEIGHTS)
    try:
        encoder = Encoder(
            weight=_float32(tensors["decoder.linear.weight"]),
            latent_bias=_float32(tensors["latent_bias"]),
            pre_bias=_float32(tensors["pre_bias"]),
            k=int(config["k"]),
            layer_norm=bool(config.get("normalize", False)),
            k_aux=int(config.get("k_aux", 512)),
            dead_threshold=int(config.get("dead_threshold", 30)),
            steps_since_active=tensors.get("stats_last_nonzero"),
            info=_read_info(module / INFO),
        )
    except KeyError as error:
        raise CsrError(
            f"{module} lacks {error.args[0]!r}: it is not an encoder folder, or a damaged one"
        ) from None
    if (encoder.d, encoder.h) != (config.get("input_dim"), config.get("hidden_dim")):
        raise CsrError(
            f"{module}: {CONFIG} says d={config.get('input_dim')}, h={config.get('hidden_dim')}, "
            f"but the weights have d={encoder.d}, h={encoder.h}: the folder is damaged"
        )
    return encoder


def _config(encoder: Encoder) -> dict[str, Any]:
    """Return the keys of `config.json` in that library's order."""
    return {
        "input_dim": encoder.d,
        "hidden_dim": encoder.h,
        "k": encoder.k,
        "k_aux": encoder.k_aux,
        "normalize": encoder.layer_norm,
        "dead_threshold": encoder.dead_threshold,
    }


def _tensors(encoder: Encoder) -> dict[str, Any]:
    steps = encoder.steps_since_active
    return {
        "decoder.linear.weight": np.ascontiguousarray(encoder.weight),
        "latent_bias": np.ascontiguousarray(encoder.latent_bias),
        "pre_bias": np.ascontiguousarray(encoder.pre_bias),
        "stats_last_nonzero": np.zeros(encoder.h, np.int64) if steps is None else steps,
    }


def _module_folder(folder: Path) -> Path:
    """Return the folder itself, or its SparseAutoEncoder module if it is a whole pipeline."""
    if not folder.is_dir():
        raise CsrError(f"{folder} is not a folder: give the folder that `csr train` wrote")
    modules = folder / "modules.json"
    if not modules.is_file():
        return folder
    for module in _read_json(modules):
        if str(module.get("type", "")).endswith("SparseAutoEncoder"):
            return folder / str(module["path"])
    raise CsrError(f"{folder} is a pipeline without a SparseAutoEncoder: it makes no CSR codes")


def _read_config(module: Path) -> dict[str, Any]:
    if not (module / CONFIG).is_file() or not (module / WEIGHTS).is_file():
        raise CsrError(
            f"{module} is not an encoder: it lacks {CONFIG} or {WEIGHTS}; give the folder that "
            f"`csr train` wrote"
        )
    config = _read_json(module / CONFIG)
    if not isinstance(config, dict):
        raise CsrError(f"{module / CONFIG} must hold an object: the folder is damaged")
    return config


def _read_info(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    info = _read_json(path)
    if not isinstance(info, dict):
        raise CsrError(f"{path} must hold an object: the folder is damaged")
    version = info.pop("format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise CsrError(
            f"{path} has format version {version}, this release reads {FORMAT_VERSION}: "
            f"upgrade csr-qdrant"
        )
    info.pop("fingerprint", None)  # derived from the weights
    return info


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CsrError(f"{path} cannot be read ({error}): the folder is damaged") from None


def _read_tensors(path: Path) -> dict[str, Any]:
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError, ValueError) as error:
        raise CsrError(f"{path} is damaged ({error}): train the encoder anew or copy it") from None


def _float32(array: Any) -> Any:
    return np.ascontiguousarray(array, np.float32)
