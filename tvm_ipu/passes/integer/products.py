"""Convolutions and matrix products as sums of integer products (docs/numerics.md, products)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tvm import relax

from tvm_ipu.passes.integer.tensors import (
    NARROW_LIMIT,
    WIDE_LIMIT,
    Array,
    NoInteger,
    Quantized,
    Sum,
    Weight,
)
from tvm_ipu.passes.rewrite import Rewriter, constant, make_constant, op_name, shape_of

R = relax.op

LARGEST_8_BITS = 255
"""Largest absolute value of an 8-bit integer of either sign."""


def conv2d(rewriter: Rewriter, call: relax.Call, x: Quantized, weight: Weight) -> Sum:
    """A convolution in NCHW with OIHW weights; padding stands for the number 0, so for the zero point.

    Raises:
        NoInteger: Scales run along anything but the output channels.
    """
    attrs = call.attrs
    if str(attrs.data_layout) != "NCHW" or str(attrs.kernel_layout) != "OIHW":
        raise NoInteger(f"its layouts are {attrs.data_layout} and {attrs.kernel_layout}")
    channels = weight.value.shape[0]
    if weight.scale.size not in (1, weight.scale.shape[0]):
        raise NoInteger("scales of the weights differ inside an output channel")
    flat = weight.value.reshape(channels, -1).astype(np.int64)
    is_wide = _needs_64_bits(x, np.abs(flat).sum(1), flat.sum(1))
    padding = [int(p) for p in attrs.padding]
    data = x.expr
    if any(padding) and x.zero:
        top, left, bottom, right = padding
        data = rewriter.emit(R.nn.pad(data, [0, 0, 0, 0, top, bottom, left, right], pad_value=x.zero))
        padding = [0, 0, 0, 0]
    data, kernel = _operands(rewriter, data, x.dtype, weight, is_wide)
    product = R.nn.conv2d(
        data,
        kernel,
        strides=[int(s) for s in attrs.strides],
        padding=padding,
        dilation=[int(d) for d in attrs.dilation],
        groups=int(attrs.groups),
        out_dtype=_sum_type(is_wide),
    )
    scale = (weight.scale * x.scale).reshape(-1, 1, 1)[None]
    total = Sum(product, scale, _reach(x, np.abs(flat).sum(1)), is_wide=is_wide)
    return _corrected(rewriter, total, -x.zero * flat.sum(1).reshape(1, channels, 1, 1))


def matmul(rewriter: Rewriter, a: Quantized, weight: Weight) -> Sum:
    """The product with a constant matrix.

    Raises:
        NoInteger: Scales run along anything but the columns.
    """
    if len(shape_of(a.expr)) < 2 or weight.value.ndim < 2:
        raise NoInteger("an operand is a vector")
    if weight.scale.size != weight.scale.shape[-1]:
        raise NoInteger("scales of the weights differ inside a column")
    wide = weight.value.astype(np.int64)
    is_wide = _needs_64_bits(a, np.abs(wide).sum(-2), wide.sum(-2))
    left, right = _operands(rewriter, a.expr, a.dtype, weight, is_wide)
    product = R.matmul(left, right, out_dtype=_sum_type(is_wide))
    scale = (weight.scale * a.scale).reshape(-1)
    total = Sum(product, scale, _reach(a, np.abs(wide).sum(-2)), is_wide=is_wide)
    return _corrected(rewriter, total, -a.zero * wide.sum(-2, keepdims=True))


def matmul_both(rewriter: Rewriter, a: Quantized, b: Quantized) -> Sum:
    """The product of two tensors; one of 8 bits on the right is int8.

    Raises:
        NoInteger: An operand is a vector.
    """
    left, right = shape_of(a.expr), shape_of(b.expr)
    if min(len(left), len(right)) < 2:
        raise NoInteger("an operand is a vector")
    depth = left[-1]
    is_wide = a.is_short or b.is_short or depth * LARGEST_8_BITS**2 * 4 >= 2 * NARROW_LIMIT
    operands = (_in_16_bits(rewriter, q) if is_wide else q.expr for q in (a, b))
    product = R.matmul(*operands, out_dtype=_sum_type(is_wide))
    if b.zero:
        product = R.subtract(product, _sums(rewriter, a, -1, b.zero, is_wide))
    if a.zero:
        product = R.subtract(product, _sums(rewriter, b, -2, a.zero, is_wide))
    total = Sum(product, np.asarray(a.scale * b.scale), depth * a.reach * b.reach, is_wide=is_wide)
    return _corrected(rewriter, total, np.int64(depth * a.zero * b.zero))


def window_sum(
    rewriter: Rewriter,
    x: Quantized,
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Sum:
    """Sums over windows of each channel, padding counting as 0: a depthwise convolution with ones."""
    channels = shape_of(x.expr)[1]
    ones = Weight(np.ones((channels, 1, *kernel), np.int32), np.ones((1, 1, 1, 1)))
    call: Any = R.nn.conv2d(
        x.expr,
        make_constant(ones.value.astype(np.int8)),
        list(strides),
        list(padding),
        list(dilation),
        groups=channels,
        out_dtype="int32",
    )
    return conv2d(rewriter, call, x, ones)


def whole_sum(rewriter: Rewriter, x: Quantized, axes: Sequence[int], keepdims: bool) -> Sum:
    """Sums over whole axes."""
    count = math.prod(shape_of(x.expr)[a] for a in axes)
    is_wide = _needs_64_bits(x, np.array([count]), np.array([count]))
    elements = R.sum(R.astype(x.expr, _sum_type(is_wide)), list(axes), keepdims)
    total = Sum(elements, np.asarray(x.scale), count * x.reach, is_wide=is_wide)
    return _corrected(rewriter, total, np.int64(-count * x.zero))


def add_constant(rewriter: Rewriter, total: Sum, bias: Array) -> Sum:
    """A sum plus numbers, which are rounded to even at the sum's own scale.

    Where that would overflow, because a channel's scale is next to nothing, they stay numbers.
    """
    with np.errstate(all="ignore"):
        steps = np.rint(bias / total.scale)
    reach = total.reach + float(np.abs(steps).max(initial=0))
    if total.offset.any() or not reach < (WIDE_LIMIT if total.is_wide else NARROW_LIMIT):
        scale, offset = np.broadcast_arrays(total.scale, total.offset + bias)
        return replace(total, scale=scale, offset=offset)
    return _corrected(rewriter, replace(total, reach=int(reach)), steps.astype(np.int64))


def _needs_64_bits(x: Quantized, absolute: Array, signed: Array) -> bool:
    """Whether sums are wide; a question of the model alone, whatever the sign of integers in memory.

    Args:
        x: Left operand.
        absolute: Sums of the weights' absolute values.
        signed: Sums of the weights.

    Raises:
        NoInteger: They may overflow even then.
    """
    largest, zero = (2**15, abs(x.zero)) if x.is_short else (LARGEST_8_BITS, LARGEST_8_BITS)
    bound = int(absolute.max(initial=0)) * largest + int(np.abs(signed).max(initial=0)) * zero
    if bound >= WIDE_LIMIT:
        raise NoInteger("sums may overflow 53 bits")
    return bound >= NARROW_LIMIT


def _reach(x: Quantized, absolute: Array) -> int:
    """Bound of sums whose weights have the given absolute sums."""
    return int(absolute.max(initial=0)) * x.reach


def _sum_type(is_wide: bool) -> str:
    return "int64" if is_wide else "int32"


def _operands(
    rewriter: Rewriter, data: relax.Expr, dtype: str, weight: Weight, is_wide: bool
) -> tuple[relax.Expr, relax.Expr]:
    """Data and weights in types that go together: 8 bits both, or 16 bits both.

    For wide sums data have 16 bits, and weights as few as they need.
    """
    if is_wide or "16" in dtype or weight.dtype == "int16":
        wide = data if dtype == "int16" else rewriter.emit(R.astype(data, "int16"))
        return wide, make_constant(weight.value.astype(weight.dtype if is_wide else np.int16))
    return data, make_constant(weight.value.astype(np.int8))


def _in_16_bits(rewriter: Rewriter, q: Quantized) -> relax.Expr:
    return q.expr if q.is_short else rewriter.emit(R.astype(q.expr, "int16"))


def _sums(rewriter: Rewriter, x: Quantized, axis: int, factor: int, is_wide: bool) -> relax.Expr:
    """Sums along an axis, times a number."""
    dtype = _sum_type(is_wide)
    wide = rewriter.emit(R.astype(x.expr, dtype))
    return rewriter.emit(R.multiply(R.sum(wide, axis, True), make_constant(np.asarray(factor, dtype))))


def _corrected(rewriter: Rewriter, total: Sum, correction: Any) -> Sum:
    """Sums plus a constant; additions of constants are merged."""
    expr = total.expr
    if not isinstance(expr, relax.Var):
        expr = rewriter.emit(expr, rewriter.layer)
    values = np.asarray(correction)
    if not values.any():
        return replace(total, expr=expr)
    inner = rewriter.value(expr)
    known = constant(inner.args[1]) if op_name(inner) == "relax.add" else None
    if known is not None:
        return _corrected(rewriter, replace(total, expr=inner.args[0]), known.astype(np.int64) + values)
    added = make_constant(values.astype(_sum_type(total.is_wide)))
    return replace(total, expr=rewriter.emit(R.add(expr, added)))
