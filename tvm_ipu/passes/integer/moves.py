"""Operators that copy elements or choose among them: on integers they do what they do on numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from tvm import relax

from tvm_ipu.base.model import GATHER_ATTR
from tvm_ipu.passes.integer.tensors import LIMITS, Array, NoInteger, Quantized, Sum, collapsed, reshaped_scale
from tvm_ipu.passes.rewrite import Rewriter, make_constant, op_name, shape_of

R = relax.op

MOVES = frozenset(
    f"relax.{name}"
    for name in (
        "broadcast_to", "expand_dims", "flatten", "flip", "gather_elements", "permute_dims", "repeat",
        "reshape", "split", "squeeze", "strided_slice", "take", "tile", "nn.max_pool2d", "max", "min",
        "image.resize2d", "nn.pad",
    )
)  # fmt: skip
"""Those with one tensor of numbers, their first operand."""


def moved(call: relax.Call, source: Quantized) -> relax.Expr:
    """The operator on the integers of its first operand.

    Raises:
        NoInteger: It is not a mere move here.
    """
    name = op_name(call)
    if name == "relax.nn.pad":
        return _padded(call, source)
    if name == "relax.image.resize2d" and str(call.attrs.method) != "nearest_neighbor":
        raise NoInteger(f"resizing by method '{call.attrs.method}'")
    return relax.Call(call.op, [source.expr, *call.args[1:]], call.attrs)


def _padded(call: relax.Call, source: Quantized) -> relax.Expr:
    """Padding with a number that the integers can express."""
    attrs = call.attrs
    step = float(attrs.pad_value) / source.scale + source.zero
    value = round(step) if math.isfinite(step) else -1
    low, high = LIMITS[source.dtype]
    if str(attrs.pad_mode) != "constant":
        return relax.Call(call.op, [source.expr, *call.args[1:]], attrs)
    if not low <= value <= high:
        raise NoInteger("it pads with a number outside the integers' range")
    return R.nn.pad(source.expr, [int(p) for p in attrs.pad_width], pad_value=value)


def gather_axis(rewriter: Rewriter, call: relax.Call) -> int | None:
    """The axis of a function that gathers; None for other functions."""
    axis = rewriter.attribute(call, GATHER_ATTR)
    return int(axis) if axis else None


def gathered(rewriter: Rewriter, data: relax.Expr, positions: relax.Expr, axis: int) -> relax.Var:
    """Elements at positions along an axis, negative ones from the end; outside are those at the edge."""
    extent, dtype = shape_of(data)[axis], str(positions.ty.dtype)
    zero, length = (relax.const(n, dtype) for n in (0, extent))
    if dtype.startswith("int"):
        positions = R.where(R.less(positions, zero), R.add(positions, length), positions)
    inside = rewriter.emit(R.clip(rewriter.emit(positions), 0, extent - 1))
    return rewriter.emit(R.take(data, inside, axis))


def picked(rewriter: Rewriter, data: relax.Expr, positions: Mapping[str, Sequence[int]]) -> relax.Expr:
    """Elements at constant positions along axes."""
    for axis, places in positions.items():
        data = rewriter.emit(R.take(data, make_constant(np.array(places, np.int32)), int(axis)))
    return data


def moved_sum(call: relax.Call, source: Sum) -> Sum | None:
    """A reshape, transpose or cut of sums; None for others, or where scales would lose their axis."""
    name, shape = op_name(call), shape_of(call.args[0])
    if name == "relax.strided_slice":
        return _cut_sum(call, source)
    if name not in ("relax.permute_dims", "relax.reshape", "relax.expand_dims", "relax.squeeze"):
        return None
    expr = relax.Call(call.op, [source.expr, *call.args[1:]], call.attrs)
    scale, offset = (_moved_parameter(call, p, shape) for p in (source.scale, source.offset))
    return None if scale is None or offset is None else replace(source, expr=expr, scale=scale, offset=offset)


def _cut_sum(call: relax.Call, source: Sum) -> Sum | None:
    """A part of sums whose scales do not change along the axes that are cut."""
    rank = len(shape_of(call.args[0]))
    axes = [int(a) % rank for a in call.args[1].fields]
    for parameter in (source.scale, source.offset):
        full = (1,) * (rank - parameter.ndim) + parameter.shape
        if any(full[a] > 1 for a in axes):
            return None
    return replace(source, expr=relax.Call(call.op, [source.expr, *call.args[1:]], call.attrs))


def _moved_parameter(call: relax.Call, parameter: Array, shape: tuple[int, ...]) -> Array | None:
    """Scales or offsets for the result of a reshape or transpose of a tensor of the given shape."""
    full = parameter.reshape((1,) * (len(shape) - parameter.ndim) + parameter.shape)
    if op_name(call) == "relax.permute_dims":
        axes = call.attrs.axes
        return collapsed(full.transpose(None if axes is None else [int(a) for a in axes]))
    return reshaped_scale(full, shape, shape_of(call))
