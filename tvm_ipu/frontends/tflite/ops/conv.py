"""Convolutions, products of matrices and pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tvm_ipu.frontends.tflite.call import Call, Refused
from tvm_ipu.frontends.tflite.ops.table import Function, Table

_TIE = 2.0**-20

_PADDINGS = ("SAME", "VALID")


def _strides(call: Call, *names: str) -> list[int]:
    """Options that are counts, such as strides."""
    values = [int(call.option(name)) for name in names]
    if any(v < 1 for v in values):
        raise call.damaged(f"has {names[0]}, {names[-1]} = {values}")
    return values


def _padding(
    call: Call,
    extents: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[int]:
    """ONNX's ``pads``: SAME gives ceil(extent / stride) results, the odd element behind."""
    if call.choice("Padding", _PADDINGS) == "VALID":
        return [0] * (2 * len(kernel))
    totals = []
    for extent, taps, stride, dilation in zip(extents, kernel, strides, dilations, strict=True):
        count = math.ceil(extent / stride)
        totals.append(max(0, (count - 1) * stride + (taps - 1) * dilation + 1 - extent))
    return [t // 2 for t in totals] + [t - t // 2 for t in totals]


def _convolution(
    call: Call, strides: Sequence[int], dilations: Sequence[int], weight: str, group: int
) -> str:
    """A convolution of the first input [N, spatial..., C] with a weight [O, C/g, spatial...]."""
    extents = call.shape(0)[1:-1]
    kernel = call.builder.shape(weight)[2:]
    x = call.channels_first(call.real(0))
    bias = [call.bias(2)] if call.has(2) else []
    y = call.emit(
        "Conv",
        x,
        weight,
        *bias,
        strides=list(strides),
        dilations=list(dilations),
        kernel_shape=list(kernel),
        pads=_padding(call, extents, kernel, strides, dilations),
        group=group,
    )
    return call.channels_last(call.activated(y))


def _conv2d(call: Call) -> str:
    channels = call.ranked(0, 4)[3]
    taken = call.ranked(1, 4)[3]
    if taken == 0 or channels % taken:
        raise call.damaged(f"has {channels} channels and weights for {taken}")
    strides = _strides(call, "StrideH", "StrideW")
    dilations = _strides(call, "DilationHFactor", "DilationWFactor")
    return _convolution(call, strides, dilations, call.weight(1, (0, 3, 1, 2)), channels // taken)


def _depthwise(call: Call) -> str:
    channels, made = call.ranked(0, 4)[3], call.ranked(1, 4)[3]
    if channels == 0 or made % channels or call.shape(1)[0] != 1:
        raise call.damaged(f"has {channels} channels and weights of shape {list(call.shape(1))}")
    strides = _strides(call, "StrideH", "StrideW")
    dilations = _strides(call, "DilationHFactor", "DilationWFactor")
    return _convolution(call, strides, dilations, call.weight(1, (3, 0, 1, 2)), channels)


def _conv3d(call: Call) -> str:
    channels, taken = call.ranked(0, 5)[4], call.ranked(1, 5)[3]
    if taken == 0 or channels % taken:
        raise call.damaged(f"has {channels} channels and weights for {taken}")
    strides = _strides(call, "StrideD", "StrideH", "StrideW")
    dilations = _strides(call, "DilationDFactor", "DilationHFactor", "DilationWFactor")
    return _convolution(call, strides, dilations, call.weight(1, (4, 3, 0, 1, 2)), channels // taken)


def _transpose_conv(call: Call) -> str:
    """Inputs: the result's shape, weights [O, h, w, I], data, bias."""
    wanted, x = call.integers(0), call.real(2)
    if len(wanted) != 4 or len(call.ranked(1, 4)) != 4:
        raise call.damaged(f"has the result's shape {wanted}")
    extents, kernel = call.ranked(2, 4)[1:3], call.shape(1)[1:3]
    strides = _strides(call, "StrideH", "StrideW")
    spare = [
        (n - 1) * s + k - out for n, s, k, out in zip(extents, strides, kernel, wanted[1:3], strict=True)
    ]
    cut = [max(0, one) for one in spare]
    added = [max(0, -one) for one in spare]
    if any(a >= s for a, s in zip(added, strides, strict=True)):
        raise Refused(f"its result {wanted} is larger than strides and weights make it")
    bias = [call.bias(3)] if call.has(3) else []
    y = call.emit(
        "ConvTranspose",
        call.channels_first(x),
        call.weight(1, (3, 0, 1, 2)),
        *bias,
        strides=strides,
        kernel_shape=list(kernel),
        pads=[c // 2 for c in cut] + [c - c // 2 for c in cut],
        output_padding=added,
    )
    return call.channels_last(call.activated(y))


def _fully_connected(call: Call) -> str:
    """Data [..., I] times weights [O, I]."""
    if call.option("WeightsFormat"):
        raise Refused("its weights are shuffled")
    made, taken = call.ranked(1, 2)
    x, shape = call.real(0), call.shape(0)
    if not shape or taken == 0 or math.prod(shape) % taken:
        raise call.damaged(f"has {list(shape)} numbers and weights for {taken}")
    if call.option("KeepNumDims"):
        if shape[-1] != taken:
            raise call.damaged(f"has data of shape {list(shape)} and weights for {taken}")
    else:
        x = call.reshape(x, (math.prod(shape) // taken, taken))
    y = call.emit("MatMul", x, call.weight(1, (1, 0)))
    if call.has(2):
        bias = call.bias(2)
        y = call.emit(
            "Add", y, bias if call.shape(2) in ((made,), (1, made)) else call.reshape(bias, (made,))
        )
    return call.activated(y)


def _batch_matmul(call: Call) -> str:
    sides = []
    for index, option in enumerate(("AdjX", "AdjY")):
        rank = len(call.shape(index))
        if rank < 2:
            raise call.damaged(f"has an input of {rank} dimensions")
        perm = (*range(rank - 2), rank - 1, rank - 2)
        sides.append(call.weight(index, perm) if call.option(option) else call.real(index))
    return call.emit("MatMul", *sides)


def _pool(op: str, **attributes: Any) -> Function:
    def convert(call: Call) -> str:
        return call.activated(_pooled(call, op, call.real(0), **attributes))

    return convert


def _pooled(call: Call, op: str, x: str, **attributes: Any) -> str:
    extents = call.ranked(0, 4)[1:3]
    kernel = _strides(call, "FilterHeight", "FilterWidth")
    strides = _strides(call, "StrideH", "StrideW")
    y = call.emit(
        op,
        call.channels_first(x),
        kernel_shape=kernel,
        strides=strides,
        pads=_padding(call, extents, kernel, strides, (1, 1)),
        **attributes,
    )
    return call.channels_last(y)


def _average_pool(call: Call) -> str:
    """TensorFlow Lite rounds halves of stored integers away from 0; means of few integers are often halves.

    Images round halves to even integers (docs/numerics.md). 8-bit numbers are read with a step that is larger
    or smaller by a millionth, which decides ties and nothing else: as TensorFlow Lite does for the integers
    between the zero point and the stored 0 or beyond it, where most of them lie.
    """
    tensor = call.tensor(0)
    if not tensor.is_quantised or np.dtype(tensor.dtype).itemsize > 1 or tensor.scale.size > 1:
        return call.activated(_pooled(call, "AveragePool", call.real(0), count_include_pad=0))
    zero = int(tensor.zero[0])
    away = zero < 128 if tensor.dtype == "uint8" else abs(zero) <= 64
    step = tensor.scale * np.float32(1 + _TIE if away else 1 - _TIE)
    x = call.dequantised(call.raw(0), replace(tensor, scale=step))
    return call.activated(_pooled(call, "AveragePool", x, count_include_pad=0))


def _l2_pool(call: Call) -> str:
    """The root of the mean of squares."""
    squares = call.emit("Mul", call.real(0), call.real(0))
    mean = _pooled(call, "AveragePool", squares, count_include_pad=0)
    return call.activated(call.emit("Sqrt", mean))


TABLE: Table = {
    "AVERAGE_POOL_2D": _average_pool,
    "BATCH_MATMUL": _batch_matmul,
    "CONV_2D": _conv2d,
    "CONV_3D": _conv3d,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "L2_POOL_2D": _l2_pool,
    "MAX_POOL_2D": _pool("MaxPool"),
    "TRANSPOSE_CONV": _transpose_conv,
}
