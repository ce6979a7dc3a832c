"""What each Relax operator means, in numpy.

Elementwise operators on floats are IEEE operations of the operands' type, each rounded once: nothing is
fused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax

from tvm_ipu.simulate import products

Array = NDArray[Any]
Function = Callable[..., Any]
"""A function of the operands' values."""


def _elementwise(function: Callable[..., Any]) -> Callable[[relax.Call], Function]:
    def make(call: relax.Call) -> Function:
        dtype = _dtype(call)
        return lambda *x: np.asarray(function(*x)).astype(dtype, copy=False)

    return make


def _logistic(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _clip(call: relax.Call) -> Function:
    low, high = (bound.value for bound in call.args[1:])
    return lambda x: np.minimum(np.maximum(x, x.dtype.type(low)), x.dtype.type(high))


def _astype(call: relax.Call) -> Function:
    dtype = _dtype(call)

    def function(x: Array) -> Array:
        with np.errstate(invalid="ignore"):  # a NaN becomes whatever the machine makes of it
            return x.astype(dtype)

    return function


def _reshape(call: relax.Call) -> Function:
    shape = tuple(int(d) for d in call.ty.shape)
    return lambda x: x.reshape(shape)


def _permute_dims(call: relax.Call) -> Function:
    axes = _integers(call.attrs.axes)
    return lambda x: np.ascontiguousarray(x.transpose(axes))


def _broadcast_to(call: relax.Call) -> Function:
    shape = tuple(int(d) for d in call.ty.shape)
    return lambda x: np.broadcast_to(x, shape)


def _concat(call: relax.Call) -> Function:
    axis = 0 if call.attrs.axis is None else int(call.attrs.axis)
    return lambda parts: np.concatenate(parts, axis)


def _split(call: relax.Call) -> Function:
    where, axis = call.attrs.indices_or_sections, int(call.attrs.axis)
    cuts = _integers(where) if hasattr(where, "__len__") else int(where)
    return lambda x: tuple(np.split(x, cuts, axis))


def _strided_slice(call: relax.Call) -> Function:
    axes, begin, end, *strides = (_integers(arg.fields) for arg in call.args[1:])
    steps = strides[0] if strides else [1] * len(axes)

    def function(x: Array) -> Array:
        cut = [slice(None)] * x.ndim
        for axis, first, last, step in zip(axes, begin, end, steps, strict=True):
            backwards = step < 0 and last < -x.shape[axis]
            cut[axis] = slice(first, None if backwards else last, step)
        return x[tuple(cut)]

    return function


def _take(call: relax.Call) -> Function:
    axis = None if call.attrs.axis is None else int(call.attrs.axis)
    return lambda x, at: np.take(x, at, axis)


def _pad(call: relax.Call) -> Function:
    widths, mode = _integers(call.attrs.pad_width), str(call.attrs.pad_mode)
    pairs = list(zip(widths[::2], widths[1::2], strict=True))
    if mode == "constant":
        value = float(call.attrs.pad_value)
        return lambda x: np.pad(x, pairs, constant_values=x.dtype.type(value))
    modes = {"reflect": "reflect", "replicate": "edge", "edge": "edge", "circular": "wrap"}
    if mode not in modes:
        raise NotImplementedError
    return lambda x: np.pad(x, pairs, mode=modes[mode])  # type: ignore[call-overload]


def _max_pool2d(call: relax.Call) -> Function:
    attrs = call.attrs
    if str(attrs.layout) != "NCHW" or bool(attrs.ceil_mode):
        raise NotImplementedError
    kernel, strides, padding, dilation = (
        _integers(value) for value in (attrs.pool_size, attrs.strides, attrs.padding, attrs.dilation)
    )

    def function(x: Array) -> Array:
        least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        pairs = ((0, 0), (0, 0), (padding[0], padding[2]), (padding[1], padding[3]))
        padded = np.pad(x, pairs, constant_values=x.dtype.type(least))
        return np.asarray(products.windows(padded, kernel, strides, dilation).max((2, 3)))

    return function


def _conv2d(call: relax.Call) -> Function:
    attrs, dtype = call.attrs, _dtype(call)
    layouts = (str(attrs.data_layout), str(attrs.kernel_layout))
    if layouts != ("NCHW", "OIHW"):
        raise NotImplementedError
    strides, padding, dilation = (
        _integers(value) for value in (attrs.strides, attrs.padding, attrs.dilation)
    )
    weights = _Weights((1, 2, 3))
    return lambda x, w: products.conv2d(
        x, weights.of(w), strides, padding, dilation, int(attrs.groups), dtype
    )


def _matmul(call: relax.Call) -> Function:
    dtype = _dtype(call)
    weights = _Weights((-2,) if len(call.args[1].ty.shape) > 1 else (0,))
    return lambda a, b: products.matmul(a, weights.of(b), dtype)


class _Weights:
    """Keeps what was worked out for a constant operand: the same array each time."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        self._axes = axes
        self._last: products.Weight | None = None

    def of(self, value: Array) -> products.Weight:
        if self._last is None or self._last.value is not value:
            self._last = products.Weight(value, self._axes)
        return self._last


def _reduced(function: Callable[..., Any]) -> Callable[[relax.Call], Function]:
    def make(call: relax.Call) -> Function:
        axes = None if call.attrs.axis is None else tuple(_integers(call.attrs.axis))
        keep, dtype = bool(call.attrs.keepdims), _dtype(call)
        return lambda x: np.asarray(function(x, axis=axes, keepdims=keep)).astype(dtype, copy=False)

    return make


def _sum(x: Array, axis: Any, keepdims: bool) -> Array:
    return np.asarray(np.sum(x, axis=axis, keepdims=keepdims, dtype=x.dtype))


def _softmax(call: relax.Call) -> Function:
    axis = int(call.attrs.axis)

    def function(x: Array) -> Array:
        powers = np.exp(x - x.max(axis, keepdims=True))
        return np.asarray(powers / powers.sum(axis, keepdims=True))

    return function


def _quantize(call: relax.Call) -> Function:
    """By ONNX's definition: ``saturate(round(x / scale) + zero)``."""
    dtype, axis = np.dtype(_dtype(call)), int(call.attrs.axis)
    info = np.iinfo(dtype)

    def function(x: Array, scale: Array, zero: Array) -> Array:
        step, shift = (_along(p, axis, x.ndim) for p in (scale, zero))
        steps = np.rint(x / step) + shift.astype(np.float32)
        return np.asarray(np.clip(np.nan_to_num(steps, nan=0.0), info.min, info.max), dtype)

    return function


def _dequantize(call: relax.Call) -> Function:
    axis, dtype = int(call.attrs.axis), _dtype(call)

    def function(x: Array, scale: Array, zero: Array) -> Array:
        step, shift = (_along(p, axis, x.ndim) for p in (scale, zero))
        centred = (x.astype(np.int32) - shift.astype(np.int32)).astype(np.float32)
        return np.asarray(centred * step, dtype)

    return function


def _along(parameter: Array, axis: int, rank: int) -> Array:
    if parameter.size == 1:
        return parameter.reshape(())
    shape = [1] * rank
    shape[axis] = parameter.size
    return parameter.reshape(shape)


def _dtype(call: relax.Call) -> str:
    return str(call.ty.dtype)


def _integers(values: Any) -> list[int]:
    return [int(value) for value in values]


OPERATORS: dict[str, Callable[[relax.Call], Function]] = {
    "relax.add": _elementwise(np.add),
    "relax.subtract": _elementwise(np.subtract),
    "relax.multiply": _elementwise(np.multiply),
    "relax.maximum": _elementwise(np.maximum),
    "relax.minimum": _elementwise(np.minimum),
    "relax.bitwise_and": _elementwise(np.bitwise_and),
    "relax.bitwise_or": _elementwise(np.bitwise_or),
    "relax.left_shift": _elementwise(np.left_shift),
    "relax.right_shift": _elementwise(np.right_shift),
    "relax.equal": _elementwise(np.equal),
    "relax.greater": _elementwise(np.greater),
    "relax.greater_equal": _elementwise(np.greater_equal),
    "relax.less": _elementwise(np.less),
    "relax.less_equal": _elementwise(np.less_equal),
    "relax.where": _elementwise(np.where),
    "relax.abs": _elementwise(np.abs),
    "relax.negative": _elementwise(np.negative),
    "relax.round": _elementwise(np.rint),
    "relax.floor": _elementwise(np.floor),
    "relax.ceil": _elementwise(np.ceil),
    "relax.exp": _elementwise(np.exp),
    "relax.log": _elementwise(np.log),
    "relax.sqrt": _elementwise(np.sqrt),
    "relax.tanh": _elementwise(np.tanh),
    "relax.sigmoid": _elementwise(_logistic),
    "relax.nn.relu": _elementwise(lambda x: np.maximum(x, x.dtype.type(0))),
    "relax.nn.softmax": _softmax,
    "relax.clip": _clip,
    "relax.astype": _astype,
    "relax.reshape": _reshape,
    "relax.expand_dims": _reshape,
    "relax.squeeze": _reshape,
    "relax.flatten": _reshape,
    "relax.permute_dims": _permute_dims,
    "relax.broadcast_to": _broadcast_to,
    "relax.concat": _concat,
    "relax.split": _split,
    "relax.strided_slice": _strided_slice,
    "relax.take": _take,
    "relax.nn.pad": _pad,
    "relax.nn.max_pool2d": _max_pool2d,
    "relax.nn.conv2d": _conv2d,
    "relax.matmul": _matmul,
    "relax.sum": _reduced(_sum),
    "relax.max": _reduced(np.max),
    "relax.min": _reduced(np.min),
    "relax.quantize": _quantize,
    "relax.dequantize": _dequantize,
}
"""By operator: makes the function that a call stands for. ``NotImplementedError`` leaves the call to TVM."""
