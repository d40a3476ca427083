"""Lets PyPI's torchvision, built for CUDA, be imported beside torch's CPU wheel: for tests alone.

Its `_C.so` cannot be loaded there, so nobody declares its operators, and the module that registers
their shapes fails. The hook declares them, without any kernel, right before that module is
imported. Where `_C.so` has declared them it does nothing.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

_SHAPE = "SymInt pooled_height, SymInt pooled_width"
_INPUT = "SymInt batch_size, SymInt channels, SymInt height, SymInt width"
_ROI = "Tensor rois, float spatial_scale, " + _SHAPE
_TWO = "(Tensor, Tensor)"
_DEFORMED = (
    "Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, "
    "SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, "
    "SymInt groups, SymInt offset_groups, bool use_mask"
)
_SIGNATURES = {
    "nms": ("Tensor dets, Tensor scores, float iou_threshold", "Tensor"),
    "qnms": ("Tensor dets, Tensor scores, float iou_threshold", "Tensor"),
    "roi_align": (f"Tensor input, {_ROI}, int sampling_ratio, bool aligned", "Tensor"),
    "qroi_align": (f"Tensor input, {_ROI}, int sampling_ratio, bool aligned", "Tensor"),
    "_roi_align_backward": (
        f"Tensor grad, {_ROI}, {_INPUT}, int sampling_ratio, bool aligned",
        "Tensor",
    ),
    "ps_roi_align": (f"Tensor input, {_ROI}, int sampling_ratio", _TWO),
    "_ps_roi_align_backward": (
        f"Tensor grad, Tensor rois, Tensor channel_mapping, float spatial_scale, {_SHAPE}, "
        f"int sampling_ratio, {_INPUT}",
        "Tensor",
    ),
    "roi_pool": (f"Tensor input, {_ROI}", _TWO),
    "_roi_pool_backward": (
        f"Tensor grad, Tensor rois, Tensor argmax, float spatial_scale, {_SHAPE}, {_INPUT}",
        "Tensor",
    ),
    "ps_roi_pool": (f"Tensor input, {_ROI}", _TWO),
    "_ps_roi_pool_backward": (
        f"Tensor grad, Tensor rois, Tensor channel_mapping, float spatial_scale, {_SHAPE}, "
        f"{_INPUT}",
        "Tensor",
    ),
    "deform_conv2d": (_DEFORMED, "Tensor"),
    "_deform_conv2d_backward": (
        f"Tensor grad, {_DEFORMED}",
        "(Tensor, Tensor, Tensor, Tensor, Tensor)",
    ),
}
_declared: list[Any] = []  # held: a library that is collected takes its operators with it


class _Declares(MetaPathFinder):
    """Finds no module; it is asked for each, and so knows when one is about to be imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        if fullname == "torchvision._meta_registrations":
            _declare()


def _declare() -> None:
    import torch

    if hasattr(torch.ops.torchvision, "nms"):
        return
    make: Any = torch.library.Library
    library = make("torchvision", "DEF")
    for name, (parameters, returned) in _SIGNATURES.items():
        library.define(f"{name}({parameters}) -> {returned}")
    _declared.append(library)


def install() -> None:
    """Watch the imports of this process; installing twice is installing once."""
    if not any(isinstance(finder, _Declares) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Declares())
