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
import numpy.typing as npt
from safetensors import SafetensorError, deserialize
from safetensors.numpy import load_file, save_file

from csr_qdrant.atomic import replaced_folder
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import CsrError
from csr_qdrant.json_files import read_json

CONFIG, WEIGHTS, INFO = "config.json", "model.safetensors", "csr.json"
MODULES, PICKLE = "modules.json", "pytorch_model.bin"  # that sentence-transformers may write
FORMAT_VERSION = 1
MAX_NAME = 60  # characters, of a folder within a pipeline: no more than a file name may take
REQUIRED = ("decoder.linear.weight", "latent_bias", "pre_bias")
STEPS = "stats_last_nonzero"
_PLAIN_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8"}
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
    module = module_folder(folder)
    _require_files(module)
    config, tensors = _read_object(module / CONFIG), _read_tensors(module / WEIGHTS)
    info = _read_info(module / INFO)
    try:
        encoder = _assembled(config, tensors, info)
    except (CsrError, TypeError, ValueError, OverflowError) as error:
        raise CsrError(f"{module} is damaged: {error}; copy it anew or train again") from error
    if (encoder.d, encoder.h) != (config.get("input_dim"), config.get("hidden_dim")):
        raise CsrError(
            f"{module} is damaged: {CONFIG} says d={config.get('input_dim')}, "
            f"h={config.get('hidden_dim')}, but the weights have d={encoder.d}, h={encoder.h}"
        )
    return encoder


def _assembled(
    config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], info: dict[str, Any]
) -> Encoder:
    for file, keys, required in ((WEIGHTS, tensors, REQUIRED), (CONFIG, config, ("k",))):
        missing = [repr(name) for name in required if name not in keys]
        if missing:
            raise CsrError(f"{file} lacks {', '.join(missing)}")
    if unknown := sorted(tensors.keys() - {*REQUIRED, STEPS}):
        raise CsrError(f"{WEIGHTS} holds {', '.join(map(repr, unknown))}, unknown for tied weights")
    weight, latent_bias, pre_bias = (
        np.ascontiguousarray(tensors[name], np.float32) for name in REQUIRED
    )
    return Encoder(
        weight=weight,
        latent_bias=latent_bias,
        pre_bias=pre_bias,
        k=int(config["k"]),
        layer_norm=bool(config.get("normalize", False)),
        k_aux=int(config.get("k_aux", 512)),
        dead_threshold=int(config.get("dead_threshold", 30)),
        steps_since_active=tensors.get(STEPS),
        info=info,
    )


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


def _tensors(encoder: Encoder) -> dict[str, npt.NDArray[Any]]:
    arrays = (encoder.weight, encoder.latent_bias, encoder.pre_bias)
    steps = encoder.steps_since_active
    return {
        **dict(zip(REQUIRED, map(np.ascontiguousarray, arrays), strict=True)),
        STEPS: np.zeros(encoder.h, np.int64) if steps is None else steps.astype(np.int64),
    }


def module_folder(folder: Path) -> Path:
    """Return the folder itself, or its SparseAutoEncoder module if it is a whole pipeline."""
    if not folder.is_dir():
        raise CsrError(f"there is no folder {folder}: give the folder that `csr train` wrote")
    modules = folder / MODULES
    if not modules.is_file():
        return folder
    try:
        path = next((str(m["path"]) for m in _read_json(modules) if _makes_codes(m)), None)
    except (TypeError, KeyError) as error:
        raise CsrError(f"{modules} is damaged ({error!r}): copy it anew") from error
    if path is None:
        raise CsrError(f"{folder} is a pipeline without a SparseAutoEncoder: it makes no CSR codes")
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise CsrError(f"{modules} names {path!r}, outside of its folder: get it from its makers")
    if len(path) > MAX_NAME or not path.isprintable():
        raise CsrError(f"{modules} names {path[:80]!r}, which is no name of a folder: copy it anew")
    return folder / path


def _makes_codes(module: Any) -> bool:
    return str(module["type"]).endswith("SparseAutoEncoder")


def _require_files(module: Path) -> None:
    for name in (CONFIG, WEIGHTS):
        if (module / name).is_file():
            continue
        if name == WEIGHTS and (module / PICKLE).exists():
            raise CsrError(
                f"{module} keeps its weights in {PICKLE}, a pickle, which is never loaded: save "
                f"the model again with safetensors"
            )
        raise CsrError(
            f"{module} is not an encoder, it lacks {name}: give the folder that `csr train` wrote"
        )


def _read_info(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    info = _read_object(path)
    version = info.pop("format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise CsrError(
            f"{path} has format version {version}, this release reads {FORMAT_VERSION}: "
            f"upgrade csr-qdrant"
        )
    info.pop("fingerprint", None)  # derived from the weights
    return info


def _read_object(path: Path) -> dict[str, Any]:
    value = _read_json(path)
    if not isinstance(value, dict):
        raise CsrError(f"{path} is damaged: it must hold an object; copy it anew")
    return value


def _read_json(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise CsrError(f"{path} is damaged ({error}): copy it anew or train again") from error


def _read_tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        return dict(load_file(path))
    except (AttributeError, KeyError, TypeError):  # a type that numpy lacks
        return _read_bfloat16(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise CsrError(f"{path} is damaged ({error}): copy it anew or train again") from error


def _read_bfloat16(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read a file with bfloat16 tensors, which are the upper halves of float32."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, tensor in deserialize(path.read_bytes()):  # type: ignore[no-untyped-call]
        if tensor["dtype"] == "BF16":
            halves = np.frombuffer(tensor["data"], "<u2").astype(np.uint32)
            arrays[name] = (halves << 16).view(np.float32).reshape(tensor["shape"])
        elif (kind := _PLAIN_TYPES.get(tensor["dtype"])) is not None:
            arrays[name] = np.frombuffer(tensor["data"], kind).reshape(tensor["shape"])
        else:
            raise CsrError(
                f"{path} cannot be read, {name} is {tensor['dtype']}: save its weights as float32"
            )
    return arrays
