"""Quantised tensors: conversion to and from integers, and products that accumulate in int32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import helper
from tvm import relax, te, tirx

from tvm_ipu.frontends.onnx.context import Array, Context, Node, UnsupportedNode, converter
from tvm_ipu.frontends.onnx.ops import small
from tvm_ipu.frontends.onnx.ops.common import (
    elementwise,
    is_float,
    kind,
    normal_axis,
    number,
    required,
)
from tvm_ipu.frontends.onnx.ops.conv import convolve, reshape_weight
from tvm_ipu.frontends.onnx.ops.shape import pad_constant
from tvm_ipu.frontends.onnx.ops.types import convert, element_type, saturate
from tvm_ipu.frontends.onnx.ops.window import read_window

R = relax.op
MS = "com.microsoft"
"""Domain in which ONNX Runtime's quantiser wrote 16 and 4 bits before opset 21."""
_INTEGERS = ("int8", "uint8", "int16", "uint16")


def _parameter_index(node: Node, rank: int, shape: tuple[int, ...]) -> Callable[..., list[Any]]:
    """Where the scale of an element lies: one for all, for each slice of an axis, or for each block."""
    if not shape or (len(shape) == 1 and shape[0] == 1 and rank != 1):
        return lambda *index: [0] * len(shape)
    axis = normal_axis(int(node.attrs.get("axis", 1)), rank) if rank > 1 else 0
    block = int(node.attrs.get("block_size", 0))
    if len(shape) == 1 and not block:
        return lambda *index: [index[axis] if shape[0] > 1 else 0]
    if len(shape) != rank or block <= 0:
        raise UnsupportedNode(f"a scale of shape {list(shape)} fits neither an axis nor blocks")
    return lambda *index: [tirx.floordiv(v, block) if i == axis else v for i, v in enumerate(index)]


def _is_plain(node: Node, shape: tuple[int, ...]) -> bool:
    """True where Relax's own operators say the same: one scale for all, or one for each slice of an axis."""
    return len(shape) <= 1 and not int(node.attrs.get("block_size", 0))


@converter("QuantizeLinear")
@converter("QuantizeLinear", domain=MS)
def quantize_linear(ctx: Context, node: Node) -> relax.Expr:
    """To integers of 2 to 16 bits and floats of 4 and 8; one scale, or one a slice or block."""
    x, scale, zero = required(node, 0, "x"), required(node, 1, "y_scale"), node.input(2)
    code = int(node.attrs.get("output_dtype", 0))
    given = "uint8" if zero is None else node.type(2) or ctx.dtype(zero)
    label = str(helper.tensor_dtype_to_np_dtype(code).name) if code else given
    if label not in _INTEGERS and not small.is_small(label):
        raise UnsupportedNode(
            f"quantisation to {label} is not supported; allowed are {', '.join(_INTEGERS)} and smaller types"
        )
    if small.is_small(label):
        return _quantize_small(ctx, node, x, scale, zero, label)
    dtype = label
    shape, dims = ctx.shape(scale), ctx.shape(x)
    zero = ctx.const(np.zeros(shape, dtype)) if zero is None else zero
    if ctx.dtype(x) == ctx.dtype(scale) == "float32" and _is_plain(node, shape):
        axis = normal_axis(int(node.attrs.get("axis", 1)), len(dims)) if len(dims) > 1 else 0
        return ctx.emit(R.quantize(x, scale, zero, axis=axis, out_dtype=dtype))
    place = _parameter_index(node, len(dims), shape)
    work = "float64" if "float64" in (ctx.dtype(x), ctx.dtype(scale)) else "float32"

    def compute(tensor: te.Tensor, factor: te.Tensor, offset: te.Tensor) -> te.Tensor:
        def element(*index: Any) -> Any:
            at = place(*index)
            scaled = tensor(*index).astype(work) / factor(*at).astype(work)
            return to_integer(scaled, offset(*at), dtype)

        return te.compute(dims, element, name="quantize")

    return ctx.te(compute, x, scale, zero, name="quantize")


def _quantize_small(
    ctx: Context, node: Node, x: relax.Expr, scale: relax.Expr, zero: relax.Expr | None, label: str
) -> relax.Expr:
    """Quantisation to a type of ``ops.small``, in its carrier type."""
    dims, shape = ctx.shape(x), ctx.shape(scale)
    place, limits = _parameter_index(node, len(dims), shape), small.limits(label)
    offset = ctx.const(np.zeros(shape, np.float32)) if zero is None else convert(ctx, zero, "float32")
    place_zero = _parameter_index(node, len(dims), ctx.shape(offset))

    def compute(tensor: te.Tensor, factor: te.Tensor, shift: te.Tensor) -> te.Tensor:
        def element(*index: Any) -> Any:
            at = place(*index)
            scaled = tensor(*index).astype("float32") / factor(*at).astype("float32")
            moved = shift(*place_zero(*index))
            if limits is None:
                return scaled + moved
            low, high = (number(float(limit), "float32") for limit in limits)
            return tirx.max(tirx.min(tirx.round(scaled) + moved, high), low)

        return te.compute(dims, element, name="quantize")

    found = ctx.te(compute, x, scale, offset, name="quantize")
    if limits is not None:
        return convert(ctx, found, small.carrier(label))
    return small.to_small(ctx, found, label, bool(node.attrs.get("saturate", 1)))


def to_integer(value: Any, zero_point: Any, dtype: str) -> Any:
    """A scaled value rounded to even, shifted and saturated."""
    return saturate(tirx.round(value) + zero_point.astype(kind(value)), dtype)


@converter("DequantizeLinear")
@converter("DequantizeLinear", domain=MS)
def dequantize_linear(ctx: Context, node: Node) -> relax.Expr:
    """From integers of 2 to 32 bits and floats of 4 and 8; one scale, or one a slice or block."""
    x, scale, zero = required(node, 0, "x"), required(node, 1, "x_scale"), node.input(2)
    code = int(node.attrs.get("output_dtype", 0))
    dtype = element_type(code) if code else ctx.dtype(scale)
    shape, dims = ctx.shape(scale), ctx.shape(x)
    if is_float(ctx.dtype(x)) and not small.is_small(node.type(0)):
        raise UnsupportedNode(
            f"its input is {ctx.dtype(x)}; allowed are integers of up to 32 bits, and small floats"
        )
    zero = ctx.const(np.zeros(shape, ctx.dtype(x))) if zero is None else zero
    plain = ctx.dtype(x) in (*_INTEGERS, "int32") and _is_plain(node, shape)
    if dtype == ctx.dtype(scale) == "float32" and plain:
        axis = normal_axis(int(node.attrs.get("axis", 1)), len(dims)) if len(dims) > 1 else 0
        return ctx.emit(R.dequantize(x, scale, zero, axis=axis, out_dtype=dtype))
    place, place_zero = (_parameter_index(node, len(dims), s) for s in (shape, ctx.shape(zero)))
    work = "float64" if dtype == "float64" else "float32"

    def compute(tensor: te.Tensor, factor: te.Tensor, offset: te.Tensor) -> te.Tensor:
        def element(*index: Any) -> Any:
            at = place(*index)
            between = "float32" if is_float(kind(tensor(*index))) else "int32"
            whole = tensor(*index).astype(between) - offset(*place_zero(*index)).astype(between)
            return (whole.astype(work) * factor(*at).astype(work)).astype(dtype)

        return te.compute(dims, element, name="dequantize")

    return ctx.te(compute, x, scale, zero, name="dequantize")


@converter("DynamicQuantizeLinear")
def dynamic_quantize_linear(ctx: Context, node: Node) -> list[relax.Expr]:
    """float32 to uint8."""
    x = required(node, 0, "x")
    dims = ctx.shape(x)
    axes = list(range(len(dims)))
    low, high = ctx.emit(R.min(x, axes, False)), ctx.emit(R.max(x, axes, False))
    zero, levels = number(0.0, "float32"), number(255.0, "float32")

    def step(lowest: Any, highest: Any) -> Any:
        return (tirx.max(highest, zero) - tirx.min(lowest, zero)) / levels

    scale = elementwise(ctx, "dynamic_scale", step, low, high)

    def offset(lowest: Any, factor: Any) -> Any:
        divisor = tirx.Select(factor == zero, number(1.0, "float32"), factor)
        return saturate(tirx.round((zero - tirx.min(lowest, zero)) / divisor), "uint8")

    zero_point = elementwise(ctx, "dynamic_zero_point", offset, low, scale, dtype="uint8")

    def quantized(value: Any, factor: Any, shift: Any) -> Any:
        divisor = tirx.Select(factor == zero, number(1.0, "float32"), factor)
        return to_integer(value / divisor, shift, "uint8")

    return [
        elementwise(ctx, "dynamic_quantize", quantized, x, scale, zero_point, dtype="uint8"),
        scale,
        zero_point,
    ]


def centered(ctx: Context, x: relax.Expr, zero: relax.Expr | None) -> relax.Expr:
    """8-bit ``x`` minus its zero point: ``x`` itself where that is known to be 0, else int16."""
    value = ctx.value(x)
    offset = np.zeros((), np.int16) if zero is None else ctx.value(zero)
    if offset is not None and not offset.any():
        return x
    if value is not None and offset is not None:
        return ctx.const(value.astype(np.int16) - offset.astype(np.int16))
    wide = convert(ctx, x, "int16")
    assert zero is not None
    return ctx.emit(R.subtract(wide, convert(ctx, zero, "int16")))


def _constant_weight(ctx: Context, weight: relax.Expr, zero: relax.Expr | None) -> Array | None:
    """Constant weights minus their zero points, where both are known and that fits int8."""
    value = ctx.value(weight)
    offset = np.zeros((), np.int16) if zero is None else ctx.value(zero)
    if value is None or offset is None:
        return None
    wide = value.astype(np.int16) - offset.astype(np.int16)
    fits = wide.size == 0 or (wide.min() >= -128 and wide.max() <= 127)
    return wide.astype(np.int8) if fits else None


def _without_zero(ctx: Context, total: relax.Expr, zero: relax.Expr | None, sums: Array) -> relax.Expr:
    """Sums of products with ``x`` as sums with ``x - zero``.

    Args:
        sums: What a unit of the zero point adds to each of them, int32.
    """
    value = np.zeros((), np.int32) if zero is None else ctx.value(zero)
    if value is not None:
        correction = value.astype(np.int32) * sums
        return ctx.emit(R.subtract(total, ctx.const(correction))) if correction.any() else total
    assert zero is not None
    return ctx.emit(R.subtract(total, R.multiply(convert(ctx, zero, "int32"), ctx.const(sums))))


def _matched(ctx: Context, a: relax.Expr, b: relax.Expr) -> tuple[relax.Expr, relax.Expr]:
    """Two integer operands in one type."""
    if ctx.dtype(a) == ctx.dtype(b):
        return a, b
    return _as_int16(ctx, a), _as_int16(ctx, b)


def _as_int16(ctx: Context, expr: relax.Expr) -> relax.Expr:
    value = ctx.value(expr)
    return ctx.const(value.astype(np.int16)) if value is not None else convert(ctx, expr, "int16")


@converter("ConvInteger")
def conv_integer(ctx: Context, node: Node) -> relax.Expr:
    """int8 and uint8, one to three spatial axes; zero points for the input and for each output channel."""
    return int_conv(ctx, node, required(node, 0, "x"), required(node, 1, "w"), node.input(2), node.input(3))


def int_conv(
    ctx: Context,
    node: Node,
    x: relax.Expr,
    weight: relax.Expr,
    x_zero: relax.Expr | None,
    w_zero: relax.Expr | None,
) -> relax.Expr:
    """Convolution of 8-bit integers with int32 sums."""
    kernel = ctx.shape(weight)[2:]
    window = read_window(node, ctx.shape(x)[2:], kernel)
    if x_zero is not None and ctx.shape(x_zero):
        x_zero = reshape_weight(ctx, x_zero, ())
    if w_zero is not None and len(ctx.shape(w_zero)) == 1:
        w_zero = reshape_weight(ctx, w_zero, (ctx.shape(w_zero)[0], *[1] * (1 + len(kernel))))
    known, groups = _constant_weight(ctx, weight, w_zero), int(node.attrs.get("group", 1))
    fill = np.zeros(()) if x_zero is None else ctx.value(x_zero)
    padded = any(window.padding)
    if known is not None and (not padded or (fill is not None and min(window.padding) >= 0)):
        if padded and fill is not None:
            x = pad_constant(ctx, x, (0, 0, *window.begins), (0, 0, *window.ends), int(fill))
            none = (0,) * window.rank
            window = replace(window, begins=none, ends=none)
        total = convolve(ctx, x, ctx.const(known), window, groups, "int32")
        sums = known.sum(tuple(range(1, known.ndim)), dtype=np.int32)
        return _without_zero(ctx, total, x_zero, sums.reshape(-1, *[1] * len(kernel)))
    a, b = _matched(ctx, centered(ctx, x, x_zero), centered(ctx, weight, w_zero))
    return convolve(ctx, a, b, window, groups, "int32")


@converter("MatMulInteger")
def matmul_integer(ctx: Context, node: Node) -> relax.Expr:
    """int8 and uint8; zero points for each row and column."""
    return int_matmul(ctx, required(node, 0, "A"), required(node, 1, "B"), node.input(2), node.input(3))


def int_matmul(
    ctx: Context, a: relax.Expr, b: relax.Expr, a_zero: relax.Expr | None, b_zero: relax.Expr | None
) -> relax.Expr:
    """Product of 8-bit integers with int32 sums; zero points for each row and column."""
    a_zero = None if a_zero is None else for_rows(ctx, a_zero)
    weight = _constant_weight(ctx, b, b_zero)
    if weight is not None and min(len(ctx.shape(a)), weight.ndim) > 1:
        total = ctx.emit(R.matmul(a, ctx.const(weight), out_dtype="int32"))
        return _without_zero(ctx, total, a_zero, weight.sum(-2, keepdims=True, dtype=np.int32))
    left, right = _matched(ctx, centered(ctx, a, a_zero), centered(ctx, b, b_zero))
    return ctx.emit(R.matmul(left, right, out_dtype="int32"))


def for_rows(ctx: Context, parameter: relax.Expr) -> relax.Expr:
    """A parameter for each row of a matrix as a column; a single one as a scalar."""
    shape = ctx.shape(parameter)
    if len(shape) != 1:
        return parameter
    return reshape_weight(ctx, parameter, () if shape[0] == 1 else (shape[0], 1))
