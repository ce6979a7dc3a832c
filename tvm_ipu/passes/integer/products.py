"""Convolutions and matrix products as sums of integer products (docs/numerics.md, products)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tvm import relax

from tvm_ipu.passes.integer.tensors import (
    ACCUMULATOR_LIMIT,
    LIMITS,
    Array,
    NoInteger,
    Quantized,
    Sum,
    Weight,
    int32_constant,
)
from tvm_ipu.passes.rewrite import Rewriter, constant, make_constant, op_name, shape_of

R = relax.op


def conv2d(rewriter: Rewriter, call: relax.Call, x: Quantized, weight: Weight) -> Sum:
    """A convolution in NCHW with OIHW weights; padding stands for the number 0, so for the zero point.

    Raises:
        NoInteger: Sums may overflow, or scales run along anything but the output channels.
    """
    attrs = call.attrs
    if str(attrs.data_layout) != "NCHW" or str(attrs.kernel_layout) != "OIHW":
        raise NoInteger(f"its layouts are {attrs.data_layout} and {attrs.kernel_layout}")
    channels = weight.value.shape[0]
    if weight.scale.size not in (1, weight.scale.shape[0]):
        raise NoInteger("scales of the weights differ inside an output channel")
    flat = weight.value.reshape(channels, -1).astype(np.int64)
    correction = -x.zero * flat.sum(1)
    reach = _check(x, np.abs(flat).sum(1), correction)
    padding = [int(p) for p in attrs.padding]
    data = x.expr
    if any(padding) and x.zero:
        top, left, bottom, right = padding
        data = rewriter.emit(R.nn.pad(data, [0, 0, 0, 0, top, bottom, left, right], pad_value=x.zero))
        padding = [0, 0, 0, 0]
    data, kernel = _operands(rewriter, data, x.dtype, weight)
    product = R.nn.conv2d(
        data,
        kernel,
        strides=[int(s) for s in attrs.strides],
        padding=padding,
        dilation=[int(d) for d in attrs.dilation],
        groups=int(attrs.groups),
        out_dtype="int32",
    )
    column = (1, channels, 1, 1)
    total = _corrected(rewriter, product, correction.reshape(column))
    return Sum(total, (weight.scale * x.scale).reshape(-1, 1, 1)[None], reach)


def matmul(rewriter: Rewriter, a: Quantized, weight: Weight) -> Sum:
    """The product with a constant matrix.

    Raises:
        NoInteger: Sums may overflow, or scales run along anything but the columns.
    """
    if len(shape_of(a.expr)) < 2 or weight.value.ndim < 2:
        raise NoInteger("an operand is a vector")
    if weight.scale.size != weight.scale.shape[-1]:
        raise NoInteger("scales of the weights differ inside a column")
    wide = weight.value.astype(np.int64)
    correction = -a.zero * wide.sum(-2, keepdims=True)
    reach = _check(a, np.abs(wide).sum(-2), correction)
    left, right = _operands(rewriter, a.expr, a.dtype, weight)
    total = _corrected(rewriter, R.matmul(left, right, out_dtype="int32"), correction)
    return Sum(total, (weight.scale * a.scale).reshape(-1), reach)


def matmul_both(rewriter: Rewriter, a: Quantized, b: Quantized) -> Sum:
    """The product of two tensors of 8 bits, the right one int8.

    Raises:
        NoInteger: Sums may overflow, or an operand is a vector.
    """
    left, right = shape_of(a.expr), shape_of(b.expr)
    if min(len(left), len(right)) < 2:
        raise NoInteger("an operand is a vector")
    depth = left[-1]
    reach = depth * (a.reach + abs(a.zero)) * (b.reach + abs(b.zero))
    if reach > ACCUMULATOR_LIMIT:
        raise NoInteger(f"sums of {depth} products may overflow 32 bits")
    total = R.matmul(a.expr, b.expr, out_dtype="int32")
    if b.zero:
        total = R.subtract(total, _sums(rewriter, a, -1, b.zero))
    if a.zero:
        total = R.subtract(total, _sums(rewriter, b, -2, a.zero))
    total = _corrected(rewriter, total, np.int64(depth * a.zero * b.zero))
    return Sum(total, np.asarray(a.scale * b.scale), depth * a.reach * b.reach)


def window_sum(
    rewriter: Rewriter, x: Quantized, kernel: Sequence[int], strides: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int],
) -> Sum:  # fmt: skip
    """Sums over windows of each channel, padding counting as the number 0: a depthwise convolution with ones.

    Raises:
        NoInteger: Sums may overflow.
    """
    channels = shape_of(x.expr)[1]
    ones = Weight(np.ones((channels, 1, *kernel), np.int32), np.ones((1, 1, 1, 1)))
    call: Any = R.nn.conv2d(x.expr, make_constant(ones.value.astype(np.int8)), list(strides), list(padding),
                            list(dilation), groups=channels, out_dtype="int32")  # fmt: skip
    return conv2d(rewriter, call, x, ones)


def whole_sum(rewriter: Rewriter, x: Quantized, axes: Sequence[int], keepdims: bool) -> Sum:
    """Sums over whole axes.

    Raises:
        NoInteger: Sums may overflow.
    """
    count = math.prod(shape_of(x.expr)[a] for a in axes)
    _check(x, np.array([count]), np.array([count * x.zero]))
    total = R.sum(R.astype(x.expr, "int32"), list(axes), keepdims)
    total = _corrected(rewriter, total, np.int64(-count * x.zero))
    return Sum(total, np.asarray(x.scale), count * x.reach)


def add_constant(rewriter: Rewriter, total: Sum, bias: Array) -> Sum:
    """A sum plus numbers, which are rounded to even at the sum's own scale.

    Where that would overflow, because a channel's scale is next to nothing, they stay numbers.
    """
    with np.errstate(all="ignore"):
        steps = np.rint(bias / total.scale)
    reach = total.reach + float(np.abs(steps).max(initial=0))
    if total.offset.any() or not reach <= ACCUMULATOR_LIMIT // 2:  # half: a correction of that size may join
        scale, offset = np.broadcast_arrays(total.scale, total.offset + bias)
        return replace(total, scale=scale, offset=offset)
    return Sum(_corrected(rewriter, total.expr, steps.astype(np.int64)), total.scale, int(reach))


def _check(x: Quantized, weights: Array, correction: Array) -> int:
    """Bound of sums whose weights have the given absolute sums; nothing on the way to them overflows."""
    low, high = LIMITS[x.dtype]
    raw = weights.max(initial=0) * max(-low, high)
    if raw + np.abs(correction).max(initial=0) > ACCUMULATOR_LIMIT // 2:
        raise NoInteger("sums may overflow 32 bits")
    return int(weights.max(initial=0)) * x.reach


def _operands(
    rewriter: Rewriter, data: relax.Expr, dtype: str, weight: Weight
) -> tuple[relax.Expr, relax.Expr]:
    """Data and weights in types that go together: 8 bits both, or 16 bits both."""
    if "16" in dtype or weight.dtype == "int16":
        wide = data if dtype == "int16" else rewriter.emit(R.astype(data, "int16"))
        return wide, make_constant(weight.value.astype(np.int16))
    return data, make_constant(weight.value.astype(np.int8))


def _sums(rewriter: Rewriter, x: Quantized, axis: int, factor: int) -> relax.Expr:
    """Sums along an axis, times a number."""
    wide = rewriter.emit(R.astype(x.expr, "int32"))
    return rewriter.emit(R.multiply(R.sum(wide, axis, True), int32_constant(factor)))


def _corrected(rewriter: Rewriter, total: relax.Expr, correction: Any) -> relax.Expr:
    """Sums plus a constant; additions of constants are merged."""
    if not isinstance(total, relax.Var):
        total = rewriter.emit(total, rewriter.layer)
    values = np.asarray(correction)
    if not values.any():
        return total
    inner = rewriter.value(total)
    known = constant(inner.args[1]) if op_name(inner) == "relax.add" else None
    if known is not None:
        return _corrected(rewriter, inner.args[0], known.astype(np.int64) + values)
    return rewriter.emit(R.add(total, int32_constant(values)))
