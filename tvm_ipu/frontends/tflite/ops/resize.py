"""Pictures of another size."""

from __future__ import annotations

from typing import Any

from tvm_ipu.frontends.tflite.call import Call
from tvm_ipu.frontends.tflite.ops.table import Table


def _resize(call: Call, **attributes: Any) -> str:
    size = call.integers(1)
    if len(size) != 2 or min(size) < 1:
        raise call.damaged(f"makes pictures of {size}")
    call.ranked(0, 4)
    y = call.emit(
        "Resize",
        call.channels_first(call.real(0)),
        "",
        "",
        call.add_constant(size),
        axes=[2, 3],
        coordinate_transformation_mode=_coordinates(call),
        **attributes,
    )
    return call.channels_last(y)


def _coordinates(call: Call) -> str:
    if call.option("AlignCorners"):
        return "align_corners"
    return "half_pixel" if call.option("HalfPixelCenters") else "asymmetric"


def _bilinear(call: Call) -> str:
    return _resize(call, mode="linear")


def _nearest(call: Call) -> str:
    """floor(i * scale), with half pixels floor((i + 0.5) * scale), aligned i * scale rounded, halves up."""
    mode = "floor" if _coordinates(call) == "asymmetric" else "round_prefer_ceil"
    return _resize(call, mode="nearest", nearest_mode=mode)


TABLE: Table = {"RESIZE_BILINEAR": _bilinear, "RESIZE_NEAREST_NEIGHBOR": _nearest}
