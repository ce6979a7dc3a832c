"""Layers that work on each element, or with one value a channel.

A rule takes the builder, a layer and the tensors that it reads, and gives those that it makes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tvm_ipu.base.errors import ModelError
from tvm_ipu.frontends.caffe.network import Layer
from tvm_ipu.frontends.onnx.graph import Array
from tvm_ipu.frontends.onnx.model_builder import ModelBuilder

Rule = Callable[[ModelBuilder, Layer, Sequence[str]], str | Sequence[str]]


def simple(op_type: str) -> Rule:
    """The rule of a layer that is one operator without attributes."""

    def rule(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
        return b.add(op_type, x[0])

    return rule


def scalar(value: float) -> Array:
    """A float32 constant of no dimensions."""
    return np.asarray(value, np.float32)


def axis_of(b: ModelBuilder, layer: Layer, tensor: str, axis: int, ends: int = 0) -> int:
    """An axis, which may count from the end, as one from the front.

    Args:
        b: Knows the tensor's shape.
        layer: For the message.
        tensor: What it is an axis of.
        axis: The axis.
        ends: 1 where the place behind the last axis is allowed too.

    Raises:
        ModelError: The tensor has no such axis.
    """
    rank = len(b.shape(tensor))
    found = axis if axis >= 0 else axis + rank + ends
    if not 0 <= found < rank + ends:
        raise ModelError(f"{layer}: its input of {rank} dimensions has no axis {axis}")
    return found


def relu(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """With a slope where the layer has one."""
    slope = layer.param("relu_param").negative_slope
    return b.add("LeakyRelu", x[0], alpha=slope) if slope else b.add("Relu", x[0])


def relu6(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """min(max(x, 0), 6)."""
    return b.add("Clip", x[0], scalar(0), scalar(6))


def clip(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """min(max(x, low), high)."""
    p = layer.param("clip_param")
    return b.add("Clip", x[0], scalar(p.min), scalar(p.max))


def prelu(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """One slope a channel, or one for all."""
    layer.check_weights(1, 1)
    shape = b.shape(x[0])
    count = 1 if layer.param("prelu_param").channel_shared else shape[1]
    slope = layer.weight(0, (count,)).reshape(count, *[1] * (len(shape) - 2))
    return b.add("PRelu", x[0], b.constant(slope, f"{layer.name}/slope"))


def elu(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """alpha * (exp(x) - 1) below 0."""
    return b.add("Elu", x[0], alpha=layer.param("elu_param").alpha)


def threshold(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """1 above the threshold, else 0."""
    above = b.add("Greater", x[0], scalar(layer.param("threshold_param").threshold))
    return b.add("Cast", above, to=b.elem_type(x[0]))


def swish(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """X * sigmoid(x)."""
    return b.add("Mul", x[0], b.add("Sigmoid", x[0]))


def power(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """(shift + scale * x) ** power."""
    p = layer.param("power_param")
    y = _affine(b, x[0], p)
    if p.power == 2:
        return b.add("Mul", y, y)
    return y if p.power == 1 else b.add("Pow", y, scalar(p.power))


def exp(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """Base ** (shift + scale * x)."""
    p = layer.param("exp_param")
    y = _affine(b, x[0], p)
    return b.add("Exp", y if p.base == -1 else b.add("Mul", y, scalar(math.log(p.base))))


def log(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """The logarithm of shift + scale * x to a base."""
    p = layer.param("log_param")
    y = b.add("Log", _affine(b, x[0], p))
    return y if p.base == -1 else b.add("Mul", y, scalar(1 / math.log(p.base)))


def _affine(b: ModelBuilder, x: str, p: Any) -> str:
    if p.scale != 1:
        x = b.add("Mul", x, scalar(p.scale))
    return b.add("Add", x, scalar(p.shift)) if p.shift else x


def batch_norm(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """(x - mean) / sqrt(variance + eps); both are stored with a factor."""
    p = layer.param("batch_norm_param")
    if not p.use_global_stats:
        raise ModelError(f"{layer}: statistics of the batch (use_global_stats: false) cannot be compiled")
    layer.check_weights(3, 3)
    shape = b.shape(x[0])
    count = shape[1] if len(shape) > 1 else 1
    factor = float(layer.weight(2, (1,))[0])
    mean, variance = (layer.weight(i, (count,)) * np.float32(1 / factor if factor else 0) for i in (0, 1))
    ones, zeros = np.ones(count, np.float32), np.zeros(count, np.float32)
    return b.add("BatchNormalization", x[0], ones, zeros, mean, variance, epsilon=p.eps)


def scale(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """Times, and maybe plus, values along some axes; one for each channel folds into a convolution before."""
    p = layer.param("scale_param")
    if len(x) > 1:
        y = b.add("Mul", x[0], _aligned(b, layer, x, p.axis))
        if not p.bias_term:
            return y
        layer.check_weights(1, 1)
        dims = b.shape(x[1])
        return b.add("Add", y, _spread(b, layer, x[0], layer.weight(0, dims), p.axis))
    layer.check_weights(1 + p.bias_term, 1 + p.bias_term)
    dims = _covered(b, layer, x[0], p)
    factor = layer.weight(0, dims)
    bias = layer.weight(1, dims) if p.bias_term else np.zeros_like(factor)
    if axis_of(b, layer, x[0], p.axis) == 1 and len(dims) == 1 and len(b.shape(x[0])) > 1:
        zeros, ones = np.zeros_like(factor), np.ones_like(factor)
        return b.add("BatchNormalization", x[0], factor, bias, zeros, ones, epsilon=0.0)
    y = b.add("Mul", x[0], _spread(b, layer, x[0], factor, p.axis))
    return b.add("Add", y, _spread(b, layer, x[0], bias, p.axis)) if p.bias_term else y


def bias(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """Plus values along some axes."""
    p = layer.param("bias_param")
    if len(x) > 1:
        return b.add("Add", x[0], _aligned(b, layer, x, p.axis))
    layer.check_weights(1, 1)
    value = layer.weight(0, _covered(b, layer, x[0], p))
    return b.add("Add", x[0], _spread(b, layer, x[0], value, p.axis))


def _covered(b: ModelBuilder, layer: Layer, x: str, p: Any) -> tuple[int, ...]:
    """The dimensions that a weight has."""
    start = axis_of(b, layer, x, p.axis)
    shape = b.shape(x)
    return shape[start:] if p.num_axes == -1 else shape[start : start + p.num_axes]


def _spread(b: ModelBuilder, layer: Layer, x: str, value: Array, axis: int) -> Array:
    behind = len(b.shape(x)) - axis_of(b, layer, x, axis) - value.ndim if value.ndim else 0
    return value.reshape(*value.shape, *[1] * behind)


def _aligned(b: ModelBuilder, layer: Layer, x: Sequence[str], axis: int) -> str:
    """The second input with ones behind, so that its axes begin at ``axis`` of the first."""
    dims = b.shape(x[1])
    behind = len(b.shape(x[0])) - axis_of(b, layer, x[0], axis) - len(dims) if dims else 0
    return b.add("Reshape", x[1], np.array([*dims, *[1] * behind], np.int64)) if behind else x[1]


def eltwise(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """Product, weighted sum or maximum of the inputs."""
    p = layer.param("eltwise_param")
    op_type = ("Mul", "Add", "Max")[p.operation]
    coefficients = list(p.coeff) or [1.0] * len(x)
    if len(coefficients) != len(x):
        raise ModelError(f"{layer}: {len(coefficients)} coefficients for {len(x)} inputs")
    terms = [
        t if c == 1 or op_type != "Add" else b.add("Mul", t, scalar(c))
        for t, c in zip(x, coefficients, strict=True)
    ]
    result = terms[0]
    for term in terms[1:]:
        result = b.add(op_type, result, term)
    return result


RULES: dict[str, Rule] = {
    "AbsVal": simple("Abs"),
    "BNLL": simple("Softplus"),
    "BatchNorm": batch_norm,
    "Bias": bias,
    "Clip": clip,
    "Dropout": simple("Identity"),
    "ELU": elu,
    "Eltwise": eltwise,
    "Exp": exp,
    "Log": log,
    "PReLU": prelu,
    "Power": power,
    "ReLU": relu,
    "ReLU6": relu6,
    "Scale": scale,
    "Sigmoid": simple("Sigmoid"),
    "Swish": swish,
    "TanH": simple("Tanh"),
    "Threshold": threshold,
}
