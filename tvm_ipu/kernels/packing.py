"""How the kernel templates want their weights packed.

In panels of ``lanes`` output channels and, along the reduction, in groups as the target's dot product wants
them, both padded with zeros, so that a kernel loads one vector of weights for each multiplication.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tvm import te, tirx

from tvm_ipu.base.target import Target
from tvm_ipu.kernels import nibbles
from tvm_ipu.kernels.computes import shape_of
from tvm_ipu.kernels.dot import Dot, accumulator
from tvm_ipu.kernels.winograd import transform_weights


def weight_lanes(dtype: str, target: Target, out_dtype: str | None = None) -> int:
    """Channels in one panel of packed depthwise weights for an image of type ``dtype``."""
    return target.lanes(int(tirx.const(0, accumulator(dtype, out_dtype)).ty.dtype.bits))


def pack_conv2d(weight: np.ndarray, dot: Dot, groups: int = 1, whole_rows: bool = False) -> np.ndarray:
    """Pack ``[out_channels, kernel_height, kernel_width, in_channels / groups]`` for ``conv2d``."""
    if whole_rows:
        weight = weight.reshape(*weight.shape[:2], 1, -1)
    out_channels, kernel_h, kernel_w, _ = weight.shape
    grouped = weight.reshape(groups, out_channels // groups, *weight.shape[1:])
    padded = _pad_to(_pad_to(grouped, 1, dot.lanes), 4, dot.group)
    panels = padded.reshape(
        groups, -1, dot.lanes, kernel_h, kernel_w, padded.shape[4] // dot.group, dot.group
    )
    panels = np.ascontiguousarray(panels.transpose(0, 1, 3, 4, 5, 2, 6))
    return nibbles.pack(panels) if dot.right == nibbles.INT4 else panels


def pack_winograd(weight: np.ndarray, lanes: int, outputs: int) -> np.ndarray:
    """Transform and pack ``[out_channels, 3, 3, in_channels]`` for ``winograd_conv2d``.

    Args:
        weight: Filters.
        lanes: Output channels of a panel.
        outputs: Output rows and columns of a tile.
    """
    panels = _pad_to(transform_weights(weight, outputs), 0, lanes)
    panels = panels.reshape(-1, lanes, *panels.shape[1:])
    return np.ascontiguousarray(panels.transpose(0, 2, 3, 4, 1))


def pack_depthwise(weight: np.ndarray, lanes: int) -> np.ndarray:
    """Pack ``[channels, kernel_height, kernel_width, 1]`` for ``depthwise_conv2d``."""
    channels, kernel_h, kernel_w, _ = weight.shape
    panels = _pad_to(weight.reshape(channels, kernel_h, kernel_w), 0, lanes).reshape(
        -1, lanes, kernel_h, kernel_w
    )
    return np.ascontiguousarray(panels.transpose(0, 2, 3, 1))


def pack_dense(weight: np.ndarray, dot: Dot) -> np.ndarray:
    """Pack a matrix ``[depth, units]`` for ``dense``."""
    padded = _pad_to(_pad_to(weight, 0, dot.group), 1, dot.lanes)
    panels = padded.reshape(-1, dot.group, padded.shape[1] // dot.lanes, dot.lanes)
    panels = np.ascontiguousarray(panels.transpose(2, 0, 3, 1))
    return nibbles.pack(panels) if dot.right == nibbles.INT4 else panels


def pack_conv2d_te(weight: te.Tensor, dot: Dot, groups: int = 1) -> te.Tensor:
    """``pack_conv2d`` for weights that are known only at run time."""
    out_channels, kernel_h, kernel_w, depth = shape_of(weight)
    size = out_channels // groups
    is_full = size % dot.lanes == 0 and depth % dot.group == 0

    def element(g: Any, p: Any, y: Any, z: Any, s: Any, lane: Any, i: Any) -> Any:
        channel, deep = p * dot.lanes + lane, s * dot.group + i
        inside = weight[g * size + channel, y, z, deep]
        return inside if is_full else _or_zero(tirx.all(channel < size, deep < depth), inside, weight.dtype)

    panels = math.ceil(size / dot.lanes)
    shape = (groups, panels, kernel_h, kernel_w, dot.steps(depth), dot.lanes, dot.group)
    return te.compute(shape, element, name="pack_conv2d")


def pack_depthwise_te(weight: te.Tensor, lanes: int) -> te.Tensor:
    """``pack_depthwise`` for weights that are known only at run time."""
    channels, kernel_h, kernel_w, _ = shape_of(weight)

    def element(p: Any, y: Any, z: Any, lane: Any) -> Any:
        channel = p * lanes + lane
        inside = weight[channel, y, z, 0]
        return inside if channels % lanes == 0 else _or_zero(channel < channels, inside, weight.dtype)

    shape = (math.ceil(channels / lanes), kernel_h, kernel_w, lanes)
    return te.compute(shape, element, name="pack_depthwise")


def _or_zero(condition: Any, value: Any, dtype: str) -> Any:
    return tirx.if_then_else(condition, value, tirx.const(0, dtype))


def _pad_to(array: np.ndarray, axis: int, multiple: int) -> np.ndarray:
    """``array`` with zeros appended along ``axis`` up to a multiple of ``multiple``."""
    pad = [(0, 0)] * array.ndim
    pad[axis] = (0, -array.shape[axis] % multiple)
    return np.pad(array, pad)
